// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The control socket: the device as a person or a program on the host sees and handles it.
//!
//! It owns its listening socket, its clients and what they still have to be told; the device it
//! only borrows, one FIFO at a time and never for long. What crosses the border are the methods of
//! [`crate::device::Device`] and [`crate::fifo::Fifo`]; virtqueues, guest memory and endpoints it
//! must not know. All of it runs on the event loop and nothing in it waits. The words on the wire are
//! the crate fifo-control's, [`protocol`] here.

pub mod lines;
pub mod metrics;
pub mod metrics_file;

mod server;
mod service;
mod tracing;
mod watch;

pub use self::server::Control;
pub use self::service::Service;
pub use fifo_control as protocol;
