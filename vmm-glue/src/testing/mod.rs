// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab test`: every test there is, each with a name and a time.
//!
//! Names are paths: `host/…` runs here, `module/…` looks at the driver's source in the tree, `guest/SUITE/PROGRAM/TEST` runs in a guest,
//! `lab/…` are the lab's own tests that boot machines, `grade/…` grades right and wrong drivers, `teaching/…`, `7.2/…`, `rt/…` and
//! `checked/…` are guests' tests once more on other systems.

pub mod checkpatch;
pub mod guest;
pub mod history;
pub mod host;
pub mod kernels;
pub mod ktap;
pub mod libtest;
pub mod module;
pub mod nextest;
pub mod partition;
mod peer;
pub mod report;
pub mod suites;
