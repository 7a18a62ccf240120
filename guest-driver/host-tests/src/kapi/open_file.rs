// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in: who has a file open.

use crate::fs::File;
use crate::world;

/// As in `kapi`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ProcessId(pub(crate) usize);

impl ProcessId {
    pub(crate) fn of_current() -> Self {
        Self(world::process())
    }
}

pub(crate) fn opener_may_write(file: &File) -> bool {
    file.may_write
}
