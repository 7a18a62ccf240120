// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for the table of a poll: a test looks for wake-ups in the queue itself.

use super::wait::{Events, WaitQueue};
use crate::fs::File;
use std::marker::PhantomData;

/// As in `kapi`.
pub(crate) struct PollTable<'a> {
    asked: Events,
    _lifetime: PhantomData<&'a ()>,
}

impl PollTable<'_> {
    pub(crate) fn for_events(asked: Events) -> Self {
        Self {
            asked,
            _lifetime: PhantomData,
        }
    }

    pub(crate) fn register(&self, _file: &File, _queue: &WaitQueue) {}

    pub(crate) fn asks_for(&self, events: Events) -> bool {
        self.asked.and(events) != Events::NONE
    }
}
