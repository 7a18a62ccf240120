// SPDX-License-Identifier: GPL-2.0-only

//! Stand-ins for `kapi`: the same names and promises, in memory. They check what the kernel only asks for.

#![allow(dead_code)]

pub(crate) mod bindings;
pub(crate) mod fasync;
pub(crate) mod file_operations;
pub(crate) mod kiocb;
pub(crate) mod lock;
pub(crate) mod open_file;
#[cfg(GLOBALFIFO_FAST)]
pub(crate) mod pages;
#[cfg(GLOBALFIFO_FAST)]
pub(crate) mod pinned;
pub(crate) mod poll;
#[rustfmt::skip]
#[allow(clippy::all)]
#[path = "../../../kapi/source.rs"]
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
