// SPDX-License-Identifier: GPL-2.0-only

//! The module's work queues. Unloading waits until all work is done.

use crate::kapi::workqueue::{
    Freezer,
    Priority,
    WorkQueue, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// The work queues, by what their work may take.
#[derive(Clone)]
pub(crate) struct Queues {
    /// The servers of requests. Their work is bounded, and waits for nobody. It rests while user
    /// space does ([`super::fifo::life`]).
    pub(crate) requests: Arc<WorkQueue>,
    /// What interrupts left. A device can make it endless, so it has the priority of ordinary
    /// tasks.
    pub(crate) rest: Arc<WorkQueue>,
    /// Page faults, each of which may take for ever: the freezer would give up.
    pub(crate) faults: Arc<WorkQueue>,
}

impl Queues {
    /// Makes them.
    pub(crate) fn new() -> Result<Self> {
        let queue = |name, priority, freezer| -> Result<Arc<WorkQueue>> {
            Ok(Arc::new(
                WorkQueue::new(name, priority, freezer)?,
                GFP_KERNEL,
            )?)
        };
        Ok(Self {
            requests: queue(c"globalfifo", Priority::High, Freezer::Stops)?,
            rest: queue(c"globalfifo-rest", Priority::Normal, Freezer::Ignores)?,
            faults: queue(c"globalfifo-faults", Priority::Normal, Freezer::Ignores)?,
        })
    }

    /// Waits until no work is left. Work holds FIFOs, and these the queues: so it is not a queue's
    /// own work that drops the queue.
    pub(crate) fn drain(&self) {
        // Page faults hand requests back, which the others serve.
        self.faults.drain();
        self.rest.drain();
        self.requests.drain();
    }
}
