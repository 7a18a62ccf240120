// SPDX-License-Identifier: GPL-2.0-only

//! One FIFO of a device.
//!
//! # Rooms
//!
//! | file | owns | must not know |
//! |---|---|---|
//! | [`core`] | the lock, and what follows from a change | what a change is |
//! | [`state`], [`turn`] | who may read and write, which events hold | how tasks are woken |
//! | [`rx`], [`tx`], [`pump`] | positions, credit, messages | locks, user memory |
//! | [`file`] | buffers, and their page faults | when a request is served |
//! | [`request`], [`requests`], [`line`], [`endings`] | deferred requests | where bytes come from |
//! | [`notify`] | wake-ups and SIGIO | why an event came about |
//! | [`read`], [`write`](mod@write), [`control`] | calls | the wire format |
//! | [`serve`] | deferred requests in process context | the wire format |
//! | [`life`] | attach, close, suspend, resume | calls |
//! | [`hooks`] | what stands above the core may be asked | what it is |
//!
//! # Contexts and locks
//!
//! [`Fifo::state`] is taken in hard interrupts, in process context, and in AIO's cancel (inside
//! `ctx_lock`): always with interrupts off. Nothing sleeps, wakes, signals or completes under it,
//! and no user memory is touched; what has to happen is collected as [`state::Effects`] and done
//! after it, by [`Fifo::change`]. No hold walks over more than
//! [`REQUESTS`](crate::driver::tunables::REQUESTS) requests or
//! [`BUDGET`](crate::driver::tunables::BUDGET) messages; the work queue goes on with the rest.
//!
//! User memory is copied to and from without the lock. A reader has the *turn* ([`state::Turn`])
//! meanwhile; it takes no page faults during it, and is not preempted (without PREEMPT_RT), so a
//! turn is short whoever has it. Page faults are taken outside: by the reader before it tries
//! again, or for a request by a work of its file's ([`file`]). So nobody waits for a
//! page of somebody else's.

use super::{
    stats::Stats,
    watchdog::Watchdog,
    work::Queues, //
};
use crate::{
    driver::control::Control,
    kapi::{
        lock::SpinLockIrq,
        wait::WaitQueue, //
    },
    trace::Tracer, //
};
use kernel::{
    device::Device,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    },
    workqueue::{
        impl_has_work,
        Work, //
    },
};

mod control;
mod core;
mod endings;
pub(crate) mod file;
pub(crate) mod hooks;
pub(crate) mod life;
mod line;
mod notify;
mod pump;
pub(crate) mod read;
pub(crate) mod request;
pub(crate) mod requests;
pub(crate) mod rx;
mod serve;
pub(crate) mod state;
#[cfg(GLOBALFIFO_FAST)]
mod timers;
pub(crate) mod turn;
pub(crate) mod tx;
mod write;

pub(crate) use self::core::Origin;

use hooks::Hooks;
use notify::Notifier;
use state::State;

/// Work of a FIFO: the server of requests, and the continuation of what an interrupt left.
pub(crate) const SERVE: u64 = 0;
pub(crate) const CONTINUE: u64 = 1;

/// One FIFO. An open file keeps it alive, so it outlives its device: then it answers `ENODEV`.
#[pin_data]
pub(crate) struct Fifo {
    /// Number of the FIFO in its device.
    index: u16,
    /// Bytes that each direction holds.
    pub(crate) capacity: u32,
    /// For log messages.
    device: ARef<Device>,
    control: Arc<Control>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) trace: Tracer,
    /// See the module. No other lock of the driver's is taken under it.
    #[pin]
    pub(crate) state: SpinLockIrq<State>,
    #[pin]
    pub(crate) notifier: Notifier,
    /// Those who wait for messages to be used: fsync, direct writes, removal.
    #[pin]
    drained: WaitQueue,
    #[pin]
    server: Work<Fifo, SERVE>,
    #[pin]
    continuation: Work<Fifo, CONTINUE>,
    pub(crate) queues: Queues,
    /// Pieces above the core.
    pub(crate) hooks: &'static Hooks,
    #[cfg(GLOBALFIFO_FAST)]
    #[pin]
    timers: timers::Timers,
    pub(crate) watchdog: Arc<Watchdog>,
}

impl_has_work! {
    impl HasWork<Self, SERVE> for Fifo { self.server }
    impl HasWork<Self, CONTINUE> for Fifo { self.continuation }
}
