// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for work queues: all are the one of [`crate::world`].

use crate::prelude::*;
use crate::workqueue::Queue;
use crate::world;

/// As in `kapi`.
#[derive(Clone, Copy)]
pub(crate) enum Priority {
    High,
    Normal,
}

/// As in `kapi`. A test that wants the work frozen does not run it.
#[derive(Clone, Copy)]
pub(crate) enum Freezer {
    Stops,
    Ignores,
}

/// As in `kapi`.
pub(crate) struct WorkQueue(Queue);

impl WorkQueue {
    pub(crate) fn new(_: &'static CStr, _: Priority, _: Freezer) -> Result<Self> {
        Ok(Self(Queue))
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.0
    }

    pub(crate) fn drain(&self) {
        world::run_work();
    }
}

/// As in `kapi`.
pub(crate) struct InUse(());

impl InUse {
    pub(crate) fn new() -> Self {
        Self(())
    }
}
