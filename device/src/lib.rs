// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The virtio-fifo device as a vhost-user backend; `docs/virtio-fifo.md` is its specification.
//!
//! From the inside out, each layer knowing only those above it in this list:
//!
//! - [`ring`]: the FIFO core, three cursors over bytes
//! - [`pattern`], [`endpoint`]: what a FIFO ends at within the device
//! - [`refusal`]: what is refused from a guest, counted and logged
//! - [`trace`]: events with their times, for those who ask
//! - [`wake`]: how the core wakes a thread
//! - [`fifo`]: one FIFO, its credit and its state
//! - [`fault`]: what goes wrong on demand, decided
//! - [`spec`], [`device`]: all FIFOs, as configured
//! - [`virtqueue`], [`chain`]: rings and descriptor chains of a guest that is not trusted
//! - [`handlers`]: what a message on each kind of queue does
//! - [`mailbox`], `linger`, [`worker`]: which queues are served when, and what stopping one means
//! - `bell`: an eventfd that wakes a thread
//! - [`backend`]: the device on one vhost-user connection
//! - [`socket`], [`host`]: what FIFOs end at outside, served by the event loop
//! - [`server`]: connections, one after another
//! - [`systemd`], [`signals`]: who started the process, and what it is told from outside
//! - [`sandbox`]: what the process gives up before it serves
//! - [`log`]: the log and its limits
//! - [`timer`]: what faults have put off
//! - [`control`]: the control socket, and metrics
//! - [`ctl`]: a client of the control socket
//! - [`cli`]: the command line
//!
//! [`embed`] shows how to have the device in another program.

#![deny(unsafe_code)]

pub mod backend;
mod bell;
pub mod chain;
pub mod cli;
pub mod control;
pub mod ctl;
pub mod device;
pub mod embed;
pub mod endpoint;
pub mod fault;
pub mod fifo;
pub mod handlers;
pub mod host;
mod linger;
pub mod log;
pub mod mailbox;
pub mod outlet;
pub mod pattern;
pub mod refusal;
pub mod ring;
pub mod sandbox;
pub mod server;
pub mod signals;
pub mod socket;
mod stopped;
pub mod systemd;
pub mod timer;
pub mod trace;
mod turns;
pub mod virtqueue;
pub mod wake;
pub mod worker;

pub use fifo_spec as spec;
