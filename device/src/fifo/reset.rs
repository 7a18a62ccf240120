// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a device reset means for a FIFO.

use super::Fifo;
use crate::trace::What;

/// What a device reset does with bytes that the driver has not consumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ResetPolicy {
    /// They stay and are delivered again.
    #[default]
    Keep,
    /// They are discarded.
    Clear,
}

impl Fifo {
    /// DEV-6, DEV-21: the device was reset. The counters run on.
    pub fn reset(&mut self) {
        self.tracer.record(|| What::Reset { fifo: self.index });
        match self.reset {
            ResetPolicy::Keep => self.rx.rewind(),
            ResetPolicy::Clear => {
                self.clear();
            }
        }
        // Whatever the old driver was not told, the new one asks for (DRV-4).
        self.changed = false;
        self.renew();
    }

    /// DEV-33: the device was reset or paused before its driver got anything. A new driver finds no error of the old one; the old
    /// one finds all bytes, and hears of each change.
    pub fn renew(&mut self) {
        self.failed = false;
        self.ring_bell();
    }
}
