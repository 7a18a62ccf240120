// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a rule ended, and the words that a rule's program says it in.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

/// The verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// The driver does not have what an optional rule is about.
    Absent,
    /// It was not tried: something before it failed.
    Unreached,
}

impl Verdict {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::Absent => "not there",
            Self::Unreached => "not reached",
        }
    }
}

/// A rule's end.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The rule's id.
    pub id: String,
    /// The verdict.
    pub verdict: Verdict,
    /// M or O.
    pub must: bool,
    /// Seconds that it took.
    pub seconds: f64,
    /// What was done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub done: String,
    /// What should have come of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expected: String,
    /// What came.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub seen: String,
    /// What the kernel reported meanwhile, with the user's files and lines.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kernel: String,
    /// The page with the timeline of its run, as a path.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trace: String,
}

/// An end without the rule that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The verdict.
    pub verdict: Verdict,
    /// What was done.
    pub done: String,
    /// What should have come of it.
    pub expected: String,
    /// What came.
    pub seen: String,
    /// What the kernel reported.
    pub kernel: String,
    /// The page with its timeline, if there is one.
    pub trace: String,
}

impl End {
    /// An end with nothing to say.
    pub fn of(verdict: Verdict) -> Self {
        Self {
            verdict,
            done: String::new(),
            expected: String::new(),
            seen: String::new(),
            kernel: String::new(),
            trace: String::new(),
        }
    }

    /// A pass.
    pub fn pass() -> Self {
        Self::of(Verdict::Pass)
    }

    /// A failure.
    pub fn fail(done: &str, expected: &str, seen: impl Into<String>) -> Self {
        Self {
            done: done.to_owned(),
            expected: expected.to_owned(),
            seen: seen.into(),
            ..Self::of(Verdict::Fail)
        }
    }

    /// Not tried, and why.
    pub fn unreached(why: impl Into<String>) -> Self {
        Self {
            seen: why.into(),
            ..Self::of(Verdict::Unreached)
        }
    }

    /// The driver does not have what an optional rule is about.
    pub fn absent(why: impl Into<String>) -> Self {
        Self {
            seen: why.into(),
            ..Self::of(Verdict::Absent)
        }
    }

    /// What the kernel reported belongs to it.
    pub fn with_kernel(mut self, report: impl Into<String>) -> Self {
        self.kernel = report.into();
        self
    }

    /// What a rule's program said: lines `done: `, `expected: `, `seen: `, of which the last of each counts.
    pub fn from_program(status: u8, must: bool, text: &str) -> Self {
        let last = |word: &str| {
            let mut lines = text.lines().filter_map(|line| line.strip_prefix(word));
            lines.next_back().unwrap_or_default().to_owned()
        };
        let verdict = match status {
            0 => Verdict::Pass,
            // What every driver must have cannot be absent.
            77 if !must => Verdict::Absent,
            _ => Verdict::Fail,
        };
        let mut end = Self {
            verdict,
            done: last("done: "),
            expected: last("expected: "),
            seen: last("seen: "),
            kernel: String::new(),
            trace: String::new(),
        };
        if verdict == Verdict::Fail && end.seen.is_empty() {
            end.seen = format!("the program ended with status {status}: {}", text.trim());
        }
        end
    }

    /// The end of this rule.
    pub fn outcome(self, id: &str, must: bool, took: Duration) -> Outcome {
        Outcome {
            id: id.to_owned(),
            verdict: self.verdict,
            must,
            seconds: took.as_secs_f64(),
            done: self.done,
            expected: self.expected,
            seen: self.seen,
            kernel: self.kernel,
            trace: self.trace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_status_is_the_verdict_and_its_lines_are_the_reasons() {
        let text = "done: read\nexpected: 3\nseen: 0\n";
        let end = End::from_program(1, true, text);
        assert_eq!(end, End::fail("read", "3", "0"));
        assert_eq!(End::from_program(0, true, "").verdict, Verdict::Pass);
        let absent = |must| End::from_program(77, must, "seen: no aio").verdict;
        assert_eq!(
            (absent(false), absent(true)),
            (Verdict::Absent, Verdict::Fail)
        );
    }

    #[test]
    fn a_program_that_says_nothing_has_failed_with_its_status() {
        let end = End::from_program(139, true, "Segmentation fault\n");
        assert_eq!(end.verdict, Verdict::Fail);
        assert!(end.seen.contains("139") && end.seen.contains("Segmentation"));
    }
}
