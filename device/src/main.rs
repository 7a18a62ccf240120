// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `vhost-device-fifo`: from the command line to a served device.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use tracing::info;
use vhost_device_fifo::cli::Action;
use vhost_device_fifo::cli::Config;
use vhost_device_fifo::cli::SocketSource;
use vhost_device_fifo::control::Control;
use vhost_device_fifo::control::Service;
use vhost_device_fifo::control::metrics_file::MetricsFile;
use vhost_device_fifo::ctl;
use vhost_device_fifo::ctl::CtlArgs;
use vhost_device_fifo::device::Device;
use vhost_device_fifo::host;
use vhost_device_fifo::log;
use vhost_device_fifo::server::Server;
use vhost_device_fifo::server::Subscriber;
use vhost_device_fifo::server::Until;
use vhost_device_fifo::socket::Listening;

fn main() -> ExitCode {
    let config = Config::from_command_line();
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vhost-device-fifo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config) -> Result<(), Box<dyn Error>> {
    match &config.action {
        Action::PrintCapabilities => Ok(writeln!(std::io::stdout(), "{}", config.capabilities())?),
        Action::Control(args) => control(args),
        Action::Serve { socket, until } => serve(config, socket, *until),
    }
}

fn control(args: &CtlArgs) -> Result<(), Box<dyn Error>> {
    match ctl::run(args) {
        Err(error) if error.is_broken_pipe() => Ok(()),
        result => Ok(result?),
    }
}

fn serve(config: &Config, socket: &SocketSource, until: Until) -> Result<(), Box<dyn Error>> {
    // First of all, while every open descriptor is an inherited one.
    let inherited = match socket {
        SocketSource::Path(path) => Err(path),
        SocketSource::Fd(fd) => Ok(Listening::inherit(*fd)?),
    };
    log::init();
    let device = Arc::new(Device::new(&config.fifos, config.reset)?);
    for fault in &config.faults {
        device.faults().add(fault)?;
    }
    let outside = host::open(&device, &config.fifos)?;
    let handles = handles(config, &Service::new(Arc::clone(&device)))?;
    // Last of all: whoever waits for the socket to appear can rely on the others.
    let listening = inherited.or_else(|path| Listening::bind(path))?;
    let (mut server, _stop) = Server::new(device, config.queue_size, listening, until)?;
    server.handle_signals()?;
    // Everything is open, nobody was listened to yet, and there is but one thread.
    config.sandbox.enter(config.needs())?;
    for subscriber in outside.subscribers.into_iter().chain(handles) {
        server.add(subscriber);
    }
    for (fifo, path) in outside.ptys {
        writeln!(std::io::stdout(), "fifo {fifo}: pty {}", path.display())?;
    }
    let fifos: Vec<_> = config.fifos.iter().map(ToString::to_string).collect();
    info!(%socket, virtio_id = config.virtio_id, ?fifos, "serving");
    server.run()?;
    Ok(())
}

/// What lets others look at the device and handle it.
fn handles(config: &Config, service: &Service) -> Result<Vec<Subscriber>, Box<dyn Error>> {
    let mut handles: Vec<Subscriber> = Vec::new();
    if let Some(path) = &config.control {
        let control = Control::new(service.clone(), Listening::bind(path)?)?;
        handles.push(Box::new(control));
    }
    if let Some(path) = &config.metrics {
        handles.push(Box::new(MetricsFile::new(service.clone(), path)?));
    }
    Ok(handles)
}
