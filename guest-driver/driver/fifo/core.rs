// SPDX-License-Identifier: GPL-2.0-only

//! The lock of a FIFO, and what follows from a change under it.
//!
//! [`Fifo::change`] is the way of every change: it takes the lock, compares the readiness before
//! and after, and sees to the [`Effects`] once the lock is released. Must not know what a change
//! is.

use super::{
    request::Done,
    state::{
        Effects,
        State, //
    },
    Fifo, //
};
use crate::driver::tunables::REQUESTS;
use crate::kapi::wait::Events;
use kernel::{
    dev_err,
    sync::{
        Arc,
        ArcBorrow, //
    },
};

/// Context of a change. Requests are completed in an interrupt or by the work queue, never by a
/// task: one that is not scheduled would hold up the others'.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A hard interrupt of the device, or the work that goes on in its place.
    Interrupt,
    /// A timer.
    #[cfg(GLOBALFIFO_FAST)]
    Timer,
    /// The server of requests.
    Server,
    /// A task, or anybody else who may not be scheduled for long.
    Task,
}

impl Origin {
    /// Whether work without a bound has to go to the work queue.
    fn has_interrupts_off(self) -> bool {
        match self {
            Self::Interrupt => true,
            #[cfg(GLOBALFIFO_FAST)]
            Self::Timer => true,
            Self::Server | Self::Task => false,
        }
    }
}

/// Events that a change of readiness announces. A failure after a hang-up repeats the hang-up,
/// whose band SIGIO has for the end.
fn rising(before: Events, after: Events) -> Events {
    let rising = after.since(before);
    match rising.contains(Events::ERR) {
        true => rising | after.and(Events::HUP),
        false => rising,
    }
}

impl Fifo {
    /// Changes the state under the lock, and sees to what follows: completions, work, wake-ups,
    /// signals.
    ///
    /// Any context. The caller holds no lock of a FIFO, and none of AIO.
    pub(crate) fn change<R>(
        self: ArcBorrow<'_, Self>,
        origin: Origin,
        change: impl FnOnce(&mut State, &mut Effects) -> R,
    ) -> R {
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        let before = state.readiness();
        let result = change(&mut state, &mut effects);
        state.sweep(&mut effects);
        let events = rising(before, state.readiness()) | effects.edges;
        let complete = origin != Origin::Task && state.requests.begin_completing();
        let serve = state.have_work() || !complete && state.requests.have_done();
        let in_place = origin != Origin::Task && (self.hooks.begin_in_place)(&mut state);
        // Under the lock, so that none starts after the queues are taken out.
        #[cfg(GLOBALFIFO_FAST)]
        self.timers.start(self, &effects);
        drop(state);

        if complete {
            self.complete(origin);
        }
        if in_place {
            (self.hooks.serve_in_place)(self);
        } else if serve {
            self.start_server();
        }
        if effects.more {
            self.stats.deferrals.add(1);
            self.start_continuation();
        }
        if effects.drained {
            self.drained.wake(Events::OUT);
        }
        if let Some(what) = effects.failure {
            dev_err!(
                self.device,
                "FIFO {} fails with EIO until the device is bound anew: the device sent {what}\n",
                self.index
            );
        }
        self.announce(origin, events);
        result
    }

    /// Wakes and signals; where that could take long with interrupts off, the server does.
    fn announce(self: ArcBorrow<'_, Self>, origin: Origin, events: Events) {
        if origin.has_interrupts_off() && events != Events::NONE && self.notifier.has_many_files() {
            self.state.lock().owed |= events;
            self.start_server();
        } else {
            self.notifier.notify(events, &self.stats, &self.trace);
        }
    }

    /// Completes requests until there are none, or [`REQUESTS`] are done: the server goes on with
    /// the rest. One caller at a time ([`Requests::begin_completing`](super::requests::Requests)),
    /// so that they complete in order.
    pub(crate) fn complete(self: ArcBorrow<'_, Self>, origin: Origin) {
        let mut left = REQUESTS;
        while left > 0 {
            let Some(done) = self.state.lock().requests.take_done(left) else {
                return;
            };
            // Counted first, so that a program that sees a completion sees it counted.
            self.count_done(origin, &done);
            left -= done.len();
            let is_short = done.is_short;
            done.complete(&self.trace);
            if is_short && self.state.lock().has_data_for_calls() {
                self.announce(origin, Events::IN);
            }
        }
        self.state.lock().requests.end_completing();
        self.start_server();
    }

    fn count_done(&self, origin: Origin, done: &Done) {
        let stats = &self.stats;
        let served = match origin {
            #[cfg(GLOBALFIFO_FAST)]
            Origin::Timer => &stats.aio_in_passing,
            Origin::Interrupt | Origin::Server | Origin::Task => &stats.aio_by_interrupt,
        };
        served.add(done.served as u64);
        stats.aio_ended.add(done.ended as u64);
    }

    /// Queues the server of requests. Any context.
    pub(crate) fn start_server(self: ArcBorrow<'_, Self>) {
        // An error means that it is queued already; it will see this change as well.
        let queue = self.queues.requests.queue();
        let _ = queue.enqueue::<_, { super::SERVE }>(Arc::from(self));
    }

    /// Queues the continuation of what was left. Any context.
    fn start_continuation(self: ArcBorrow<'_, Self>) {
        // As above.
        let queue = self.queues.rest.queue();
        let _ = queue.enqueue::<_, { super::CONTINUE }>(Arc::from(self));
    }
}
