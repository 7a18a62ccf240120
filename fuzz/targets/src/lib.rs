// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Fuzz targets: each takes any bytes, does with the device what they say, and panics when the
//! device does what it must not.
//!
//! The bodies are here, so that libFuzzer (`fuzz/fuzz_targets`) and an ordinary test
//! (`tests/replay.rs`) run the same. A new target is a function, a line in [`TARGETS`], a file in
//! `fuzz/fuzz_targets`, its `[[bin]]` in `fuzz/Cargo.toml`, and inputs in `fuzz/corpus/NAME`.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a panic is how a target says that something is wrong"
)]

mod control;
mod fault;
mod fifo;
mod guest;
mod input;
mod queues;
mod rings;
pub mod seeds;
mod spec;
mod wire;

pub use control::control;
pub use fault::fault;
pub use fifo::fifo;
pub use queues::queues;
pub use rings::rings;
pub use spec::spec;
pub use wire::wire;

/// A target: its name, which is that of its corpus too, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("control", control),
    ("fault", fault),
    ("fifo", fifo),
    ("queues", queues),
    ("rings", rings),
    ("spec", spec),
    ("wire", wire),
];
