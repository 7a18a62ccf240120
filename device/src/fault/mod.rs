// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Faults on demand: decided here, carried out where they take effect.
//!
//! Each time that something could go wrong, whoever does it asks [`Faults`] what becomes of it: an
//! *opportunity*. The answer says so in the words of the specification (an interrupt is withheld, a
//! used length is another one), and the caller carries it out. So [`Faults`], `plan` and
//! [`Tap`] must not know queues, guest memory or sockets, and those who ask must not know why. What takes more than a
//! line is carried out by decorators, which do know them: `queue` of used rings, [`message`] of messages.
//!
//! Without a fault there is nobody to ask: [`Faults::tap`] is one relaxed load. Without the feature `faults` there never
//! is anybody: it is a constant, and the compiler leaves the decorators out.

mod dice;
mod liar;
pub mod message;
mod plan;
mod queue;

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use fifo_spec::fault::kind;
use fifo_spec::fault::spec;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::ClockId;
use nix::sys::timerfd::Expiration;
use nix::sys::timerfd::TimerFd;
use nix::sys::timerfd::TimerFlags;
use nix::sys::timerfd::TimerSetTimeFlags;
use tracing::info;
use tracing::warn;

pub use self::kind::Kind;
pub use self::kind::Lane;
pub use self::kind::Place;
pub use self::message::FaultyMessages;
pub use self::plan::Due;
pub use self::plan::FaultId;
pub use self::plan::Host;
pub use self::plan::Message;
pub use self::plan::Report;
pub use self::plan::Used;
pub use self::queue::FaultyRing;
pub use self::spec::FaultError;
pub use self::spec::FaultSpec;

use self::plan::Plan;
use crate::trace::Tracer;
use crate::trace::What;

/// Whether this build has fault injection: the feature `faults`.
pub const BUILT_IN: bool = cfg!(feature = "faults");

/// Why a fault was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultRefused {
    /// A FIFO was named that the device does not have.
    #[error("there is no FIFO {fifo}: the device has {count}, numbered from 0")]
    NoSuchFifo {
        /// The one that was named.
        fifo: u16,
        /// How many there are.
        count: u16,
    },
    /// Packages leave fault injection out.
    #[error(
        "the device was built without fault injection: build it from source, with the feature `faults`"
    )]
    NotBuilt,
}

