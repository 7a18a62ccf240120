// SPDX-License-Identifier: GPL-2.0-only

//! The driver's own logic, all of it safe Rust.
//!
//! [`device`] brings a virtio device up and down, [`control`] asks it questions, [`watch`] notices
//! interrupts that it lost, [`fifo`] is one FIFO with the rules of `docs/virtio-fifo.md`, [`file`] what
//! an open file of it does. What the C side looks like is the business of [`crate::kapi`].

#![forbid(unsafe_code)]

mod aio;
mod buffers;
mod control;
mod device;
mod fifo;
mod file;
mod rx;
mod stats;
mod tx;
mod watch;

pub(crate) use device::FifoDriver;
pub(crate) use fifo::Fifo;
pub(crate) use stats::{
    show,
    Folder, //
};
