// SPDX-License-Identifier: GPL-2.0-only

//! The driver's plain state on the host: its own sources, compiled as they are, against stand-ins for the kernel.
//!
//! [`driver`] names the driver's files; only what owns a device, and the pieces that touch pages, are stand-ins
//! there. [`kapi`] and the modules of the kernel crate are stand-ins that check what the kernel only asks for: no
//! lock is taken twice, nothing is completed, woken, signalled or copied under one, no request is completed twice
//! or forgotten. Time, interrupts, work and page faults happen when a test says so ([`world`]).
//!
//! Must not know what is right: that is the tests' business.

#![cfg_attr(not(test), allow(dead_code))]
#![allow(
    clippy::all,
    reason = "the driver's sources are linted with the kernel's settings, and the stand-ins have the kernel crate's signatures"
)]

// The kernel crate, for `use kernel::…` in the driver's sources.
extern crate self as kernel;

pub mod alloc;
pub mod debugfs;
pub mod device;
pub mod fs;
pub mod init;
pub mod iov;
pub mod page;
pub mod prelude;
pub mod rbtree;
pub mod str;
pub mod sync;
pub mod time;
pub mod uaccess;
pub mod workqueue;
pub mod world;

pub use std::fmt;

mod driver;
mod kapi;
#[allow(dead_code)]
#[rustfmt::skip]
#[path = "../../trace.rs"]
mod trace;
#[rustfmt::skip]
#[path = "../../uapi.rs"]
mod uapi;
#[allow(unreachable_pub, dead_code)]
#[rustfmt::skip]
#[path = "../../../protocol/src/virtio_fifo.rs"]
mod virtio_fifo;

#[cfg(test)]
mod tests;
