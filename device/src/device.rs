// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device as it outlives every VMM that connects to it: its FIFOs and its configuration.
//!
//! Each FIFO has its own lock, so that endpoints on the event loop and the queue worker meet one
//! FIFO at a time. This file must not know virtqueues or sockets.

use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use virtio_fifo_protocol::virtio_fifo;
use virtio_fifo_protocol::virtio_fifo::Config;

use crate::endpoint::Endpoint;
use crate::fault::Due;
use crate::fault::Faults;
use crate::fault::Place;
use crate::fifo::Fifo;
use crate::fifo::ResetPolicy;
use crate::mailbox::Mailbox;
use crate::pattern::Pattern;
use crate::refusal::Refusal;
use crate::refusal::Refusals;
use crate::spec::FifoSpec;
use crate::spec::Kind;
use crate::trace::Tracer;
use crate::trace::What;
use crate::turns::Turn;
use crate::turns::Turns;

/// What a device cannot be made of.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// DEV-2
    #[error("{0} FIFOs asked for; a device has 1 to {max}", max = virtio_fifo::MAX_FIFOS)]
    Count(usize),
    /// Faults need a timer.
    #[error("cannot create a timer: {0}")]
    Timer(#[source] io::Error),
}

/// A locked FIFO. [`FifoGuard::bump`] hands the lock to a waiter.
pub type FifoGuard<'a> = Turn<'a, Fifo>;

/// A virtio-fifo device.
#[derive(Debug)]
pub struct Device {
    fifos: Vec<Turns<Fifo>>,
    num_fifos: u16,
    /// What was refused on the queues that belong to no FIFO: control and event.
    refusals: Mutex<Refusals>,
    /// The queue worker of the VMM that is connected.
    worker: Mutex<Option<Arc<Mailbox>>>,
    faults: Faults,
    /// How many VMMs have connected.
    connections: AtomicU64,
    /// How often the driver was interrupted, by virtqueue.
    interrupts: Vec<AtomicU64>,
    kinds: Vec<&'static str>,
    tracer: Arc<Tracer>,
}

impl Device {
    /// A device with one FIFO for each of `specs`.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Count`] for none or too many, [`DeviceError::Timer`] when the kernel refuses.
    pub fn new(specs: &[FifoSpec], reset: ResetPolicy) -> Result<Self, DeviceError> {
        let num_fifos = u16::try_from(specs.len())
            .ok()
            .filter(|count| (1..=virtio_fifo::MAX_FIFOS).contains(count))
            .ok_or(DeviceError::Count(specs.len()))?;
        let tracer = Arc::new(Tracer::default());
        let fifos = (0..)
            .zip(specs)
            .map(|(index, spec)| {
                Turns::new(make(index, spec, reset).traced_by(Arc::clone(&tracer)))
            })
            .collect();
        Ok(Self {
            fifos,
            num_fifos,
            refusals: Mutex::default(),
            worker: Mutex::default(),
            faults: Faults::new(num_fifos, Arc::clone(&tracer)).map_err(DeviceError::Timer)?,
            connections: AtomicU64::default(),
            interrupts: (0..virtio_fifo::num_queues(num_fifos))
                .map(|_| AtomicU64::default())
                .collect(),
            kinds: specs.iter().map(|spec| spec.kind.name()).collect(),
            tracer,
        })
    }

    /// How many FIFOs there are.
    pub fn num_fifos(&self) -> u16 {
        self.num_fifos
    }

    /// How many virtqueues there are.
    pub fn num_queues(&self) -> u16 {
        virtio_fifo::num_queues(self.num_fifos)
    }

    /// Configuration space.
    pub fn config(&self) -> Config {
        Config::new(self.num_fifos)
    }

