// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What each command does to the device. This file must not know lines, clients or sockets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Instant;

use virtio_fifo_protocol::virtio_fifo::CONTROL_QUEUE;
use virtio_fifo_protocol::virtio_fifo::EVENT_QUEUE;
use virtio_fifo_protocol::virtio_fifo::STATE_ERROR;
use virtio_fifo_protocol::virtio_fifo::STATE_HANGUP;
use virtio_fifo_protocol::virtio_fifo::rx_queue;
use virtio_fifo_protocol::virtio_fifo::tx_queue;

use super::metrics;
use super::protocol;
use super::protocol::Cleared;
use super::protocol::Code;
use super::protocol::Command;
use super::protocol::DeviceStatus;
use super::protocol::DirectionStatus;
use super::protocol::Failure;
use super::protocol::FaultAdded;
use super::protocol::FaultStatus;
use super::protocol::Faults;
use super::protocol::FaultsRemoved;
use super::protocol::FifoStatus;
use super::protocol::HostSide;
use super::protocol::MAX_BYTES;
use super::protocol::Metrics;
use super::protocol::Outcome;
use super::protocol::Pulled;
use super::protocol::Pushed;
use super::protocol::Status;
use crate::device::Device;
use crate::device::FifoGuard;
use crate::fault;
use crate::fault::FaultError;
use crate::fault::FaultId;
use crate::fault::FaultRefused;
use crate::fault::FaultSpec;
use crate::fifo::Connection;
use crate::fifo::Fifo;
use crate::fifo::NotByHand;
use crate::fifo::Traffic;
use crate::refusal::Refusal;
use crate::sandbox::Confinement;
use crate::trace::Tracer;

/// Most faults at a time: each is asked whenever something could go wrong.
const MAX_FAULTS: usize = 64;

/// The device, as far as it can be controlled.
#[derive(Clone, Debug)]
pub struct Service {
    device: Arc<Device>,
    started: Instant,
    /// What the process has given up, once it has.
    confinement: Arc<OnceLock<Confinement>>,
}

impl Service {
    /// Controls `device`, which starts now.
    pub fn new(device: Arc<Device>) -> Self {
        Self {
            device,
            started: Instant::now(),
            confinement: Arc::default(),
        }
    }

    /// What [`Service::status`] says of the process. The first time counts.
    pub fn set_confinement(&self, confinement: Confinement) {
        self.confinement.get_or_init(|| confinement);
    }

    /// Where the device's events are recorded.
    pub fn tracer(&self) -> &Arc<Tracer> {
        self.device.tracer()
    }

    /// Carries out a command.
    ///
    /// # Errors
    ///
    /// Why it cannot be.
    pub fn run(&self, command: Command) -> Result<Outcome, Failure> {
        match command {
            Command::Status {} => Ok(Outcome::Status(Box::new(self.status()))),
            Command::Metrics {} => Ok(Outcome::Metrics(Metrics {
                metrics: self.metrics()?,
            })),
            Command::Push { fifo, text, base64 } => self.push(fifo, text, base64),
            Command::Pull { fifo, max } => self.pull(fifo, max),
            Command::Clear { fifo } => {
                let cleared = self.change(fifo, |fifo| Ok(fifo.clear_by_hand()))?;
                Ok(Outcome::Cleared(Cleared { cleared }))
            }
            Command::Hangup { fifo, on } => {
                self.change(fifo, |fifo| {
                    fifo.hang_up(on);
                    Ok(())
                })?;
                Ok(Outcome::Done {})
            }
            Command::FaultAdd { .. }
            | Command::FaultList {}
            | Command::FaultRemove { .. }
            | Command::FaultClear {}
                if !fault::BUILT_IN =>
            {
                Err(refused(FaultRefused::NotBuilt))
            }
            Command::FaultAdd { spec } => self.add_fault(&spec),
            Command::FaultList {} => Ok(Outcome::Faults(Faults {
                faults: self.faults(),
            })),
            Command::FaultRemove { fault } => {
                if self.device.faults().remove(FaultId(fault)) {
                    Ok(Outcome::Done {})
                } else {
                    Err(Failure::new(
                        Code::NoSuchFault,
                        format!("there is no fault {fault}: fault-list tells which there are"),
                    ))
                }
            }
            Command::FaultClear {} => Ok(Outcome::FaultsRemoved(FaultsRemoved {
                removed: self.device.faults().clear(),
            })),
            Command::Watch { fifos } => {
                for fifo in fifos {
                    drop(self.fifo(fifo)?);
                }
                Ok(Outcome::Done {})
            }
            // The rest is the client's: it alone knows whether it reads.
            Command::Trace { .. } => Ok(Outcome::Done {}),
        }
    }

    /// The device as Prometheus text.
    ///
    /// # Errors
    ///
    /// When it cannot be written so.
    pub fn metrics(&self) -> Result<String, Failure> {
        metrics::text(&self.status())
            .map_err(|error| Failure::new(Code::Failed, format!("no metrics: {error}")))
    }

    /// The device now. Each FIFO is locked for a moment, one after another.
    pub fn status(&self) -> Status {
        let device = &self.device;
        let refused = Refusal::ALL.map(|reason| (reason, device.refused(reason)));
        Status {
            device: DeviceStatus {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
                connected: device.is_connected(),
                connections: device.connections(),
                control_interrupts: device.interrupts(CONTROL_QUEUE),
                event_interrupts: device.interrupts(EVENT_QUEUE),
                refused: by_name(refused),
                sandbox: self
                    .confinement
                    .get()
                    .map_or_else(|| "none".to_owned(), ToString::to_string),
            },
            fifos: (0..device.num_fifos())
                .filter_map(|index| self.fifo_status(index))
                .collect(),
            faults: self.faults(),
        }
    }

