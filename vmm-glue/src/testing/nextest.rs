// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! cargo-nextest, which runs the host's tests where it is installed: each in a process of its own as the lab itself does, under the same limit. What
//! came of them is read from its JUnit file.
//!
//! It must not know what is tested.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use quick_junit::Report;
use quick_junit::TestCase;
use quick_junit::TestCaseStatus;

use super::libtest;
use super::libtest::Test;
use super::report::Outcome;
use super::report::Results;
use super::report::Verdict;
use crate::child;
use crate::child::Environment;
use crate::child::Spec;
use crate::scratch;
use crate::scratch::Scratch;

/// The command of cargo's.
pub const COMMAND: &str = "nextest";
/// The profile of its configuration.
const PROFILE: &str = "lab";
/// Words at the beginning of a line that tells the end of a test.
const RESULTS: [&str; 6] = ["PASS", "FAIL", "LEAK", "TIMEOUT", "SIG", "ABORT"];
/// Bytes of a filter that are still an argument: Linux takes 128 KiB.
const FILTER_MAX: usize = 100_000;

/// What came of a run, beside the results.
pub struct Ran {
    /// Tests of which nextest tells nothing.
    pub rest: Vec<Test>,
    /// What it printed.
    pub said: String,
}

/// Runs these tests, of `all` that there are, `at_once` at a time. `cargo` is cargo, in the workspace. After Ctrl-C, the results are those of the
/// tests that had ended.
pub fn run(
    cargo: Spec,
    tests: &[Test],
    (all, at_once): (usize, usize),
    results: &mut Results,
) -> Result<Ran> {
    let rest = |said: String| Ran {
        rest: tests.to_vec(),
        said,
    };
    let folder = Scratch::new(scratch::Kind::Test)?;
    let junit = folder.path().join("junit.xml");
    let config = folder.path().join("nextest.toml");
    let Some(text) = configuration(&junit) else {
        return Ok(rest(
            "its configuration cannot name a TMPDIR that is not UTF-8".to_owned(),
        ));
    };
    fs::write(&config, text).context("cannot write nextest's configuration")?;
    let mut spec = cargo
        .args([COMMAND, "run", "--workspace", "--no-fail-fast"])
        .args(["--profile", PROFILE, "--retries", "0"])
        .args(["--user-config-file", "none", "--no-input-handler"])
        .arg("--test-threads")
        .arg(at_once.to_string())
        .args(["--color", "never", "--show-progress", "none"])
        .args(["--status-level", "pass", "--final-status-level", "none"])
        .args(["--failure-output", "never", "--success-output", "never"])
        .arg("--config-file")
        .arg(&config)
        .environment(Environment::NotNextests)
        .env("RUST_BACKTRACE", "0");
    if tests.len() < all {
        let filter = filter(tests);
        if filter.len() > FILTER_MAX {
            return Ok(rest(
                "these are too many tests to name them one by one".to_owned(),
            ));
        }
        spec = spec.arg("--filterset").arg(filter);
    }
    let progress = results.progress();
    let mut ended = 0;
    let captured = child::capture_watched(&spec, limit(tests.len(), at_once), &mut |line| {
        if is_result(line) {
            ended += 1;
            progress(&format!(
                "cargo-nextest: {ended} of {} have ended",
                tests.len()
            ));
        }
    });
    let report = fs::read_to_string(&junit).unwrap_or_default();
    let (outcomes, rest) = outcomes(&report, tests);
    // Ctrl-C ends tests, too: these have not failed.
    let interrupted = captured.is_err();
    outcomes
        .into_iter()
        .filter(|outcome| !interrupted || outcome.verdict == Verdict::Passed)
        .for_each(|outcome| results.add(outcome));
    let captured = captured?;
    Ok(Ran {
        rest,
        said: captured.text,
    })
}

/// nextest limits each test; this is for one that hangs itself.
fn limit(tests: usize, at_once: usize) -> Duration {
    let turns = tests.div_ceil(at_once.max(1)) + 1;
    libtest::LIMIT * u32::try_from(turns).unwrap_or(u32::MAX)
}

/// Whether nextest tells the end of a test, as in `PASS [   0.003s] (1/9) device tests::x`.
fn is_result(line: &str) -> bool {
    line.split_once('[')
        .is_some_and(|(word, _)| RESULTS.iter().any(|result| word.contains(result)))
}

