// SPDX-License-Identifier: GPL-2.0-only

//! Safe abstractions over the C interfaces that the kernel crate does not cover yet.
//!
//! Knows the kernel. Must not know FIFOs or the wire format: another out-of-tree module can use
//! this folder as it is. A safe function here cannot be misused by safe code, whoever calls it;
//! each file says what keeps its promise.

pub(crate) mod bindings;
pub(crate) mod chardev;
pub(crate) mod fasync;
pub(crate) mod file_operations;
pub(crate) mod kiocb;
pub(crate) mod lock;
pub(crate) mod module;
pub(crate) mod open_file;
mod operations;
#[cfg(GLOBALFIFO_FAST)]
pub(crate) mod pages;
#[cfg(GLOBALFIFO_FAST)]
pub(crate) mod pinned;
pub(crate) mod poll;
pub(crate) mod source;
#[cfg(GLOBALFIFO_FAST)]
pub(crate) mod spin;
#[cfg(GLOBALFIFO_FAST)]
pub(crate) mod timer;
pub(crate) mod tracepoint;
pub(crate) mod user_memory;
pub(crate) mod virtio;
pub(crate) mod wait;
pub(crate) mod workqueue;
