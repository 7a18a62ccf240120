// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A run as a whole: what it ran on, what it found, and what that says of the goals.

use super::changes::Changes;
use super::device;
use super::device::Alone;
use super::facts::Facts;
use super::goals;
use super::goals::Goal;
use super::goals::Verdict;
use super::idle::Comparison;
use super::results::Results;

/// Everything that is shown and written.
#[derive(Debug, Clone)]
pub struct Report {
    /// What it ran on.
    pub facts: Facts,
    /// Figures.
    pub results: Results,
    /// Figures of guests that do nothing.
    pub idle: Option<Comparison>,
    /// Figures of the device without a machine.
    pub alone: Option<Alone>,
    /// What all that says of the goals.
    pub goals: Vec<Goal>,
    /// What is different from an earlier run.
    pub changes: Option<Changes>,
    /// Single round trips as timelines.
    pub traces: Vec<Trace>,
}

/// A round trip as a page of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Which one: median or worst.
    pub which: &'static str,
    /// Name of the page, beside the report's.
    pub file: String,
    /// The page.
    pub page: String,
    /// How long it took while it was traced, in nanoseconds.
    pub nanos: u64,
    /// Of how many.
    pub of: usize,
}

impl Report {
    /// Judges.
    pub fn new(
        facts: Facts,
        results: Results,
        alone: Option<Alone>,
        idle: Option<Comparison>,
    ) -> Self {
        let mut goals = goals::judge(&results);
        goals.extend(device::judge(alone.as_ref()));
        goals.extend(Comparison::judge(idle.as_ref()));
        Self {
            facts,
            results,
            alone,
            idle,
            goals,
            changes: None,
            traces: Vec::new(),
        }
    }

    /// Goals with this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        let goals = self.goals.iter();
        goals.filter(|goal| goal.verdict == verdict).count()
    }
}
