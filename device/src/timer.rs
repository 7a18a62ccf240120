// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the faults have put off, when its time has come: from the event loop to the queue worker.
//!
//! This file must not know what a fault is.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use event_manager::EventOps;
use event_manager::EventSet;
use event_manager::Events;
use event_manager::MutEventSubscriber;
use tracing::error;

use crate::device::Device;

/// Waits for the timer of a device's faults.
#[derive(Debug)]
pub struct FaultTimer(Arc<Device>);

impl FaultTimer {
    /// For the event loop.
    pub fn new(device: Arc<Device>) -> Self {
        Self(device)
    }
}

impl MutEventSubscriber for FaultTimer {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let timer = self.0.faults().timer().as_raw_fd();
        if let Err(error) = ops.add(Events::new_raw(timer, EventSet::IN)) {
            error!(%error, "cannot wait for the timer: faults may last longer");
        }
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        for due in self.0.faults().due() {
            self.0.resume(due);
        }
    }
}
