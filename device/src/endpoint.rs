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
    /// Whether it gives bytes, as many as can be.
    pub fn makes(&self) -> bool {
        match self {
            Self::Zero | Self::Pattern(_) => true,
            Self::Null => false,
        }
    }

    /// Makes the bytes from `position` of the rx stream, in place of `bytes`, which are zeros or what
    /// this endpoint made before.
    pub fn make(&self, position: u64, bytes: &mut [u8]) {
        match self {
            Self::Zero | Self::Null => {}
            Self::Pattern(pattern) => pattern.fill(position, bytes),
        }
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
