// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a FIFO calls its subscriber on the event loop, and how that calls itself again.

use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;
use std::sync::Arc;

use tracing::warn;
use vmm_sys_util::event::EventConsumer;
use vmm_sys_util::event::EventFlag;
use vmm_sys_util::event::EventNotifier;
use vmm_sys_util::event::new_event_consumer_and_notifier;

/// An eventfd of the loop.
#[derive(Debug)]
pub struct Bell {
    rung: EventConsumer,
    notifier: Arc<EventNotifier>,
}

impl Bell {
    pub fn new() -> io::Result<Self> {
        let flags = EventFlag::NONBLOCK | EventFlag::CLOEXEC;
        let (rung, notifier) = new_event_consumer_and_notifier(flags)?;
        Ok(Self {
            rung,
            notifier: Arc::new(notifier),
        })
    }

    /// For whoever rings it from another thread.
    pub fn notifier(&self) -> Arc<EventNotifier> {
        Arc::clone(&self.notifier)
    }

    /// What the loop watches.
    pub fn fd(&self) -> RawFd {
        self.rung.as_raw_fd()
    }

    /// Calls for another turn after the other descriptors had theirs.
    pub fn ring(&self) {
        if let Err(error) = self.notifier.notify() {
            warn!(%error, "cannot wake the event loop");
        }
    }

    /// It was heard. An error can only mean that it was heard before.
    pub fn heard(&self) {
        let _ = self.rung.consume();
    }
}
