// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Outcomes in words: a line for each rule while it runs, the summary, JSON and JUnit.
//!
//! It knows rules and outcomes. It must not know a machine.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use quick_junit::NonSuccessKind;
use quick_junit::Report;
use quick_junit::TestCase;
use quick_junit::TestCaseStatus;
use quick_junit::TestSuite;
use serde::Serialize;

use super::catalog::Catalog;
use super::catalog::Rule;
use super::lang::Lang;
use super::outcome::Outcome;
use super::outcome::Verdict;

/// All of a grading, as JSON has it.
#[derive(Debug, Serialize)]
pub struct Grading {
    /// What was graded, as the user wrote it.
    pub driver: String,
    /// On which kernel, `arm64-stock` on another architecture.
    pub kernel: String,
    /// Whether all selected M rules passed.
    pub passed: bool,
    /// A rule each, in the order in which they ran.
    pub rules: Vec<Outcome>,
    /// Why rules were not reached for which the driver is not to blame: then this is no verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The line of a rule that is over.
pub fn line(outcome: &Outcome) -> String {
    let class = if outcome.must { "M" } else { "O" };
    format!(
        "{:<11} {:>8.3} s  {class}  {}",
        outcome.verdict.word(),
        outcome.seconds,
        outcome.id
    )
}

impl Grading {
    /// Puts it together.
    pub fn new(driver: &Path, kernel: &str, rules: Vec<Outcome>) -> Self {
        let musts = || rules.iter().filter(|rule| rule.must);
        let passed = !rules.is_empty() && musts().all(|outcome| outcome.verdict == Verdict::Pass);
        Self {
            driver: shown(driver),
            kernel: kernel.to_owned(),
            passed,
            rules,
            error: None,
        }
    }

    /// The same, unless this is none, as one that is no verdict.
    pub fn without_a_verdict(self, error: Option<String>) -> Self {
        Self {
            passed: self.passed && error.is_none(),
            error,
            ..self
        }
    }

    fn with(&self, verdict: Verdict) -> Vec<&Outcome> {
        let rules = self.rules.iter();
        rules.filter(|rule| rule.verdict == verdict).collect()
    }

    /// Failures in full, what has no verdict, then the counts; `selected` are the rules that were to be tried.
    pub fn summary(&self, catalog: &Catalog, selected: &[&Rule]) -> String {
        let mut text = String::new();
        for outcome in self.with(Verdict::Fail) {
            text.push_str(&failure(outcome, catalog));
            text.push('\n');
        }
        let unreached = self.with(Verdict::Unreached);
        if let Some(first) = unreached.first() {
            let (names, why) = (names(&unreached), &first.seen);
            text.push_str(&match catalog.lang {
                Lang::En => format!("not reached: {names}, {why}\n"),
                Lang::Zh => format!("未执行（not reached）：{names}，{why}\n"),
            });
        }
        let absent = self.with(Verdict::Absent);
        if !absent.is_empty() {
            let word = match catalog.lang {
                Lang::En => "not there:",
                Lang::Zh => "未提供（not there）：",
            };
            for (names, why) in by_reason(&absent) {
                let why = if why.is_empty() {
                    String::new()
                } else {
                    format!(", {why}")
                };
                text.push_str(&format!("{word} {names}{why}\n"));
            }
        }
        let musts = selected.iter().filter(|rule| rule.must).count();
        let tried = self.rules.iter().filter(|outcome| outcome.must).count();
        let left = musts.saturating_sub(tried);
        if left > 0 {
            text.push_str(&match catalog.lang {
                Lang::En => format!("not tried yet: {left} M rules\n"),
                Lang::Zh => format!("尚未测试：{left} 条 M 规则\n"),
            });
        }
        text.push_str(&self.counts(catalog.lang));
        text
    }

    /// The last line.
    pub fn counts(&self, lang: Lang) -> String {
        let must = |verdict, must: bool| {
            let found = self.with(verdict);
            found.iter().filter(|rule| rule.must == must).count()
        };
        let all = self.rules.iter().filter(|rule| rule.must).count();
        let passed = must(Verdict::Pass, true);
        let [pass, fail, absent, unreached] = [
            Verdict::Pass,
            Verdict::Fail,
            Verdict::Absent,
            Verdict::Unreached,
        ]
        .map(|verdict| self.with(verdict).len());
        match lang {
            Lang::En => format!(
                "{passed} of {all} M rules passed; in all {pass} passed, {fail} failed, {absent} not there, {unreached} not reached"
            ),
            Lang::Zh => format!(
                "{all} 条 M 规则中通过 {passed} 条；总共通过 {pass} 条，失败 {fail} 条，未提供 {absent} 条，未执行 {unreached} 条"
            ),
        }
    }