/// The lab's limit, and where the results go; nothing if that cannot be said in TOML. The grace period is less than the lab itself waits after Ctrl-C. What a test
/// leaves behind is limited as the test is.
fn configuration(junit: &Path) -> Option<String> {
    let path = toml::Value::String(junit.to_str()?.to_owned());
    let seconds = libtest::LIMIT.as_secs();
    Some(format!(
        "[profile.{PROFILE}]
slow-timeout = {{ period = \"{seconds}s\", terminate-after = 1, grace-period = \"300ms\" }}
leak-timeout = {{ period = \"10s\", result = \"fail\" }}

[profile.{PROFILE}.junit]
path = {path}
store-success-output = true
"
    ))
}

/// An expression for exactly these tests.
fn filter(tests: &[Test]) -> String {
    let mut programs: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for test in tests {
        let names = programs.entry(test.program_id()).or_default();
        names.push(format!("test(={})", test.own_name()));
    }
    let programs = programs
        .iter()
        .map(|(id, names)| format!("(binary_id(={id}) & ({}))", names.join(" | ")));
    programs.collect::<Vec<_>>().join(" | ")
}

/// What came of each test by a JUnit report, and the tests of which it tells nothing.
fn outcomes(report: &str, tests: &[Test]) -> (Vec<Outcome>, Vec<Test>) {
    let report = Report::deserialize_from_str(report);
    let mut cases = BTreeMap::new();
    for suite in report.iter().flat_map(|report| &report.test_suites) {
        for case in &suite.test_cases {
            cases.insert((suite.name.as_str(), case.name.as_str()), case);
        }
    }
    let (mut outcomes, mut rest) = (Vec::new(), Vec::new());
    for test in tests {
        match cases.get(&(test.program_id(), test.own_name())) {
            Some(case) => outcomes.push(Outcome {
                name: test.name.clone(),
                time: case.time.unwrap_or_default(),
                verdict: verdict(case),
            }),
            None => rest.push(test.clone()),
        }
    }
    (outcomes, rest)
}

fn verdict(case: &TestCase) -> Verdict {
    let why = match &case.status {
        // For nextest a status of 0 is a pass.
        TestCaseStatus::Success { .. } => {
            let said = [text(&case.system_out), text(&case.system_err)];
            return libtest::ended_well(&said.map(Option::unwrap_or_default).join("\n"));
        }
        TestCaseStatus::Skipped { .. } => "nextest has skipped it".to_owned(),
        // The type says it of a test that has not failed by itself, like one that leaves a process behind.
        TestCaseStatus::NonSuccess { message, ty, .. } => {
            text(message).or_else(|| text(ty)).unwrap_or_default()
        }
    };
    let said = [Some(why), text(&case.system_out), text(&case.system_err)];
    let said: Vec<_> = said
        .into_iter()
        .flatten()
        .filter(|text| !text.is_empty())
        .collect();
    Verdict::Failed(said.join("\n"))
}

fn text(output: &Option<quick_junit::XmlString>) -> Option<String> {
    Some(output.as_ref()?.as_str().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tests() -> Vec<Test> {
        [
            ("device", "a::tests::one"),
            ("device::ring", "two"),
            ("device::ring", "three"),
        ]
        .map(|(id, name)| Test::of(id, name))
        .to_vec()
    }

    #[test]
    fn a_filter_names_program_and_test() {
        assert_eq!(
            filter(&tests()),
            "(binary_id(=device) & (test(=a::tests::one))) | (binary_id(=device::ring) & (test(=two) | test(=three)))"
        );
    }

    #[test]
    fn only_what_the_report_calls_a_success_has_passed() {
        let text = r#"<testsuites name="nextest-run" tests="2" failures="1" errors="0">
            <testsuite name="device" tests="1" disabled="0" errors="0" failures="0">
                <testcase name="a::tests::one" classname="device" time="0.250">
                    <system-out>test result: ok. 1 passed; 0 failed</system-out>
                </testcase>
            </testsuite>
            <testsuite name="device::ring" tests="1" disabled="0" errors="0" failures="1">
                <testcase name="two" classname="device::ring" time="1.5">
                    <failure message="panicked at ring.rs:7" type="test failure"/>
                    <system-out>left: 1</system-out>
                </testcase>
            </testsuite></testsuites>"#;
        let (found, rest) = outcomes(text, &tests());
        assert_eq!(found[0].verdict, Verdict::Passed);
        assert_eq!(found[0].time, Duration::from_millis(250));
        let Verdict::Failed(why) = &found[1].verdict else {
            panic!("{:?}", found[1]);
        };
        assert!(
            why.contains("ring.rs:7") && why.contains("left: 1"),
            "{why}"
        );
        let rest: Vec<_> = rest.iter().map(Test::own_name).collect();
        assert_eq!(rest, ["three"]);
        for broken in ["", "<testsuites", "not XML"] {
            assert_eq!(outcomes(broken, &tests()).1.len(), 3, "{broken}");
        }
    }

    #[test]
    fn a_failure_without_a_message_says_its_type() {
        let text = r#"<testsuites name="nextest-run" tests="1" failures="0" errors="1">
            <testsuite name="device::ring" tests="1" disabled="0" errors="1" failures="0">
                <testcase name="two" classname="device::ring" time="1.5">
                    <error type="it leaked handles"/>
                    <system-out>test result: ok. 1 passed</system-out>
                </testcase>
            </testsuite></testsuites>"#;
        let (found, _) = outcomes(text, &tests());
        let Verdict::Failed(why) = &found[0].verdict else {
            panic!("{:?}", found[0]);
        };
        assert!(why.starts_with("it leaked handles\n"), "{why}");
    }

    #[test]
    fn a_line_that_tells_the_end_of_a_test_is_known() {
        for line in [
            "        PASS [   0.003s] (1/9) device a::tests::one",
            "        LEAK [   0.003s] (1/9) device a::tests::one",
            "     SIGTERM [   0.003s] (1/9) device a::tests::one",
        ] {
            assert!(is_result(line), "{line}");
        }
        for line in [
            "        SLOW [> 60.000s] ( ) device a",
            "Starting 9 tests",
            "",
        ] {
            assert!(!is_result(line), "{line}");
        }
    }

    #[test]
    fn the_configuration_quotes_its_path() {
        let text = configuration(Path::new("/a \"b\"/c")).unwrap();
        assert!(!text.contains("retries"), "{text}");
        let value: toml::Table = text.parse().unwrap();
        let path = value["profile"][PROFILE]["junit"]["path"].as_str();
        assert_eq!(path, Some("/a \"b\"/c"));
    }
}
