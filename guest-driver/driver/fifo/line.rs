// SPDX-License-Identifier: GPL-2.0-only

//! A line of requests that is held for a page fault of its first one, or of a call that came before
//! them.
//!
//! A buffer that is not there is mostly there soon: until then those behind wait, so that requests
//! are served in the order of submission. A page that never comes must not hold up others for ever:
//! each line is held for [`HOLD_MICROSECONDS`] in [`PERIOD_MICROSECONDS`] at most, however many
//! requests fault. Then those behind are served, and the first one when its page has come.
//!
//! Plain state. A hold ends by [`Line::release`] or [`Line::expire`], never by the mere passing of
//! time: so its end is a change, whose edges are announced.

use crate::{
    driver::tunables::{
        HOLD_MICROSECONDS,
        PERIOD_MICROSECONDS, //
    },
    kapi::kiocb::Id,
};
use kernel::time::{
    Instant,
    Monotonic, //
};

/// See the module.
pub(super) struct Line {
    /// Request that the line is held for, and since when.
    held: Option<(Id, Instant<Monotonic>)>,
    /// Begin of the period, and the time that the line was held in it, in microseconds.
    period: Option<Instant<Monotonic>>,
    spent: i64,
}

impl Line {
    /// A line that is not held.
    pub(super) fn new() -> Self {
        Self {
            held: None,
            period: None,
            spent: 0,
        }
    }

    /// Whether those behind wait.
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Holds the line for request `id`, which was first and leaves it, unless the time for that is
    /// used up.
    pub(super) fn hold(&mut self, id: Id) {
        let is_over = |begin: &Instant<Monotonic>| {
            begin.elapsed().as_micros_ceil() >= PERIOD_MICROSECONDS //
        };
        if self.period.as_ref().is_none_or(is_over) {
            self.period = Some(Instant::now());
            self.spent = 0;
        }
        if self.held.is_none() && self.spent < HOLD_MICROSECONDS {
            self.held = Some((id, Instant::now()));
        }
    }

    /// Request `id` is back, or has ended.
    pub(super) fn release(&mut self, id: Id) {
        if let Some((_, since)) = self.held.take_if(|(of, _)| *of == id) {
            self.spent += since.elapsed().as_micros_ceil();
        }
    }

    /// Ends a hold whose time is used up.
    pub(super) fn expire(&mut self) {
        let spent = self.spent;
        let is_over = |since: Instant<Monotonic>| {
            spent + since.elapsed().as_micros_ceil() >= HOLD_MICROSECONDS //
        };
        if let Some((id, _)) = self.held.filter(|(_, since)| is_over(*since)) {
            self.release(id);
        }
    }
}
