// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device as a VMM and a driver see it: over a real socket and real rings, and as a program.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test's helper fails as a test does"
)]

#[path = "../common/mod.rs"]
mod common;
#[expect(dead_code, reason = "the lab's tests use all of it")]
#[path = "../../../vmm-glue/tests/common/pty.rs"]
mod pty;

mod binary;
mod control;
mod conventions;
mod ctl;
mod ctl_program;
mod ending;
mod endpoints;
mod example;
#[cfg(feature = "faults")]
mod faults;
mod hostile;
mod landlock;
mod log;
mod network;
mod notification;
mod packages;
mod recovery;
mod reset;
mod responsive;
mod sandbox;
mod streams;
mod top;
mod trace;
mod versions;
