// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for polling: time passes. Of the fast edition alone.

use crate::world;

/// As in `kapi`.
pub(crate) fn relax() -> bool {
    world::pass(20);
    false
}

/// As in `kapi`.
pub(crate) fn others_want_cpu() -> bool {
    false
}

/// As in `kapi`.
pub(crate) struct NoPreemption(());

impl NoPreemption {
    pub(crate) fn new() -> Self {
        Self(())
    }
}
