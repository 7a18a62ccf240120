// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests on the host: formatting, lints, and every test that cargo builds.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;

use super::libtest;
use super::libtest::Kind;
use super::libtest::Program;
use super::libtest::Test;
use super::nextest;
use super::report::Filter;
use super::report::Outcome;
use super::report::Results;
use super::report::Verdict;
use crate::child;
use crate::child::Place;
use crate::child::Spec;
use crate::ui;

const PLACE: &str = "host";
/// A check or a build that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(1800);
/// What cargo says of a command that is not installed.
const NO_COMMAND: &str = "no such command";

/// What a check needs that cargo does not bring along, and how to get it.
enum Needs {
    Nothing,
    /// The command that cargo's arguments begin with.
    Command(&'static str),
    /// The standard library of another processor.
    Library(&'static str, &'static str),
}

/// The other processor that the host's side is compiled for.
const ARM64: &str = "aarch64-unknown-linux-gnu";

/// Formatting and lints of the workspace, the licences and sources of what it depends on, and whether it compiles for another processor: name,
/// cargo's arguments, and what else it takes.
const CHECKS: [(&str, &[&str], Needs); 6] = [
    ("rustfmt", &["fmt", "--all", "--check"], Needs::Nothing),
    (
        "clippy",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ],
        Needs::Nothing,
    ),
    (
        "arm64",
        &[
            "check",
            "--quiet",
            "--target",
            ARM64,
            "--package",
            env!("CARGO_PKG_NAME"),
            "--package",
            "fifo-lab-agent",
            "--package",
            "vhost-device-fifo",
            "--package",
            "fifo-testdriver",
            "--package",
            "globalfifo-guest-tests",
            // Else it wants a C compiler for that processor.
            "--features",
            "blake3/no_neon",
        ],
        Needs::Library(
            ARM64,
            "no standard library for arm64 here: rustup target add aarch64-unknown-linux-gnu",
        ),
    ),
    // As packages build the daemon: without fault injection.
    (
        "clippy-without-faults",
        &[
            "clippy",
            "-p",
            "vhost-device-fifo",
            "--no-default-features",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ],
        Needs::Nothing,
    ),
    // The library's own tests alone: a program built so would replace the one that the other tests start.
    (
        "without-faults",
        &[
            "test",
            "-p",
            "vhost-device-fifo",
            "--no-default-features",
            "--lib",
            "--quiet",
        ],
        Needs::Nothing,
    ),
    (
        "deny",
        &["deny", "--offline", "check", "licenses", "bans", "sources"],
        Needs::Command("no cargo-deny here: cargo install --locked cargo-deny"),
    ),
];

/// Runs those that are wanted.
pub fn checks(repository: &Path, filter: &Filter, results: &mut Results) -> Result<()> {
    for (name, args, needs) in CHECKS {
        let name = format!("{PLACE}/{name}");
        if filter.wants(&name) && !results.only_lists([name.clone()]) {
            results.expect(1);
            results.doing(&format!("cargo {}", args.join(" ")));
            let started = Instant::now();
            let verdict = match missing(repository, args, &needs)? {
                Some(missing) => Verdict::Skipped(missing.to_owned()),
                None => {
                    let captured = child::capture(&cargo(repository).args(args), LIMIT)?;
                    match captured.status {
                        Some(0) => Verdict::Passed,
                        _ => Verdict::Failed(crate::causes::excerpt(&captured.text, 60)),
                    }
                }
            };
            results.add(Outcome {
                name,
                time: started.elapsed(),
                verdict,
            });
        }
    }
    Ok(())
}

/// What is not here of what a check needs.
fn missing(repository: &Path, args: &[&str], needs: &Needs) -> Result<Option<&'static str>> {
    Ok(match needs {
        Needs::Command(how) if !has_command(repository, args)? => Some(how),
        Needs::Library(target, how) if !has_library(repository, target)? => Some(how),
        _ => None,
    })
}

/// Whether the compiler that cargo uses has the standard library of this target.
fn has_library(repository: &Path, target: &str) -> Result<bool> {
    let asked = cargo(repository).args(["rustc", "--quiet", "--package", "virtio-fifo-protocol"]);
    let asked = asked.args(["--target", target, "--", "--print", "target-libdir"]);
    let captured = child::capture(&asked, LIMIT)?;
    let folder = captured.text.lines().rfind(|line| line.starts_with('/'));
    Ok(folder.is_some_and(|folder| Path::new(folder).is_dir()))
}

/// Whether cargo has the command that these arguments begin with.
fn has_command(repository: &Path, args: &[&str]) -> Result<bool> {
    let asked = cargo(repository).args(args.iter().take(1)).arg("--version");
    Ok(child::capture(&asked, LIMIT)?.status == Some(0))
}

fn cargo(repository: &Path) -> Spec {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Spec::new(cargo).cwd(repository).place(Place::Group)
}

/// Builds the test programs of these packages (cargo's arguments that name them); a failure to build is a failed test.
pub fn build(repository: &Path, packages: &[&str], results: &mut Results) -> Result<Vec<Program>> {
    results.doing("building the tests");
    let started = Instant::now();
    let spec = cargo(repository).arg("test").args(packages);
    let spec = spec.args(["--no-run", "--message-format=json-render-diagnostics"]);
    let captured = child::capture(&spec, LIMIT)?;
    if captured.status != Some(0) {
        let said: Vec<&str> = captured
            .text
            .lines()
            .filter(|line| !line.starts_with('{'))
            .collect();
        let why = crate::causes::excerpt(&said.join("\n"), 60);
        results.add(Outcome {
            name: format!("{PLACE}/build"),
            time: started.elapsed(),
            verdict: Verdict::Failed(why),
        });
    }
    Ok(captured.text.lines().filter_map(libtest::program).collect())
}

