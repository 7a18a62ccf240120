// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Outcomes of tests: a line for each as it comes, a summary, and a JUnit file.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use indicatif::ProgressBar;
use quick_junit::NonSuccessKind;
use quick_junit::Report;
use quick_junit::TestCase;
use quick_junit::TestCaseStatus;
use quick_junit::TestSuite;

use super::kernels;
use super::partition::Partition;
use crate::ui;

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Well.
    Passed,
    /// Not, and why.
    Failed(String),
    /// It was not run, and why.
    Skipped(String),
}

/// A test that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its whole name.
    pub name: String,
    /// How long it took.
    pub time: Duration,
    /// How it ended.
    pub verdict: Verdict,
}

/// Which tests are wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    text: Option<String>,
    partition: Option<Partition>,
}

impl Filter {
    /// Those whose names contain this.
    pub fn new(text: Option<String>) -> Self {
        Self {
            text: text.filter(|text| !text.is_empty()),
            partition: None,
        }
    }

    /// Of those, the ones in this part of a run.
    pub fn in_partition(self, partition: Partition) -> Self {
        Self {
            partition: Some(partition),
            ..self
        }
    }

    /// Whether what is below this name is in the part of a run that is wanted.
    pub fn takes(&self, name: &str) -> bool {
        self.partition
            .as_ref()
            .is_none_or(|partition| partition.takes(name))
    }

    /// Whether this one is.
    pub fn wants(&self, name: &str) -> bool {
        self.text
            .as_ref()
            .is_none_or(|text| name.contains(text.as_str()))
            && self.takes(name)
    }

    /// Whether tests below this place (like `guest/`) may be, as far as can be told without asking them.
    pub fn may_want_below(&self, place: &str) -> bool {
        const PLACES: [&str; 9] = [
            "host/",
            "module/",
            "guest/",
            "lab/",
            "grade/",
            "teaching/",
            "checked/",
            "7.2/",
            "rt/",
        ];
        let elsewhere = |text: &String| {
            PLACES
                .iter()
                .any(|other| *other != place && text.starts_with(other))
        };
        let in_part = |partition: &Partition| partition.may_take_below(place);
        !self.text.as_ref().is_some_and(elsewhere) && self.partition.as_ref().is_none_or(in_part)
    }

    /// Whether tests of this unit of a partition (like `guest/one`) may be, as far as its name tells.
    pub fn may_want_unit(&self, unit: &str) -> bool {
        let place = unit.split('/').next().unwrap_or(unit);
        self.may_want_below(&format!("{place}/"))
    }

    /// The text.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }
}

/// All outcomes so far.
#[derive(Debug)]
pub struct Results {
    outcomes: Vec<Outcome>,
    expected: Cell<usize>,
    /// Names are wanted, no outcomes.
    lists: bool,
    /// The system of what comes next, where there are several.
    system: Option<String>,
    bar: ProgressBar,
}

impl Results {
    /// None yet. With `lists`, the tests' names are printed instead.
    pub fn new(lists: bool) -> Self {
        Self {
            outcomes: Vec::new(),
            expected: Cell::new(0),
            lists,
            system: None,
            bar: ui::counter("tests", 0),
        }
    }

    /// From now on tests run on this system, one of several: it is the first part of their names.
    pub fn on(&mut self, system: String) {
        self.system = Some(system);
    }

    fn name(&self, name: String) -> String {
        match &self.system {
            Some(system) => kernels::name_on(system, &name),
            None => name,
        }
    }

    /// Prints the table of suite × system, where there are several.
    pub fn print_table(&self) {
        if !self.lists && !self.outcomes.is_empty() {
            ui::print(&format!("\n{}", kernels::table(&self.outcomes)));
        }
    }

    /// Whether only names are wanted; prints these then.
    pub fn only_lists(&self, names: impl IntoIterator<Item = String>) -> bool {
        if self.lists {
            names
                .into_iter()
                .for_each(|name| ui::print(&self.name(name)));
        }
        self.lists
    }

    /// More tests are known to come.
    pub fn expect(&self, count: usize) {
        self.expected.set(self.expected.get() + count);
        self.bar.inc_length(count as u64);
    }

    /// Tells what is being done.
    pub fn doing(&self, what: &str) {
        if ui::has_bars() {
            self.bar.set_message(what.to_owned());
        } else {
            ui::say(what);
        }
    }

    /// Tells how far that is, where a line can be written over.
    pub fn progress(&self) -> impl Fn(&str) + Send + use<> {
        let bar = self.bar.clone();
        move |what| {
            if ui::has_bars() {
                bar.set_message(what.to_owned());
            }
        }
    }

    /// A test is over: prints its line.
    pub fn add(&mut self, mut outcome: Outcome) {
        outcome.name = self.name(outcome.name);
        self.bar.inc(1);
        ui::print(&line(&outcome));
        if let Verdict::Failed(why) = &outcome.verdict {
            ui::print(&indent(why));
        }
        self.outcomes.push(outcome);
    }

