// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause OR GPL-2.0-only

//! The wire format of the virtio-fifo device.
//!
//! Everything lives in [`virtio_fifo`], one file that needs nothing but `core`, so that the daemon
//! and the kernel module compile the very same source. It must not know how either side stores,
//! queues or waits.

#![no_std]
#![forbid(unsafe_code)]

pub mod virtio_fifo;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
