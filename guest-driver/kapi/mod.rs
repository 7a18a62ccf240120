// SPDX-License-Identifier: GPL-2.0-only

//! Safe abstractions over the C interfaces that the kernel crate does not cover yet.
//!
//! All unsafe code of the module is in this folder. It knows the kernel, not the FIFO: nothing here
//! may refer to the driver's own types.

pub(crate) mod aio;
pub(crate) mod bindings;
pub(crate) mod chardev;
pub(crate) mod fasync;
pub(crate) mod iter;
pub(crate) mod pages;
pub(crate) mod timer;
pub(crate) mod virtio;
pub(crate) mod wait;
pub(crate) mod workqueue;

/// Request numbers of `ioctl(2)`, from the uapi headers.
pub(crate) mod ioctls {
    use super::bindings;

    /// Bytes that can be read.
    pub(crate) const FIONREAD: u32 = bindings::GLOBALFIFO_FIONREAD;
    /// Empty the FIFO, as textbooks number it.
    pub(crate) const FIFO_CLEAR: u32 = bindings::GLOBALFIFO_FIFO_CLEAR;
    /// Empty the FIFO.
    pub(crate) const ALIAS_CLEAR: u32 = bindings::GLOBALFIFO_ALIAS_CLEAR;
}
