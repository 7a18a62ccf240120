// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! [`Host`], a device of this crate that is served on a real socket, and fifo-testdriver, which plays VMM and driver.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

pub use fifo_testdriver::*;
use tempfile::TempDir;
use vhost_device_fifo::backend::FEATURES;
use vhost_device_fifo::control::Control;
use vhost_device_fifo::control::Service;
use vhost_device_fifo::device::Device;
use vhost_device_fifo::fault::FaultId;
use vhost_device_fifo::fifo::ResetPolicy;
use vhost_device_fifo::host;
use vhost_device_fifo::refusal::Refusal;
use vhost_device_fifo::server::Server;
use vhost_device_fifo::server::ServerError;
use vhost_device_fifo::server::StopHandle;
use vhost_device_fifo::server::Until;
use vhost_device_fifo::socket::Listening;
use vhost_device_fifo::spec::DEFAULT_CAPACITY;
use vhost_device_fifo::spec::PartialSpec;

/// Only a hang takes this long.
const PATIENCE_MS: u64 = 20_000;

/// A device that is being served.
pub struct Host {
    pub device: Arc<Device>,
    /// As [`host::Outside::ptys`].
    pub ptys: Vec<(u16, PathBuf)>,
    path: PathBuf,
    stop: StopHandle,
    thread: Option<JoinHandle<Result<(), ServerError>>>,
    _dir: TempDir,
}

impl Host {
    pub fn new(specs: &[&str]) -> Self {
        Self::with_reset(specs, ResetPolicy::Keep)
    }

    pub fn with_reset(specs: &[&str], reset: ResetPolicy) -> Self {
        Self::build(specs, reset, |_, _, _| {})
    }

    /// With a control socket, at [`Host::control`].
    pub fn with_control(specs: &[&str]) -> Self {
        Self::build(specs, ResetPolicy::Keep, |server, device, dir| {
            let listening = Listening::bind(&dir.join("control.sock")).unwrap();
            let service = Service::new(Arc::clone(device));
            server.add(Box::new(Control::new(service, listening).unwrap()));
        })
    }

    fn build(
        specs: &[&str],
        reset: ResetPolicy,
        add: impl FnOnce(&mut Server, &Arc<Device>, &Path),
    ) -> Self {
        let specs: Vec<_> = specs
            .iter()
            .map(|spec| {
                spec.parse::<PartialSpec>()
                    .unwrap()
                    .with_default(DEFAULT_CAPACITY)
            })
            .collect();
        let device = Arc::new(Device::new(&specs, reset).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo.sock");
        let listening = Listening::bind(&path).unwrap();
        let outside = host::open(&device, &specs).unwrap();
        let (mut server, stop) =
            Server::new(Arc::clone(&device), 1024, listening, Until::Stopped).unwrap();
        for subscriber in outside.subscribers {
            server.add(subscriber);
        }
        add(&mut server, &device, dir.path());
        Self {
            device,
            ptys: outside.ptys,
            path,
            stop,
            thread: Some(std::thread::spawn(|| server.run())),
            _dir: dir,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn control(&self) -> PathBuf {
        self.path.with_file_name("control.sock")
    }

    /// A driver that has initialised the device as section 5 of the specification has it.
    pub fn driver(&self) -> Driver {
        self.driver_with(FEATURES)
    }

    pub fn driver_with(&self, features: u64) -> Driver {
        let mut driver = Driver::connect(&self.path, self.device.num_fifos(), features);
        driver.start(&[]);
        driver.init();
        driver
    }

    /// Adds a fault.
    pub fn fault(&self, spec: &str) -> FaultId {
        self.device.faults().add(&spec.parse().unwrap()).unwrap()
    }

    /// How often a fault has struck, all of them together.
    #[cfg(feature = "faults")]
    pub fn strikes(&self) -> u64 {
        let faults = self.device.faults().list();
        faults.iter().map(|fault| fault.strikes).sum()
    }

    pub fn refused(&self, fifo: u16, reason: Refusal) -> u64 {
        self.device.fifo(fifo).unwrap().refusals().count(reason)
    }

    /// Waits until something was refused for `reason` that belongs to no FIFO.
    pub fn wait_refused(&self, reason: Refusal) {
        let deadline = Instant::now() + Duration::from_millis(PATIENCE_MS);
        while self.device.refused(reason) == 0 {
            assert!(Instant::now() < deadline, "nothing was refused");
            std::thread::yield_now();
        }
    }

    /// Every refusal so far, of all queues.
    pub fn all_refused(&self) -> u64 {
        let fifos = 0..self.device.num_fifos();
        let of_fifos: u64 = fifos
            .map(|fifo| {
                let fifo = self.device.fifo(fifo).unwrap();
                fifo.refusals()
                    .counts()
                    .map(|(_, count)| count)
                    .sum::<u64>()
            })
            .sum();
        let others: u64 = Refusal::ALL
            .into_iter()
            .map(|reason| self.device.refused(reason))
            .sum();
        of_fifos + others
    }

    pub fn end(mut self) -> Result<(), ServerError> {
        self.stop.stop().unwrap();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.stop.stop().unwrap();
            let result = thread.join();
            if !std::thread::panicking() {
                result.unwrap().unwrap();
            }
        }
    }
}
