// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for `kernel::time`: the clock of [`crate::world`].

use crate::world;
use std::marker::PhantomData;

/// Milliseconds.
pub type Msecs = u32;

/// The clock.
#[derive(Clone, Copy, Debug)]
pub struct Monotonic;

/// A point in time.
#[derive(Clone, Copy, Debug)]
pub struct Instant<C>(i64, PhantomData<C>);

/// A span of time.
#[derive(Clone, Copy, Debug)]
pub struct Delta(i64);

impl Instant<Monotonic> {
    /// As in the kernel crate.
    pub fn now() -> Self {
        Self(world::now(), PhantomData)
    }

    /// As in the kernel crate.
    pub fn elapsed(&self) -> Delta {
        Delta(world::now() - self.0)
    }
}

impl Delta {
    /// As in the kernel crate.
    pub fn as_micros_ceil(self) -> i64 {
        (self.0 + 999) / 1000
    }

    /// As in the kernel crate.
    pub fn as_millis(self) -> i64 {
        self.0 / 1_000_000
    }
}