    /// As JSON: a failure with what its rule has to say.
    pub fn json(&self, catalog: &Catalog) -> Result<String> {
        let mut value = serde_json::to_value(self).context("cannot put the JSON together")?;
        let told = value
            .get_mut("rules")
            .and_then(serde_json::Value::as_array_mut);
        for (told, outcome) in told.into_iter().flatten().zip(&self.rules) {
            let rule = catalog.rule_of(outcome);
            if let Some(rule) = rule.filter(|_| outcome.verdict == Verdict::Fail) {
                told["says"] = rule.says.as_str().into();
                for (word, text) in advice(rule, catalog) {
                    told[word] = text.into();
                }
            }
        }
        serde_json::to_string_pretty(&value).context("cannot put the JSON together")
    }

    /// As CI systems read it.
    pub fn junit(&self, catalog: &Catalog) -> Result<String> {
        let mut suite = TestSuite::new(self.driver.as_str());
        for outcome in &self.rules {
            let mut case = TestCase::new(outcome.id.as_str(), status(outcome, catalog));
            case.set_classname("grade")
                .set_time(Duration::try_from_secs_f64(outcome.seconds).unwrap_or_default());
            suite.add_test_case(case);
        }
        let mut report = Report::new("cargo lab grade");
        report.add_test_suite(suite);
        report
            .to_string()
            .context("cannot put the JUnit report together")
    }
}

/// How a driver is called: "." says nothing to who reads the results elsewhere.
fn shown(driver: &Path) -> String {
    let whole = driver
        .canonicalize()
        .ok()
        .filter(|_| driver.file_name().is_none());
    let name = whole.as_deref().and_then(Path::file_name);
    name.map_or_else(
        || driver.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// Names of outcomes with the same reason, and the reason, in the order in which it is first told.
fn by_reason<'a>(outcomes: &[&'a Outcome]) -> Vec<(String, &'a str)> {
    let mut reasons: Vec<&str> = Vec::new();
    for outcome in outcomes {
        if !reasons.contains(&outcome.seen.as_str()) {
            reasons.push(&outcome.seen);
        }
    }
    let named = |why: &'a str| {
        let some: Vec<_> = outcomes
            .iter()
            .copied()
            .filter(|rule| rule.seen == why)
            .collect();
        (names(&some), why)
    };
    reasons.into_iter().map(named).collect()
}

fn names(outcomes: &[&Outcome]) -> String {
    let names: Vec<_> = outcomes.iter().map(|rule| rule.id.as_str()).collect();
    names.join(" ")
}

fn status(outcome: &Outcome, catalog: &Catalog) -> TestCaseStatus {
    match outcome.verdict {
        Verdict::Pass => TestCaseStatus::success(),
        Verdict::Absent | Verdict::Unreached => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(format!("{}: {}", outcome.verdict.word(), outcome.seen));
            status
        }
        Verdict::Fail => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status
                .set_message(outcome.seen.as_str())
                .set_description(failure(outcome, catalog));
            status
        }
    }
}

/// What there is to say of an outcome, in the order in which it is read.
pub fn details(outcome: &Outcome) -> Vec<(&'static str, &str)> {
    [
        ("done", outcome.done.as_str()),
        ("expected", &outcome.expected),
        ("seen", &outcome.seen),
        ("kernel", &outcome.kernel),
        ("trace", &outcome.trace),
    ]
    .into_iter()
    .filter(|(_, text)| !text.is_empty())
    .collect()
}

/// What a rule has to say to who does not pass it.
pub fn advice(rule: &Rule, catalog: &Catalog) -> Vec<(&'static str, String)> {
    let lesson = rule.lesson.as_ref();
    let program = catalog.program(rule);
    let mut words = vec![("why", rule.why.clone()), ("hint", rule.hint.clone())];
    words.extend(lesson.map(|lesson| ("lesson", format!("cargo lab lesson {lesson}"))));
    words.push(("see", rule.source.clone()));
    words.extend(program.map(|_| ("test", format!("cargo lab grade --show {}", rule.id))));
    words
}

