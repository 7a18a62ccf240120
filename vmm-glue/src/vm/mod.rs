//! A virtual machine: what it is made of, how it is started, spoken to and ended. The only place that knows QEMU's command line.

pub mod accel;
mod alarm;
pub mod config;
pub mod console;
pub mod devices;
pub mod machine;
pub mod qemu;
pub mod rundir;
pub mod session;
