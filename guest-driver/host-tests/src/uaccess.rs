// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for `kernel::uaccess`: one integer of user memory, that of [`crate::world`].

use crate::prelude::Result;
use crate::world;

/// An address.
#[derive(Clone, Copy, Debug)]
pub struct UserPtr;

impl UserPtr {
    /// As in the kernel crate.
    pub fn from_addr(_address: usize) -> Self {
        Self
    }
}

/// A piece of user memory.
#[derive(Clone, Copy, Debug)]
pub struct UserSlice;

impl UserSlice {
    /// As in the kernel crate.
    pub fn new(_at: UserPtr, _length: usize) -> Self {
        Self
    }

    /// As in the kernel crate.
    pub fn writer(self) -> Self {
        self
    }

    /// As in the kernel crate.
    pub fn write(self, value: &i32) -> Result {
        world::assert_unlocked("user memory written");
        world::set_ioctl_result(*value);
        Ok(())
    }
}
