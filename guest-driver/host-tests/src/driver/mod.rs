// SPDX-License-Identifier: GPL-2.0-only

//! The driver's files, compiled as they are: `../../../driver/mod.rs`, without what owns a device.

#![forbid(unsafe_code)]
#![allow(dead_code, unused_imports, clippy::all)]

#[rustfmt::skip]
#[path = "../../../driver/buffers.rs"]
pub(crate) mod buffers;
#[rustfmt::skip]
#[path = "../../../driver/chain.rs"]
pub(crate) mod chain;
pub(crate) mod control;
#[cfg(GLOBALFIFO_FAST)]
#[rustfmt::skip]
#[path = "../../../driver/fast/mod.rs"]
pub(crate) mod fast;
#[cfg(GLOBALFIFO_FAST)]
#[rustfmt::skip]
#[path = "../../../driver/fast_tunables.rs"]
pub(crate) mod fast_tunables;
#[rustfmt::skip]
#[path = "../../../driver/fifo/mod.rs"]
pub(crate) mod fifo;
#[rustfmt::skip]
#[path = "../../../driver/file.rs"]
pub(crate) mod file;
#[rustfmt::skip]
#[path = "../../../driver/policy/mod.rs"]
pub(crate) mod policy;
#[rustfmt::skip]
#[path = "../../../driver/stats.rs"]
pub(crate) mod stats;
#[rustfmt::skip]
#[path = "../../../driver/tunables.rs"]
pub(crate) mod tunables;
pub(crate) mod watchdog;
#[rustfmt::skip]
#[path = "../../../driver/work.rs"]
pub(crate) mod work;

#[cfg(GLOBALFIFO_FAST)]
pub(crate) const HOOKS: &fifo::hooks::Hooks = &fast::HOOKS;
#[cfg(not(GLOBALFIFO_FAST))]
pub(crate) const HOOKS: &fifo::hooks::Hooks = &fifo::hooks::Hooks::NONE;
