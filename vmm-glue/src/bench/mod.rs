// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo lab bench`: what the device costs, beside what one would use instead, in the same boot.
//!
//! ```text
//! plan ──► rounds ──► rig (machine, peers, one measurement at a time) ──► results ──► goals, changes ──► table, files, page
//! ```
//! `plan` says what is measured, `rounds` how often, `rig` is the only part that knows machines, and everything after `results` knows figures
//! only. `interval` is the statistics, `baseline` reads what an earlier run wrote.

pub mod accounting;
pub mod baseline;
pub mod changes;
pub mod device;
pub mod facts;
pub mod files;
pub mod gauge;
pub mod goals;
pub mod idle;
pub mod interval;
pub mod page;
pub mod peers;
pub mod plan;
pub mod report;
pub mod results;
pub mod rig;
pub mod rounds;
pub mod stats;
pub mod svg;
pub mod table;
pub mod trips;
pub mod units;