    /// The summary of a run that was cut short, of these units (`host`, `guest/late`).
    pub fn interrupted(&self, units: &[String]) {
        let reached = |unit: &String| {
            let below = format!("{unit}/");
            self.outcomes
                .iter()
                .any(|outcome| outcome.name.starts_with(&below))
        };
        let known = self.expected.get().saturating_sub(self.outcomes.len());
        self.finish();
        ui::print(&format!("interrupted: {known} more were about to run"));
        let others: Vec<&str> = units
            .iter()
            .filter(|unit| !reached(unit))
            .map(String::as_str)
            .collect();
        if !others.is_empty() {
            ui::print(&format!("not reached: {}", others.join(" ")));
        }
    }

    /// The summary; true if nothing failed and something ran.
    pub fn finish(&self) -> bool {
        self.bar.finish_and_clear();
        let failures: Vec<_> = self
            .outcomes
            .iter()
            .filter(|outcome| matches!(outcome.verdict, Verdict::Failed(_)))
            .collect();
        let skipped = self
            .outcomes
            .iter()
            .filter(|outcome| matches!(outcome.verdict, Verdict::Skipped(_)))
            .count();
        if !failures.is_empty() {
            ui::print("\nfailed:");
            failures
                .iter()
                .for_each(|outcome| ui::print(&format!("  {}", outcome.name)));
        }
        let passed = self.outcomes.len() - failures.len() - skipped;
        if skipped > 0 {
            ui::print(&format!("{skipped} skipped"));
        }
        if passed + failures.len() == 0 {
            ui::print("no test has this in its name");
        }
        ui::print(&format!("{passed} passed, {} failed", failures.len()));
        failures.is_empty() && passed > 0
    }

    /// Writes the JUnit file.
    pub fn write_junit(&self, path: &Path) -> Result<()> {
        let mut report = Report::new("globalfifo");
        for (suite, outcomes) in self.by_suite() {
            let mut test_suite = TestSuite::new(suite);
            test_suite.add_test_cases(outcomes.into_iter().map(case));
            report.add_test_suite(test_suite);
        }
        let text = report
            .to_string()
            .context("cannot put the JUnit report together")?;
        std::fs::write(path, text)
            .with_context(|| format!("cannot write the JUnit report {}", path.display()))
    }

    fn by_suite(&self) -> std::collections::BTreeMap<&str, Vec<&Outcome>> {
        let mut suites = std::collections::BTreeMap::<_, Vec<_>>::new();
        for outcome in &self.outcomes {
            suites
                .entry(split(&outcome.name).0)
                .or_default()
                .push(outcome);
        }
        suites
    }
}

/// Suite and test.
fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or(("", name))
}

fn case(outcome: &Outcome) -> TestCase {
    let status = match &outcome.verdict {
        Verdict::Passed => TestCaseStatus::success(),
        Verdict::Skipped(why) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(why.as_str());
            status
        }
        Verdict::Failed(why) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status
                .set_message(why.lines().next().unwrap_or_default())
                .set_description(why.as_str());
            status
        }
    };
    let (suite, name) = split(&outcome.name);
    let mut case = TestCase::new(name, status);
    case.set_classname(suite).set_time(outcome.time);
    case
}

fn line(outcome: &Outcome) -> String {
    let (word, why) = match &outcome.verdict {
        Verdict::Passed => ("ok", String::new()),
        Verdict::Failed(_) => ("FAILED", String::new()),
        Verdict::Skipped(why) => ("skipped", format!(" ({why})")),
    };
    format!(
        "{word:<8}{:>8.3} s  {}{why}",
        outcome.time.as_secs_f64(),
        outcome.name
    )
}

fn indent(text: &str) -> String {
    text.lines()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_names_a_place_excludes_the_others() {
        let filter = Filter::new(Some("guest/basic".to_owned()));
        assert!(filter.may_want_below("guest/"));
        assert!(!filter.may_want_below("host/"));
        assert!(Filter::new(Some("ring".to_owned())).may_want_below("host/"));
        assert!(Filter::new(None).may_want_below("lab/"));
        assert!(filter.may_want_unit("guest/one") && !filter.may_want_unit("host"));
        assert!(!Filter::new(Some("checked/".to_owned())).may_want_unit("rt/one@smp2"));
    }

    #[test]
    fn the_junit_file_has_a_case_for_each_outcome() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("junit.xml");
        let mut results = Results::new(false);
        let outcome = |name: &str, verdict| Outcome {
            name: name.to_owned(),
            time: Duration::from_millis(5),
            verdict,
        };
        results
            .outcomes
            .push(outcome("guest/basic/test-io/a", Verdict::Passed));
        results.outcomes.push(outcome(
            "guest/basic/test-io/b",
            Verdict::Failed("x < 3\nmore".to_owned()),
        ));
        results.write_junit(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("tests=\"2\"") && text.contains("failures=\"1\""),
            "{text}"
        );
        assert!(text.contains("x &lt; 3"), "{text}");
    }

    #[test]
    fn nothing_run_is_no_success() {
        assert!(!Results::new(false).finish());
    }
}
