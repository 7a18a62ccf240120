// SPDX-License-Identifier: GPL-2.0-only

//! How long a reader polls for data before it sleeps: learnt from the waits before.
//!
//! Plain state. A wait that was short makes the next reader poll for the longest time; each failure
//! halves that. A wait that may have been long for the interrupt alone has polling tried again,
//! with exponential back-off.

use crate::driver::fast_tunables::{
    BUSY_POLL_FAILURES,
    BUSY_POLL_MICROSECONDS,
    BUSY_POLL_PERHAPS, //
};

/// See the module.
pub(crate) struct Patience {
    /// Time to poll, in microseconds.
    microseconds: i64,
    /// Consecutive polls of the longest time without data.
    failures: u32,
    /// Remaining short waits to skip before polling is tried again.
    until_try: u32,
}

impl Patience {
    /// Does not poll.
    pub(crate) const NONE: Self = Self {
        microseconds: 0,
        failures: 0,
        until_try: 0,
    };

    /// Time to poll, in microseconds.
    pub(crate) fn microseconds(&self) -> i64 {
        self.microseconds
    }

    /// A reader has waited for so many microseconds.
    pub(crate) fn learn(&mut self, waited: i64) {
        if waited <= BUSY_POLL_MICROSECONDS {
            *self = Self {
                microseconds: BUSY_POLL_MICROSECONDS,
                ..Self::NONE
            };
            return;
        }
        if self.microseconds == BUSY_POLL_MICROSECONDS {
            self.failures = BUSY_POLL_FAILURES.min(self.failures + 1);
            self.until_try = 1 << self.failures;
        }
        self.microseconds /= 2;
        if waited <= BUSY_POLL_PERHAPS {
            match self.until_try.checked_sub(1) {
                Some(left) => self.until_try = left,
                None => self.microseconds = BUSY_POLL_MICROSECONDS,
            }
        }
    }
}
