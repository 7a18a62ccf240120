// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reading KTAP version 1, line by line as it comes.
//!
//! Results of nested tests count, those of their parents only when a parent fails for a reason of its own.

use std::time::Duration;
use std::time::Instant;

use super::report::Verdict;

/// Lines before a result that are kept, and characters of each: a guest may say as much as it likes.
const DIAGNOSTICS_MAX: usize = 10_000;
const LINE_MAX: usize = 4_000;

/// A result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Name, without its parents' (KTAP tells them afterwards).
    pub name: String,
    /// Time since the result before.
    pub time: Duration,
    /// Verdict.
    pub verdict: Verdict,
}

/// The reader.
#[derive(Debug)]
pub struct Parser {
    version: bool,
    planned: Option<usize>,
    seen: usize,
    diagnostics: Vec<String>,
    /// Since the last result at the outer level.
    nested: usize,
    nested_failed: bool,
    last: Instant,
}

impl Parser {
    /// At the start of a program's output.
    pub fn new(now: Instant) -> Self {
        Self {
            version: false,
            planned: None,
            seen: 0,
            diagnostics: Vec::new(),
            nested: 0,
            nested_failed: false,
            last: now,
        }
    }

    /// Takes a line, gives a result if it is one.
    pub fn line(&mut self, line: &str, now: Instant) -> Option<Finding> {
        let text = line.trim_start();
        let nested = text.len() < line.len();
        if text.starts_with("KTAP version") || text.starts_with("TAP version") {
            self.version = true;
            return None;
        }
        if let Some(plan) = text.strip_prefix("1..") {
            if !nested {
                self.planned = plan
                    .split_whitespace()
                    .next()
                    .and_then(|count| count.parse().ok());
            }
            return None;
        }
        let Some((passed, rest)) = result(text) else {
            // Diagnostics, and whatever else a program says.
            if self.diagnostics.len() < DIAGNOSTICS_MAX {
                let text = text.strip_prefix("# ").unwrap_or(text);
                self.diagnostics.push(text.chars().take(LINE_MAX).collect());
            }
            return None;
        };
        self.result(nested, passed, rest, now)
    }

    fn result(&mut self, nested: bool, passed: bool, rest: &str, now: Instant) -> Option<Finding> {
        let (name, directive) = name_and_directive(rest);
        let said = std::mem::take(&mut self.diagnostics).join("\n");
        let time = now.saturating_duration_since(self.last);
        if nested {
            self.nested += 1;
            self.nested_failed |= !passed;
        } else {
            self.seen += 1;
            let had = std::mem::take(&mut self.nested);
            let failed = std::mem::take(&mut self.nested_failed);
            if had > 0 && (passed || failed) {
                return None;
            }
        }
        self.last = now;
        let verdict = match directive.split_whitespace().next() {
            Some("SKIP" | "TODO" | "XFAIL") => Verdict::Skipped(directive.to_owned()),
            _ if passed => Verdict::Passed,
            _ => Verdict::Failed(said),
        };
        Some(Finding {
            name,
            time,
            verdict,
        })
    }

    /// What is wrong with the whole, once the program has ended.
    pub fn complaint(&self) -> Option<String> {
        match (self.version, self.planned) {
            (false, _) => Some("it did not report in KTAP".to_owned()),
            (true, None) => Some("it announced no plan".to_owned()),
            (true, Some(planned)) if planned != self.seen => Some(format!(
                "it announced {planned} tests and reported {}",
                self.seen
            )),
            _ => None,
        }
    }

    /// What was said since the last result.
    pub fn unattached(&self) -> String {
        self.diagnostics.join("\n")
    }
}

fn result(text: &str) -> Option<(bool, &str)> {
    let (passed, rest) = match text.strip_prefix("ok ") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("not ok ")?),
    };
    let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    number.parse::<u32>().ok()?;
    Some((passed, rest.strip_prefix("- ").unwrap_or(rest)))
}

fn name_and_directive(rest: &str) -> (String, &str) {
    let (name, directive) = rest.split_once('#').unwrap_or((rest, ""));
    (name.trim().to_owned(), directive.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Vec<(String, Verdict)>, Option<String>) {
        let now = Instant::now();
        let mut parser = Parser::new(now);
        let results = text
            .lines()
            .filter_map(|line| parser.line(line, now))
            .map(|result| (result.name, result.verdict))
            .collect();
        (results, parser.complaint())
    }

    #[test]
    fn results_come_with_the_diagnostics_before_them() {
        let (results, complaint) = parse(
            "KTAP version 1\n1..3\nok 1 a # 3 ms\n# because\n# of this\nnot ok 2 b\nok 3 - c # SKIP no device\n",
        );
        assert_eq!(results[0], ("a".to_owned(), Verdict::Passed));
        assert_eq!(
            results[1],
            (
                "b".to_owned(),
                Verdict::Failed("because\nof this".to_owned())
            )
        );
        assert_eq!(
            results[2],
            (
                "c".to_owned(),
                Verdict::Skipped("SKIP no device".to_owned())
            )
        );
        assert_eq!(complaint, None);
    }

    #[test]
    fn a_parent_counts_only_when_its_children_do_not_explain_it() {
        let (results, _) = parse(
            "KTAP version 1\n1..2\n  KTAP version 1\n  1..1\n  not ok 1 child\nnot ok 1 parent\n  1..1\n  ok 1 child\nnot ok 2 parent2\n",
        );
        let names: Vec<_> = results.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["child", "child", "parent2"]);
    }

    #[test]
    fn a_program_that_stops_early_or_says_nothing_is_complained_of() {
        assert!(
            parse("KTAP version 1\n1..3\nok 1 a\n")
                .1
                .unwrap()
                .contains("announced 3 tests and reported 1")
        );
        assert!(parse("Segmentation fault\n").1.unwrap().contains("KTAP"));
        assert!(parse("").1.is_some());
    }

    #[test]
    fn words_that_only_look_like_results_are_none() {
        assert_eq!(parse("KTAP version 1\n1..0\nok then\nnot okay\n").0, []);
    }
}
