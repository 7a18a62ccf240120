// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a FIFO's streams end at within the device: zeros, nothing, or a pattern.
//!
//! These need no file descriptor and never block, so the queue worker serves them. They know
//! positions and bytes; they must not know rings, queues or virtio. What has a file descriptor is
//! in [`crate::host`].

use crate::pattern::Mismatch;
use crate::pattern::Pattern;

/// The end of a FIFO's streams, always ready.
#[derive(Clone, Debug)]
pub enum Endpoint {
    /// Takes everything, gives zeros for ever.
    Zero,
    /// Takes everything, never has anything to give.
    Null,
    /// Gives the bytes of a pattern for ever, and takes nothing else.
    Pattern(Pattern),
}

impl Endpoint {
    /// Gives the bytes from `position` of the rx stream; how many.
    pub fn give(&self, position: u64, bytes: &mut [u8]) -> usize {
        match self {
            Self::Zero => bytes.fill(0),
            Self::Null => return 0,
            Self::Pattern(pattern) => pattern.fill(position, bytes),
        }
        bytes.len()
    }

    /// Takes all of `bytes`, which are those from `position` of the tx stream.
    ///
    /// # Errors
    ///
    /// The first byte that should have been another.
    pub fn take(&self, position: u64, bytes: &[u8]) -> Result<(), Mismatch> {
        match self {
            Self::Zero | Self::Null => Ok(()),
            Self::Pattern(pattern) => pattern.check(position, bytes),
        }
    }
}
