// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab grade`: somebody's driver, tested by named rules.
//!
//! ```text
//! catalog (rules.toml) ──► course ──► session ──► guest.sh and the rules' programs, in the guest
//! subject (PATH → .ko) ──►    └─► outcome ──► report: lines and summary, JSON, JUnit, page
//! ```
//! The catalog knows words and no machine; a session knows a machine and no rule; a report knows outcomes and no machine. See
//! docs/grader.md.

pub mod batch;
pub mod catalog;
pub mod course;
pub mod graded;
mod hostile;
pub mod html;
pub mod lang;
mod meanings;
mod mutants;
pub mod outcome;
pub mod programs;
pub mod report;
#[cfg(test)]
mod rules_page;
pub mod session;
mod shown;
mod starts;
mod style;
pub mod subject;
pub mod timeline;
pub mod trace;
pub mod watch;
