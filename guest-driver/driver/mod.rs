// SPDX-License-Identifier: GPL-2.0-only

//! The driver's own logic, all of it safe Rust.
//!
//! From the ground up: [`tunables`], [`chain`], [`buffers`], [`policy`]; one FIFO ([`fifo`]) and
//! what an open file of it does ([`file`]); a device's interrupts ([`irq`]), requests ([`control`])
//! and lost interrupts ([`watchdog`]); [`device`] brings it up and down. `fast` stands above
//! [`fifo`], which knows it by a table of functions ([`fifo::hooks`]). What the C side looks like
//! is the business of [`crate::kapi`].

#![forbid(unsafe_code)]

mod buffers;
mod chain;
mod control;
mod device;
#[cfg(GLOBALFIFO_FAST)]
mod fast;
#[cfg(GLOBALFIFO_FAST)]
mod fast_tunables;
mod fifo;
mod file;
mod irq;
mod policy;
mod stats;
mod tunables;
mod watchdog;
mod work;

pub(crate) use device::{
    FifoDriver,
    Host, //
};
pub(crate) use fifo::{
    file::FifoFile,
    Fifo, //
};
pub(crate) use stats::{
    show,
    Folder, //
};
pub(crate) use work::Queues;

/// Name of the edition.
pub(crate) const EDITION: &str = if cfg!(GLOBALFIFO_FAST) {
    "fast"
} else {
    "teaching"
};

/// What stands above the core.
#[cfg(GLOBALFIFO_FAST)]
const HOOKS: &fifo::hooks::Hooks = &fast::HOOKS;
#[cfg(not(GLOBALFIFO_FAST))]
const HOOKS: &fifo::hooks::Hooks = &fifo::hooks::Hooks::NONE;
