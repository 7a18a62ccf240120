// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for `kernel::fs`.

/// What a descriptor stands for.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Open for writing.
    pub may_write: bool,
}