/// A failure in full: what happened, and what the rule has to say.
pub fn failure(outcome: &Outcome, catalog: &Catalog) -> String {
    let mut text = String::new();
    let rule = catalog.rule_of(outcome);
    let says = rule.map_or("", |rule| rule.says.as_str());
    text.push_str(&format!("{}: {says}\n", outcome.id));
    let advice = rule.map_or(Vec::new(), |rule| advice(rule, catalog));
    let advice = advice.iter().map(|(word, text)| (*word, text.as_str()));
    let words = details(outcome).into_iter().chain(advice);
    for (word, lines) in words {
        for (number, line) in lines.lines().enumerate() {
            text.push_str(&catalog.lang.margin(word, number == 0));
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::outcome::End;
    use super::*;

    fn outcome(id: &str, must: bool, end: End) -> Outcome {
        end.outcome(id, must, Duration::from_millis(5))
    }

    fn catalog() -> Catalog {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        Catalog::load(repository).unwrap()
    }

    fn grading() -> Grading {
        Grading::new(
            Path::new("fifo.c"),
            "stock",
            vec![
                outcome("read.data", true, End::pass()),
                outcome("read.wakes", true, End::fail("write", "5", "nothing <1>")),
                outcome("aio.read", false, End::of(Verdict::Absent)),
                outcome("wait.lost", true, End::unreached("no node")),
            ],
        )
    }

    #[test]
    fn an_optional_rule_that_fails_does_not_fail_the_driver() {
        let rules = vec![
            outcome("read.data", true, End::pass()),
            outcome("aio.read", false, End::fail("a", "b", "c")),
        ];
        assert!(Grading::new(Path::new("x"), "stock", rules).passed);
        assert!(!grading().passed);
        assert!(!Grading::new(Path::new("x"), "stock", Vec::new()).passed);
    }

    #[test]
    fn the_json_has_the_verdicts_that_the_lines_have() {
        let grading = grading();
        let value: serde_json::Value =
            serde_json::from_str(&grading.json(&catalog()).unwrap()).unwrap();
        let verdicts: Vec<_> = value["rules"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| rule["verdict"].as_str().unwrap())
            .collect();
        assert_eq!(verdicts, ["pass", "fail", "absent", "unreached"]);
        for (rule, word) in grading
            .rules
            .iter()
            .zip(["pass", "FAIL", "not there", "not reached"])
        {
            assert!(line(rule).starts_with(word), "{}", line(rule));
        }
    }

    #[test]
    fn a_failure_has_the_same_words_on_the_terminal_and_in_json_and_junit() {
        let (catalog, grading) = (catalog(), grading());
        let json: serde_json::Value =
            serde_json::from_str(&grading.json(&catalog).unwrap()).unwrap();
        let rules = json["rules"].as_array().unwrap();
        assert!(rules[0].get("hint").is_none(), "a rule that passed");
        let junit = grading.junit(&catalog).unwrap();
        let escapes = [
            ("&lt;", "<"),
            ("&gt;", ">"),
            ("&quot;", "\""),
            ("&apos;", "'"),
            ("&amp;", "&"),
        ];
        let junit =
            (escapes.iter()).fold(junit, |text, (escape, means)| text.replace(escape, means));
        let text = failure(&grading.rules[1], &catalog);
        let words = [
            "done", "expected", "seen", "says", "why", "hint", "see", "test",
        ];
        for word in words {
            let told = rules[1][word].as_str().unwrap();
            assert!(text.contains(told), "{word}: {text}");
            assert!(junit.contains(told), "{word}: {junit}");
        }
    }

    #[test]
    fn the_summary_explains_failures_and_counts_all() {
        let text = grading().summary(&catalog(), &[]);
        for part in [
            "expected  5",
            "seen      nothing",
            "hint",
            "see       read(2)",
            "not reached: wait.lost, no node",
            "not there: aio.read",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(text.ends_with(
            "1 of 3 M rules passed; in all 1 passed, 1 failed, 1 not there, 1 not reached"
        ));
    }

    #[test]
    fn rules_that_were_not_tried_are_counted_before_the_last_line() {
        let catalog = catalog();
        let selected = catalog.select(&["read.*".to_owned()]).unwrap();
        let musts = selected.iter().filter(|rule| rule.must).count();
        let rules = vec![outcome("read.data", true, End::fail("a", "b", "c"))];
        let text = Grading::new(Path::new("x"), "stock", rules).summary(&catalog, &selected);
        let lines: Vec<_> = text.lines().rev().collect();
        assert!(lines[0].starts_with("0 of 1 M rules passed"), "{text}");
        assert_eq!(lines[1], format!("not tried yet: {} M rules", musts - 1));
    }

    #[test]
    fn what_is_not_there_is_told_by_reason() {
        let absent = |id: &str, why: &str| outcome(id, false, End::absent(why));
        let rules = vec![
            absent("aio.read", "no io_submit"),
            absent("irq.counts", "no device"),
            absent("aio.write", "no io_submit"),
        ];
        let grading = Grading::new(Path::new("x"), "stock", rules);
        let text = grading.summary(&catalog(), &[]);
        assert!(
            text.starts_with(
                "not there: aio.read aio.write, no io_submit\nnot there: irq.counts, no device\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn the_current_folder_is_called_by_its_name() {
        let name = std::env::current_dir().unwrap();
        let name = name.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(shown(Path::new(".")), name);
        assert_eq!(shown(Path::new("a/b.c")), "a/b.c");
    }

    #[test]
    fn the_junit_file_has_a_case_for_each_rule() {
        let text = grading().junit(&catalog()).unwrap();
        assert!(
            text.contains("tests=\"4\"") && text.contains("failures=\"1\""),
            "{text}"
        );
        assert!(text.contains("nothing &lt;1&gt;"), "{text}");
    }
}
