// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One timeline of guest and host for one run of a command: see docs/trace.md.
//!
//! [`guest`], [`daemon`] and [`qemu`] make [`event`]s of what each side has traced, [`clock`] puts them on one
//! clock, [`chain`] finds what led to what, and [`report`], [`page`], [`svg`] and [`perfetto`] show it. Only
//! [`run`] knows machines.

pub mod chain;
pub mod clock;
pub mod daemon;
pub mod event;
pub mod figures;
pub mod guest;
pub mod page;
pub mod perfetto;
pub mod qemu;
pub mod report;
pub mod run;
pub mod svg;
