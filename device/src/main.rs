// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `vhost-device-fifo`: from the command line to a served device.

use std::error::Error;
use std::fmt::Display;
use std::io::Write;
use std::os::fd::RawFd;
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
use vhost_device_fifo::signals::Requests;
use vhost_device_fifo::signals::Signals;
use vhost_device_fifo::socket::Listening;
use vhost_device_fifo::spec::Kind;
use vhost_device_fifo::systemd::Activation;
use vhost_device_fifo::systemd::ServiceManager;

fn main() -> ExitCode {
    let config = Config::from_command_line();
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::print(format_args!("vhost-device-fifo: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config) -> Result<(), Box<dyn Error>> {
    match &config.action {
        Action::PrintCapabilities => writeln!(std::io::stdout(), "{}", config.capabilities())
            .map_err(cannot("print the capabilities")),
        Action::Control(args) => control(args),
        Action::Serve { socket, until } => serve(config, socket, *until),
    }
}

/// An error that says what was tried.
fn cannot<E: Display>(what: &'static str) -> impl FnOnce(E) -> Box<dyn Error> {
    move |error| format!("cannot {what}: {error}").into()
}

fn control(args: &CtlArgs) -> Result<(), Box<dyn Error>> {
    match ctl::run(args) {
        Err(error) if error.is_broken_pipe() => Ok(()),
        result => Ok(result?),
    }
}

fn serve(config: &Config, socket: &SocketSource, until: Until) -> Result<(), Box<dyn Error>> {
    // First of all, while every open descriptor is an inherited one.
    let activation = Activation::from_env()?;
    let (vhost_user, path) = match socket {
        SocketSource::Path(path, access) => (None, Some((path, access))),
        SocketSource::Fd(fd) => (Some(Listening::inherit(*fd)?), None),
        SocketSource::Activation => (Some(Listening::inherit(handed_over(activation)?)?), None),
    };
    let control = activation.control.map(Listening::inherit).transpose()?;
    log::init().map_err(cannot("use standard error"))?;
    let manager = Arc::new(ServiceManager::from_env());
    let device = Arc::new(Device::new(&config.fifos, config.reset)?);
    for fault in &config.faults {
        device.faults().add(fault)?;
    }
    let outside = host::open(&device, &config.fifos)?;
    let mut requests = Requests::default();
    let service = Service::new(Arc::clone(&device));
    let handles = handles(config, &service, control, &mut requests)?;
    requests.reopen.extend(outside.reopen);
    // Last of all: whoever waits for the socket to appear can rely on the others.
    let listening = match (vhost_user, path) {
        (Some(listening), _) => listening,
        (None, Some((path, access))) => Listening::bind_for(path, access)?,
        (None, None) => return Err("no socket for VMMs".into()),
    };
    let (mut server, stop) = Server::new(device, config.queue_size, listening, until)?;
    let signals = Signals::take_over(stop, requests, Arc::clone(&manager));
    server.add(Box::new(signals.map_err(cannot("take over signals"))?));
    // Everything is open, nobody was listened to yet, and there is but one thread.
    let confinement = config.sandbox.enter(&config.needs())?;
    service.set_confinement(confinement);
    info!(sandbox = %confinement, "confined");
    for subscriber in outside.subscribers.into_iter().chain(handles) {
        server.add(subscriber);
    }
    // With a FIFO on it, standard output is for its bytes alone.
    let taken = config.fifos.iter().any(|fifo| fifo.kind == Kind::Stdio);
    let ptys = outside.ptys.iter();
    let ptys = ptys.map(|(fifo, path)| format!("fifo {fifo}: pty {}", path.display()));
    let ports = outside.ports.iter();
    let ports = ports.map(|(fifo, address)| format!("fifo {fifo}: tcp {address}"));
    for line in ptys.chain(ports) {
        if taken {
            log::print(line);
        } else {
            writeln!(std::io::stdout(), "{line}").map_err(cannot("print the FIFOs' addresses"))?;
        }
    }
    let fifos: Vec<_> = config.fifos.iter().map(ToString::to_string).collect();
    info!(%socket, virtio_id = config.virtio_id, ?fifos, "serving");
    manager.ready(&format!("serving {} FIFOs on {socket}", fifos.len()));
    server.run()?;
    Ok(())
}

fn handed_over(activation: Activation) -> Result<RawFd, &'static str> {
    activation.vhost_user.ok_or(
        "LISTEN_FDS is set, but for another process or without a socket for VMMs: \
         give --socket-path PATH, or hand over a socket that is not named control",
    )
}

/// What lets others look at the device and handle it; `control` is a socket for it that was handed
/// over.
fn handles(
    config: &Config,
    service: &Service,
    control: Option<Listening>,
    requests: &mut Requests,
) -> Result<Vec<Subscriber>, Box<dyn Error>> {
    let mut handles: Vec<Subscriber> = Vec::new();
    let made = config.control.as_deref().map(Listening::bind).transpose()?;
    for listening in made.into_iter().chain(control) {
        let control = Control::new(service.clone(), listening)
            .map_err(cannot("set up the control socket"))?;
        handles.push(Box::new(control));
    }
    if let Some(path) = &config.metrics {
        let (metrics, asked) = MetricsFile::new(service.clone(), path)?;
        requests.report.push(asked.report);
        requests.reopen.push(asked.reopen);
        handles.push(Box::new(metrics));
    }
    Ok(handles)
}