    /// Locks one FIFO; `None` if there is no such FIFO.
    pub fn fifo(&self, index: u16) -> Option<FifoGuard<'_>> {
        // No invariant of a FIFO spans a panic, which unlocks it: its rings move their cursors last.
        Some(self.fifos.get(usize::from(index))?.lock())
    }

    /// The kind of a FIFO, as its SPEC names it.
    pub fn kind(&self, index: u16) -> Option<&'static str> {
        self.kinds.get(usize::from(index)).copied()
    }

    /// Who moves the bytes between FIFOs and queues from now on; `None` while no VMM is connected.
    pub fn set_worker(&self, worker: Option<Arc<Mailbox>>) {
        let connected = worker.is_some();
        self.tracer.record(|| What::Vmm { connected });
        if connected {
            self.connections.fetch_add(1, Ordering::Relaxed);
        } else {
            self.faults.driver_gone();
        }
        *self.worker.lock().unwrap_or_else(PoisonError::into_inner) = worker;
    }

    /// Whether a VMM is connected.
    pub fn is_connected(&self) -> bool {
        self.worker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// Has the queue worker, if there is one, look at FIFO `index` soon: something happened to it
    /// that the driver may have to know. Not to be called with the FIFO locked.
    pub fn serve_fifo(&self, index: u16) {
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(worker) = &*worker {
            worker.serve_fifo(index);
        }
    }

    /// Where its events are recorded.
    pub fn tracer(&self) -> &Arc<Tracer> {
        &self.tracer
    }

    /// What goes wrong on demand.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Has the queue worker do what the faults have put off until now. Without a worker, only the
    /// host side is left to go on.
    pub fn resume(&self, due: Due) {
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*worker, due) {
            (Some(worker), Due::Interrupt(place)) => worker.interrupt(place),
            (Some(worker), Due::Serve(place)) => worker.serve(place),
            (None, Due::Interrupt(_)) => {}
            (None, Due::Serve(place)) => {
                if let Some(fifo) = place.fifo {
                    self.meet_outside(fifo);
                }
            }
        }
    }

    /// Has the faults decide what becomes of the host side of FIFO `index`.
    pub fn meet_outside(&self, index: u16) {
        let Some(tap) = self.faults.tap(Place::rx(index)) else {
            return;
        };
        let host = tap.host();
        if let Some(mut fifo) = self.fifo(index) {
            fifo.hold_up(host.slow);
            fifo.cut_off(host.hung_up);
            if host.failed {
                fifo.break_down();
            }
        }
    }

    /// How many VMMs have connected so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// The driver was interrupted for the virtqueue `queue`.
    pub fn count_interrupt(&self, queue: u16) {
        if let Some(count) = self.interrupts.get(usize::from(queue)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often the driver was interrupted for the virtqueue `queue`.
    pub fn interrupts(&self, queue: u16) -> u64 {
        self.interrupts
            .get(usize::from(queue))
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// DEV-6: the driver is gone, with its VMM or by a reset.
    pub fn reset(&self) {
        for fifo in (0..self.num_fifos).filter_map(|index| self.fifo(index)) {
            let mut fifo = fifo;
            fifo.reset();
        }
    }

    /// Bytes of the driver that something outside is about to take, of all FIFOs.
    pub fn leaving(&self) -> usize {
        let fifos = (0..self.num_fifos).filter_map(|index| self.fifo(index));
        fifos.map(|fifo| fifo.leaving()).sum()
    }

    /// The FIFOs that hold bytes of the driver for an outside that has not taken them, each with how many.
    pub fn undelivered(&self) -> Vec<(u16, usize)> {
        (0..self.num_fifos)
            .filter_map(|index| Some((index, self.fifo(index)?.undelivered())))
            .filter(|(_, bytes)| *bytes > 0)
            .collect()
    }

    /// Counts something refused on a queue that belongs to no FIFO.
    pub fn refuse(&self, queue: &'static str, reason: Refusal) {
        self.refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(queue, reason);
    }

    /// How often something was refused for `reason` on the control and event queues.
    pub fn refused(&self, reason: Refusal) -> u64 {
        self.refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .count(reason)
    }
}

fn make(index: u16, spec: &FifoSpec, reset: ResetPolicy) -> Fifo {
    let endpoint = match &spec.kind {
        Kind::Loopback => return Fifo::loopback(index, spec.capacity, reset),
        Kind::Unix { .. }
        | Kind::Tcp { .. }
        | Kind::Stdio
        | Kind::Pty { .. }
        | Kind::File { .. } => {
            return Fifo::with_outside(index, spec.capacity, reset);
        }
        Kind::Zero => Endpoint::Zero,
        Kind::Null => Endpoint::Null,
        Kind::Pattern { seed } => Endpoint::Pattern(Pattern::new(*seed)),
    };
    Fifo::with_endpoint(index, spec.capacity, reset, endpoint)
}