/// Runs the usual tests of the programs, several at once: cargo-nextest does where it is installed.
pub fn run(
    repository: &Path,
    programs: &[Program],
    filter: &Filter,
    results: &mut Results,
) -> Result<()> {
    let mut tests = Vec::new();
    for program in programs {
        tests.extend(libtest::list(
            program,
            PLACE,
            Kind::Usual,
            &Filter::default(),
        )?);
    }
    let all = tests.len();
    tests.retain(|test| filter.wants(&test.name));
    if results.only_lists(tests.iter().map(|test| test.name.clone())) {
        return Ok(());
    }
    if tests.is_empty() {
        return Ok(());
    }
    results.expect(tests.len());
    let at_once = std::thread::available_parallelism().map_or(2, usize::from);
    let rest = by_nextest(repository, tests, all, at_once, results)?;
    if rest.is_empty() {
        return Ok(());
    }
    results.doing("running the host's tests");
    libtest::run(&rest, at_once, results)
}

/// Leaves tests to cargo-nextest if it is here; returns those that it has not run.
fn by_nextest(
    repository: &Path,
    tests: Vec<Test>,
    all: usize,
    at_once: usize,
    results: &mut Results,
) -> Result<Vec<Test>> {
    let asked = cargo(repository).args([nextest::COMMAND, "--version"]);
    let answer = child::capture(&asked, LIMIT)?;
    let (why, rest) = if answer.status == Some(0) {
        results.doing("running the host's tests by cargo-nextest");
        let ran = nextest::run(cargo(repository), &tests, (all, at_once), results)?;
        (ran.said, ran.rest)
    } else if answer.text.contains(NO_COMMAND) {
        return Ok(tests);
    } else {
        (answer.text, tests)
    };
    if !rest.is_empty() {
        ui::warn(&format!(
            "cargo-nextest has not run {} of the host's tests, so they are run without it; it said:\n{}",
            rest.len(),
            crate::causes::excerpt(&why, 10)
        ));
    }
    Ok(rest)
}

/// Documentation tests: rustdoc runs them itself, so their times are unknown.
pub fn doc_tests(repository: &Path, filter: &Filter, results: &mut Results) -> Result<()> {
    if results.only_lists([]) {
        let spec = cargo(repository).args(["test", "--workspace", "--doc", "--", "--list"]);
        let captured = child::capture(&spec, LIMIT)?;
        let listed = captured.text.lines();
        let names = listed
            .filter_map(|line| line.strip_suffix(": test"))
            .map(|name| format!("{PLACE}/doc/{name}"));
        results.only_lists(names.filter(|name| filter.wants(name)));
        return Ok(());
    }
    results.doing("running the documentation's tests");
    let captured = child::capture(
        &cargo(repository).args(["test", "--workspace", "--doc"]),
        LIMIT,
    )?;
    let mut found = Vec::new();
    for line in captured.text.lines() {
        let Some((name, verdict)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.rsplit_once(" ... "))
        else {
            continue;
        };
        let verdict = match verdict {
            "ok" => Verdict::Passed,
            _ if verdict.starts_with("ignored") => continue,
            _ => Verdict::Failed(crate::causes::excerpt(&captured.text, 40)),
        };
        found.push(Outcome {
            name: format!("{PLACE}/doc/{name}"),
            time: Duration::ZERO,
            verdict,
        });
    }
    let failed = found
        .iter()
        .any(|outcome| matches!(outcome.verdict, Verdict::Failed(_)));
    if captured.status != Some(0) && !failed {
        let why = crate::causes::excerpt(&captured.text, 40);
        found.push(Outcome {
            name: format!("{PLACE}/doc"),
            time: Duration::ZERO,
            verdict: Verdict::Failed(why),
        });
    }
    found
        .into_iter()
        .filter(|outcome| filter.wants(&outcome.name))
        .for_each(|outcome| results.add(outcome));
    Ok(())
}

/// The lab's own tests that boot machines: marked `#[ignore]` so that plain `cargo test` needs no set-up, run here one by one.
pub fn boot_tests(programs: &[Program], filter: &Filter, results: &mut Results) -> Result<()> {
    let mut tests = Vec::new();
    for program in programs
        .iter()
        .filter(|program| program.package == env!("CARGO_PKG_NAME"))
    {
        tests.extend(libtest::list(program, "lab", Kind::Ignored, filter)?);
    }
    if results.only_lists(tests.iter().map(|test| test.name.clone())) {
        return Ok(());
    }
    results.expect(tests.len());
    libtest::run(&tests, 1, results)
}

/// True if a directory has Rust files with documentation tests worth starting rustdoc for.
pub fn has_doc_tests(repository: &Path) -> bool {
    let sources = |part: &str| crate::key::files(&repository.join(part)).unwrap_or_default();
    [
        "protocol/src",
        "device/src",
        "vmm-glue/agent/src",
        "guest-tests/src",
    ]
    .iter()
    .flat_map(|part| sources(part))
    .any(|path: PathBuf| {
        std::fs::read_to_string(path).is_ok_and(|text| {
            text.lines()
                .map(str::trim_start)
                .any(|line| line.starts_with("/// ```") || line.starts_with("//! ```"))
        })
    })
}