    fn fifo_status(&self, index: u16) -> Option<FifoStatus> {
        let device = &self.device;
        let (status, by_control, refused) = {
            let fifo = device.fifo(index)?;
            let refused = by_name(fifo.refusals().counts());
            (fifo.status(), fifo.is_hung_up_by_hand(), refused)
        };
        let direction = |traffic: Traffic, queue| DirectionStatus {
            level: traffic.level,
            entered: traffic.entered,
            left: traffic.left,
            messages: traffic.messages,
            interrupts: device.interrupts(queue),
        };
        Some(FifoStatus {
            fifo: index,
            kind: device.kind(index)?.to_owned(),
            capacity: status.capacity,
            host: status.connection.into(),
            peers: status.peers,
            hangup: status.flags & STATE_HANGUP != 0,
            hangup_by_control: by_control,
            error: status.flags & STATE_ERROR != 0,
            rx: direction(status.rx, rx_queue(index)),
            tx: direction(status.tx, tx_queue(index)),
            refused,
        })
    }

    fn faults(&self) -> Vec<FaultStatus> {
        let reports = self.device.faults().list().into_iter();
        reports
            .map(|report| FaultStatus {
                fault: report.id.0,
                spec: report.spec.to_string(),
                opportunities: report.opportunities,
                strikes: report.strikes,
                over: report.over,
            })
            .collect()
    }

    fn add_fault(&self, spec: &str) -> Result<Outcome, Failure> {
        let spec: FaultSpec = spec
            .parse()
            .map_err(|error: FaultError| Failure::bad_request(format!("fault-add: {error}")))?;
        let faults = self.device.faults();
        if faults.list().len() >= MAX_FAULTS {
            return Err(Failure::new(
                Code::Unsupported,
                format!("there are {MAX_FAULTS} faults: remove some of them"),
            ));
        }
        let id = faults.add(&spec).map_err(refused)?;
        Ok(Outcome::FaultAdded(FaultAdded { fault: id.0 }))
    }

    fn push(
        &self,
        index: u16,
        text: Option<String>,
        base64: Option<String>,
    ) -> Result<Outcome, Failure> {
        let bytes = protocol::decode(text, base64)?;
        self.change(index, |fifo| {
            let pushed = fifo.push(&bytes)?;
            let free = fifo.free();
            Ok(Outcome::Pushed(Pushed { pushed, free }))
        })
    }

    fn pull(&self, index: u16, max: usize) -> Result<Outcome, Failure> {
        self.change(index, |fifo| {
            let bytes = fifo.pull(max.min(MAX_BYTES))?;
            Ok(Outcome::Pulled(Pulled {
                base64: protocol::encode(&bytes),
                pulled: bytes.len(),
                left: fifo.untaken(),
            }))
        })
    }

    /// Changes a FIFO, and has the driver told.
    fn change<T>(
        &self,
        index: u16,
        change: impl FnOnce(&mut Fifo) -> Result<T, NotByHand>,
    ) -> Result<T, Failure> {
        let result = change(&mut *self.fifo(index)?);
        self.device.serve_fifo(index);
        result.map_err(|error| Failure::new(Code::Unsupported, error.to_string()))
    }

    fn fifo(&self, index: u16) -> Result<FifoGuard<'_>, Failure> {
        self.device.fifo(index).ok_or_else(|| {
            let count = self.device.num_fifos();
            Failure::new(
                Code::NoSuchFifo,
                format!("there is no FIFO {index}: the device has {count}, numbered from 0"),
            )
        })
    }
}

fn refused(error: FaultRefused) -> Failure {
    let code = match error {
        FaultRefused::NoSuchFifo { .. } => Code::NoSuchFifo,
        FaultRefused::NotBuilt => Code::Unsupported,
    };
    Failure::new(code, error.to_string())
}

fn by_name(counts: impl IntoIterator<Item = (Refusal, u64)>) -> BTreeMap<String, u64> {
    counts
        .into_iter()
        .map(|(reason, count)| (reason.name().to_owned(), count))
        .collect()
}

impl From<Connection> for HostSide {
    fn from(connection: Connection) -> Self {
        match connection {
            Connection::Lasting => Self::Lasting,
            Connection::Awaited => Self::Awaited,
            Connection::Connected => Self::Connected,
            Connection::HalfClosed => Self::HalfClosed,
            Connection::Gone => Self::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fifo::ResetPolicy;
    use crate::spec::FifoSpec;
    use crate::spec::Kind;

    #[test]
    fn fault_commands_are_unsupported_where_faults_are_not_built_in() {
        let spec = FifoSpec {
            kind: Kind::Null,
            capacity: 16,
        };
        let device = Device::new(&[spec], ResetPolicy::Keep).unwrap();
        let service = Service::new(Arc::new(device));
        let commands = [
            Command::FaultAdd {
                spec: "slow".to_owned(),
            },
            Command::FaultList {},
            Command::FaultRemove { fault: 1 },
            Command::FaultClear {},
        ];
        for command in commands {
            let code = service
                .run(command.clone())
                .map_err(|failure| failure.code)
                .err();
            let unsupported = code == Some(Code::Unsupported);
            assert_eq!(unsupported, !fault::BUILT_IN, "{command:?}: {code:?}");
        }
    }
}
