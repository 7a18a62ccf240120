// SPDX-License-Identifier: GPL-2.0-only

//! Notification of events: wake-ups of tasks and polls, and SIGIO.
//!
//! Must not know why an event came about: [`State::readiness`](super::state::State::readiness) and
//! its differences say that. Called without any lock of a FIFO's, in any context.

use crate::{
    driver::{
        stats::Stats,
        tunables::SIGNALS, //
    },
    kapi::{
        fasync::{
            Band,
            FasyncList, //
        },
        file_operations::Mode,
        wait::{
            new_poll_queue,
            Events,
            PollQueue, //
        },
    },
    trace::Tracer, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Those who wait for a FIFO: tasks, polls, and files with `O_ASYNC`.
#[pin_data]
pub(crate) struct Notifier {
    /// Blocked readers and writers, and polls (poll, epoll, AIO poll) of files for both.
    #[pin]
    pub(crate) wait: PollQueue,
    /// Polls of files for reading or for writing only. `EPOLLEXCLUSIVE` wakes one of a queue: it
    /// must not be one whose file cannot make use of the event.
    #[pin]
    read_only_polls: PollQueue,
    #[pin]
    write_only_polls: PollQueue,
    /// Files with `O_ASYNC`, each on the one list of its mode: so it gets one signal for one event.
    read_only: Arc<FasyncList>,
    write_only: Arc<FasyncList>,
    read_write: Arc<FasyncList>,
}

impl Notifier {
    /// Nobody waits.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            wait <- new_poll_queue!("Notifier::wait"),
            read_only_polls <- new_poll_queue!("Notifier::read_only_polls"),
            write_only_polls <- new_poll_queue!("Notifier::write_only_polls"),
            read_only: FasyncList::new()?,
            write_only: FasyncList::new()?,
            read_write: FasyncList::new()?,
        })
    }

    /// The list for a file of this mode.
    pub(crate) fn list_for(&self, mode: Mode) -> Arc<FasyncList> {
        match (mode.can_read(), mode.can_write()) {
            (true, true) => &self.read_write,
            (false, true) => &self.write_only,
            (_, false) => &self.read_only,
        }
        .clone()
    }

    /// The queue for polls of a file of this mode.
    pub(crate) fn polls_for(&self, mode: Mode) -> &PollQueue {
        match (mode.can_read(), mode.can_write()) {
            (true, true) => &self.wait,
            (false, true) => &self.write_only_polls,
            (_, false) => &self.read_only_polls,
        }
    }

    /// Whether there are more files with `O_ASYNC` than an interrupt is to signal to.
    pub(crate) fn has_many_files(&self) -> bool {
        let lists = [&self.read_only, &self.write_only, &self.read_write];
        lists.iter().map(|list| list.len()).sum::<u32>() > SIGNALS
    }

    /// Wakes those who wait for `events`, and signals to the owners of files that can make use of
    /// them.
    pub(crate) fn notify(&self, mut events: Events, stats: &Stats, trace: &Tracer) {
        if events == Events::NONE {
            return;
        }
        if events.contains(Events::READ_HUP) {
            // The end can be read.
            events |= Events::IN;
        }
        trace.wake(events.bits());
        let polls = [
            (&self.wait, events),
            (&self.read_only_polls, events.without(Events::OUT)),
            (
                &self.write_only_polls,
                events.without(Events::IN | Events::READ_HUP),
            ),
        ];
        for (queue, events) in polls {
            if events != Events::NONE {
                stats.wakeups.add(queue.wake(events).into());
            }
        }
        let (to_readers, to_writers) = bands(events);
        let lists = [
            (&self.read_only, to_readers, None),
            (&self.write_only, to_writers, None),
            // The bands differ where data and space came together.
            (
                &self.read_write,
                to_readers,
                to_writers.filter(|band| to_readers != Some(*band)),
            ),
        ];
        for (list, first, second) in lists {
            if list.is_empty() {
                continue;
            }
            for band in [first, second].into_iter().flatten() {
                stats.signals.add(1);
                trace.signal(band as u32, list.len());
                list.signal(band);
            }
        }
    }
}

/// Band of the signal to readers, and to writers. The end outranks a failure, and both outrank
/// data.
fn bands(events: Events) -> (Option<Band>, Option<Band>) {
    let end_of_all = if events.contains(Events::ALL_HUP) {
        Some(Band::Hup)
    } else if events.contains(Events::ERR) {
        Some(Band::Err)
    } else {
        None
    };
    let end_of_data = events.contains(Events::READ_HUP).then_some(Band::Hup);
    let data = events.contains(Events::IN).then_some(Band::In);
    let space = events.contains(Events::OUT).then_some(Band::Out);
    (end_of_all.or(end_of_data).or(data), end_of_all.or(space))
}
