// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Chance that can be repeated: the same seed gives the same throws.

use std::time::Duration;

use crate::ways::{WAYS, Way};

/// What somebody does next, repeatably.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// For one of the threads of a test with `seed`; each has a number.
    pub fn new(seed: u64, thread: u64) -> Self {
        Self(mix(seed ^ thread.wrapping_mul(0x1234_5678_9ABC_DEF1)))
    }

    /// From 0 to `sides` - 1.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0) % sides
    }

    /// The same for sizes.
    pub fn size(&mut self, sides: usize) -> usize {
        usize::try_from(self.roll(sides as u64)).unwrap_or(0)
    }

    /// A way to read or write.
    pub fn way(&mut self) -> Way {
        let index = self.size(WAYS.len());
        WAYS.get(index).copied().unwrap_or(Way::Call)
    }

    /// How long to wait before cancelling: often not at all.
    pub fn patience(&mut self) -> Duration {
        match self.roll(4) {
            0 => Duration::ZERO,
            1 => Duration::from_micros(self.roll(500)),
            2 => Duration::from_millis(self.roll(5)),
            _ => Duration::from_millis(50),
        }
    }
}

/// The finaliser of splitmix64.
pub fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}
