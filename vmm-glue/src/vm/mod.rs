// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A virtual machine: what it is made of, how it is started, spoken to and ended. The only place that knows QEMU's command line.

pub mod accel;
mod alarm;
mod ask;
pub mod config;
pub mod console;
pub mod devices;
mod driver;
pub mod follow;
mod gdb;
pub mod guest;
pub mod input;
pub mod limits;
pub mod machine;
pub mod monitor;
pub mod qemu;
pub mod recording;
pub mod rundir;
pub mod session;
pub mod timing;
