//! `cargo lab bench`: what the device costs, beside what one would use instead, in the same boot.
//!
//! ```text
//! plan ──► rig (machine, peers, one measurement at a time) ──► results ──► goals ──► table, files, page
//! ```
//! `plan` says what is measured, `rig` is the only part that knows machines, and everything after `results` knows figures only.

pub mod accounting;
pub mod device;
pub mod files;
pub mod goals;
pub mod idle;
pub mod page;
pub mod peers;
pub mod plan;
pub mod report;
pub mod results;
pub mod rig;
pub mod stats;
pub mod svg;
pub mod table;
pub mod units;
