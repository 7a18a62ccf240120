// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the programs that run in the guest share.
//!
//! [`harness`] runs tests and reports in KTAP, [`fifo`] opens and drives `/dev/globalfifo`,
//! [`system`] is the rest of the machine: sysfs, debugfs, /proc. Nothing here knows QEMU or the host.

pub mod aio;
pub mod bare;
pub mod bench;
pub mod bottomless;
pub mod child;
pub mod compat;
pub mod cycles;
pub mod dice;
pub mod failures;
pub mod fifo;
pub mod forked;
pub mod harness;
pub mod lessons;
pub mod mapping;
pub mod posix_aio;
pub mod signals;
pub mod splitmix;
pub mod suspend;
pub mod system;
pub mod trace;
pub mod uring;
pub mod usage;
pub mod userfault;
pub mod victim;
pub mod ways;
