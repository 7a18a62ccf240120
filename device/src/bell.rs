// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An eventfd by which others wake a thread. It must not know what the thread does then.

use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;
use std::sync::Arc;

use tracing::warn;
use vmm_sys_util::event::EventConsumer;
use vmm_sys_util::event::EventFlag;
use vmm_sys_util::event::EventNotifier;
use vmm_sys_util::event::new_event_consumer_and_notifier;

use crate::wake::Wake;

/// The thread's end.
#[derive(Debug)]
pub struct Bell {
    rung: EventConsumer,
    ringer: Arc<Ringer>,
}

/// The others' end.
#[derive(Debug)]
struct Ringer {
    notifier: EventNotifier,
    /// The thread, as the log names it.
    thread: &'static str,
}

impl Wake for Ringer {
    fn wake(&self) {
        if let Err(error) = self.notifier.notify() {
            warn!(%error, "cannot wake the {}", self.thread);
        }
    }
}

impl Bell {
    /// A bell of `thread`, as the log is to name it.
    ///
    /// # Errors
    ///
    /// When no eventfd can be made.
    pub fn new(thread: &'static str) -> io::Result<Self> {
        let flags = EventFlag::NONBLOCK | EventFlag::CLOEXEC;
        let (rung, notifier) = new_event_consumer_and_notifier(flags)?;
        Ok(Self {
            rung,
            ringer: Arc::new(Ringer { notifier, thread }),
        })
    }

    /// For those who ring it.
    pub fn ringer(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.ringer) as Arc<dyn Wake>
    }

    /// What the thread polls.
    pub fn fd(&self) -> RawFd {
        self.rung.as_raw_fd()
    }

    /// Calls for another turn after the other descriptors had theirs.
    pub fn ring(&self) {
        self.ringer.wake();
    }

    /// It was heard. An error can only mean that it was heard before.
    pub fn heard(&self) {
        let _ = self.rung.consume();
    }
}