/// The faults of a device.
pub struct Faults {
    /// Whether anything has to be asked.
    active: AtomicBool,
    plan: Mutex<Plan>,
    timer: TimerFd,
    num_fifos: u16,
    tracer: Arc<Tracer>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

impl Faults {
    /// No faults, for a device with `num_fifos` FIFOs; strikes are recorded in `tracer`.
    ///
    /// # Errors
    ///
    /// When the kernel has no timer to give.
    pub fn new(num_fifos: u16, tracer: Arc<Tracer>) -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Self {
            active: AtomicBool::new(false),
            plan: Mutex::new(Plan::new(num_fifos)),
            timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?,
            num_fifos,
            tracer,
        })
    }

    /// Adds a fault. Its times count from now, or from when a driver first uses the device.
    ///
    /// # Errors
    ///
    /// [`FaultRefused`]
    pub fn add(&self, spec: &FaultSpec) -> Result<FaultId, FaultRefused> {
        if !BUILT_IN {
            return Err(FaultRefused::NotBuilt);
        }
        let count = self.num_fifos;
        if let Some(fifo) = spec.fifo.filter(|fifo| *fifo >= count) {
            return Err(FaultRefused::NoSuchFifo { fifo, count });
        }
        let id = self.with(|plan, now| plan.add(spec, now));
        info!(id = id.0, fault = %spec, "fault added");
        Ok(id)
    }

    /// Every fault, in the order in which they were added.
    pub fn list(&self) -> Vec<Report> {
        self.lock().list(Instant::now())
    }

    /// Takes one fault away, and what it holds up goes on; false if there is no such fault.
    pub fn remove(&self, id: FaultId) -> bool {
        let removed = self.with(|plan, now| plan.remove(id, now));
        if removed {
            info!(id = id.0, "fault removed");
        }
        removed
    }

    /// Takes all faults away, and what they hold up goes on; returns how many there were.
    pub fn clear(&self) -> usize {
        let count = self.with(Plan::clear);
        info!(count, "faults cleared");
        count
    }

    /// Whether there is anything to ask below.
    pub fn active(&self) -> bool {
        BUILT_IN && self.active.load(Ordering::Relaxed)
    }

    /// What to ask about `place`; `None` while no fault is set.
    pub fn tap(&self, place: Place) -> Option<Tap<'_>> {
        self.active().then_some(Tap {
            faults: self,
            place,
        })
    }

    /// A driver uses the device for the first time since it was connected.
    pub fn driver_started(&self) {
        self.with(Plan::driver_started);
    }

    /// The driver is gone with its VMM.
    pub fn driver_gone(&self) {
        self.with(|plan, _| plan.driver_gone());
    }

    /// What readable means that there is something [`Faults::due`].
    pub fn timer(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// What has become due, when the timer has expired.
    pub fn due(&self) -> Vec<Due> {
        let mut plan = self.lock();
        let now = Instant::now();
        let due = plan.due(now);
        // In any case, for it stays readable until it is set.
        self.set_timer(plan.next_due(), now);
        due
    }

    /// Changes or asks the plan, and sets the timer to what the plan waits for next.
    fn with<T>(&self, ask: impl FnOnce(&mut Plan, Instant) -> T) -> T {
        let mut plan = self.lock();
        let now = Instant::now();
        let before = plan.next_due();
        let begun = self.tracer.begin();
        let strikes = begun.map(|_| plan.strikes());
        let answer = ask(&mut plan, now);
        if let Some(strikes) = strikes {
            for struck in plan.strikes().difference(&strikes) {
                self.tracer.record_at(begun, || What::Fault {
                    fault: struck.0.0,
                    kind: struck.1,
                    strikes: struck.2,
                });
            }
        }
        let next = plan.next_due();
        if next != before {
            self.set_timer(next, now);
        }
        self.active.store(plan.active(), Ordering::Relaxed);
        answer
    }

    fn set_timer(&self, next: Option<Instant>, now: Instant) {
        let set = match next {
            None => self.timer.unset(),
            Some(at) => {
                // A time of zero would switch it off.
                let wait = at
                    .saturating_duration_since(now)
                    .max(Duration::from_nanos(1));
                self.timer.set(
                    Expiration::OneShot(TimeSpec::from_duration(wait)),
                    TimerSetTimeFlags::empty(),
                )
            }
        };
        if let Err(error) = set {
            warn!(%error, "cannot set the timer: faults may last longer");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks about one place, for which a fault may be set.
#[derive(Clone, Copy, Debug)]
pub struct Tap<'a> {
    faults: &'a Faults,
    place: Place,
}

impl Tap<'_> {
    /// It was stopped: nothing is held up there any more.
    pub fn stopped(self) {
        self.faults.with(|plan, _| plan.stopped(self.place));
    }

    /// Opportunity: it is about to be served. Returns whether it may be.
    pub fn may_serve(self) -> bool {
        self.faults
            .with(|plan, now| plan.may_serve(self.place, now))
    }

    /// Opportunity: the driver is about to be interrupted. Returns whether it is, at once.
    pub fn interrupts_now(self) -> bool {
        self.faults
            .with(|plan, now| plan.interrupts_now(self.place, now))
    }

    /// Opportunity: the buffer `id`, of which `len` bytes were written, is given back. All ids are
    /// below `ids`.
    pub fn used(self, id: u16, len: u32, ids: u16) -> Used {
        self.faults
            .with(|plan, now| plan.used(self.place, Used::new(id, len), ids.into(), now))
    }

    /// Opportunity: the driver is told which buffers to announce. Gives what it is told instead.
    pub fn suppression(self) -> Option<u16> {
        self.faults
            .with(|plan, now| plan.suppression(self.place, now))
    }

    /// Opportunity: an rx message can be sent, and `unsent` bytes.
    pub fn message(self, unsent: usize) -> Message {
        self.faults
            .with(|plan, now| plan.message(self.place, unsent, now))
    }

    /// Opportunity: the driver is about to be told a `tx_limit` of FIFO `fifo`. Returns the one
    /// that it is told.
    pub fn tx_limit(self, fifo: u16, truth: u64) -> u64 {
        self.faults
            .with(|plan, now| plan.tx_limit(Place::tx(fifo), truth, now))
    }

    /// Opportunity: `bytes` of a message are about to be written; they may be changed.
    pub fn content(self, bytes: &mut [u8]) {
        self.faults
            .with(|plan, now| plan.content(self.place, bytes, now));
    }

    /// Opportunity: the driver may have to be told something. Changes `event` to one that nobody
    /// asked for and returns true, or leaves it alone.
    pub fn garbage_event(self, event: &mut [u8]) -> bool {
        self.faults
            .with(|plan, now| plan.garbage_event(self.place, event, now))
    }

    /// Opportunity: the FIFO meets the outside.
    pub fn host(self) -> Host {
        self.faults.with(|plan, now| plan.host(self.place, now))
    }

    /// Opportunity: configuration space is read; it may be changed.
    pub fn config(self, bytes: &mut [u8]) {
        self.faults
            .with(|plan, now| plan.config(self.place, bytes, now));
    }
}
