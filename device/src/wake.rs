// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Wake-up of a thread by the core: the event loop from a FIFO, the queue worker from its mailbox.
//!
//! The core knows the trait alone. [`crate::bell::Bell`] wakes by an eventfd. This file must not know descriptors.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

/// Wakes one thread.
pub trait Wake: fmt::Debug + Send + Sync {
    /// Wakes the thread. Calls before it has run again are one wake-up. Never waits; locks may be held.
    fn wake(&self);
}

/// A wake-up of no thread: it is remembered until somebody asks. For tests and fuzz targets, which run the core in one thread.
#[derive(Debug, Default)]
pub struct Remembered(AtomicBool);

impl Remembered {
    /// Whether there was a call since the last time.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Remembered {
    fn wake(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
