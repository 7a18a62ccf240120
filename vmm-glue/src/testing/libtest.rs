// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Test programs that rustc makes: what they hold, and running their tests one by one, each in a process of its own.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;

use super::report::Filter;
use super::report::Outcome;
use super::report::Results;
use super::report::Verdict;
use crate::child;
use crate::child::Captured;
use crate::child::Place;
use crate::child::Spec;

/// A test that takes longer hangs.
pub const LIMIT: Duration = Duration::from_secs(300);

/// What a program says whose one test has passed.
const PASSED: &str = "test result: ok. 1 passed";
/// What begins a line of a test that cannot run here; the reason follows.
const SKIP: &str = "# SKIP ";

/// A program full of tests.
#[derive(Debug, Clone)]
pub struct Program {
    /// Package and target, like `vhost-device-fifo/ring`.
    pub name: String,
    /// The executable.
    pub path: PathBuf,
    /// Its package's directory: tests run there.
    pub dir: PathBuf,
    /// Its package.
    pub package: String,
    /// What cargo-nextest calls it.
    id: String,
}

/// A test of a program.
#[derive(Debug, Clone)]
pub struct Test {
    /// The whole name.
    pub name: String,
    /// As its program knows it.
    own_name: String,
    program: Program,
}

impl Test {
    /// As its program knows it.
    pub fn own_name(&self) -> &str {
        &self.own_name
    }

    /// What cargo-nextest calls its program.
    pub fn program_id(&self) -> &str {
        &self.program.id
    }

    /// One of a program of this id.
    #[cfg(test)]
    pub fn of(id: &str, own_name: &str) -> Self {
        let program = Program {
            name: id.to_owned(),
            path: PathBuf::new(),
            dir: PathBuf::new(),
            package: id.to_owned(),
            id: id.to_owned(),
        };
        Self {
            name: own_name.to_owned(),
            own_name: own_name.to_owned(),
            program,
        }
    }
}

/// Whether `#[ignore]`d tests are meant, or the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Run by `cargo test`.
    Usual,
    /// Marked `#[ignore]`.
    Ignored,
}

/// The program that a line of cargo's build report tells of, if it holds tests.
pub fn program(line: &str) -> Option<Program> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    if !message.get("profile")?.get("test")?.as_bool()? {
        return None;
    }
    let path = PathBuf::from(message.get("executable")?.as_str()?);
    let dir = Path::new(message.get("manifest_path")?.as_str()?)
        .parent()?
        .to_owned();
    let target = message.get("target")?;
    let package = package(message.get("package_id")?.as_str()?);
    let (target_name, kind) = (
        target.get("name")?.as_str()?,
        target.get("kind")?.get(0)?.as_str()?,
    );
    let name = match kind {
        "lib" => package.clone(),
        "bin" if target_name == package => format!("{package}/main"),
        _ => format!("{package}/{target_name}"),
    };
    Some(Program {
        name,
        path,
        dir,
        id: id(&package, target_name, kind),
        package,
    })
}

/// What cargo-nextest calls a program (its "binary id").
fn id(package: &str, target: &str, kind: &str) -> String {
    match kind {
        "test" => format!("{package}::{target}"),
        "bin" | "example" | "bench" => format!("{package}::{kind}/{target}"),
        _ => package.to_owned(),
    }
}

/// `path+file:///home/you/globalfifo/device#vhost-device-fifo@0.1.0`, or `…/protocol#0.1.0` for a package named as its directory.
fn package(id: &str) -> String {
    let (path, rest) = id.rsplit_once('#').unwrap_or(("", id));
    match rest.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => path.rsplit('/').next().unwrap_or(rest).to_owned(),
    }
}

/// The tests of a program that a filter wants.
pub fn list(program: &Program, place: &str, kind: Kind, filter: &Filter) -> Result<Vec<Test>> {
    let ignored = names(program, &["--ignored"])?;
    let all = if kind == Kind::Ignored {
        ignored
    } else {
        names(program, &[])?
            .into_iter()
            .filter(|name| !ignored.contains(name))
            .collect()
    };
    let tests = all.into_iter().map(|own_name| Test {
        name: format!(
            "{place}/{}/{}",
            program.name,
            own_name.replace("::tests::", "::")
        ),
        own_name,
        program: program.clone(),
    });
    Ok(tests.filter(|test| filter.wants(&test.name)).collect())
}

fn names(program: &Program, more: &[&str]) -> Result<Vec<String>> {
    let spec = Spec::new(&program.path)
        .args(["--list", "--format", "terse"])
        .args(more)
        .cwd(&program.dir);
    let listed = child::output(&spec)?;
    Ok(listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect())
}

/// Runs tests, this many at a time.
pub fn run(tests: &[Test], at_once: usize, results: &mut Results) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failure = Mutex::new(None);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..at_once.max(1) {
            let (sender, next, failure) = (sender.clone(), &next, &failure);
            scope.spawn(move || {
                while let Some(test) = tests.get(next.fetch_add(1, Ordering::SeqCst)) {
                    match run_one(test) {
                        Ok(outcome) => drop(sender.send(outcome)),
                        Err(err) => {
                            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(err);
                            return;
                        }
                    }
                }
            });
        }
        drop(sender);
        receiver.iter().for_each(|outcome| results.add(outcome));
    });
    failure
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .map_or(Ok(()), Err)
}

fn run_one(test: &Test) -> Result<Outcome> {
    let spec = Spec::new(&test.program.path)
        .args([
            test.own_name.as_str(),
            "--exact",
            "--include-ignored",
            "--nocapture",
        ])
        .env("CARGO_MANIFEST_DIR", &test.program.dir)
        .env("RUST_BACKTRACE", "0")
        .cwd(&test.program.dir)
        .place(Place::Group);
    let started = Instant::now();
    let captured = child::capture(&spec, LIMIT)?;
    Ok(Outcome {
        name: test.name.clone(),
        time: started.elapsed(),
        verdict: verdict(&captured),
    })
}

/// Of a program that ended with 0 and said this: only a test that says so has passed. One that was not found, or that ended its process, has not.
pub fn ended_well(said: &str) -> Verdict {
    if !said.contains(PASSED) {
        return Verdict::Failed(format!("it ended without a result\n{said}"));
    }
    let reason = said.lines().find_map(|line| line.strip_prefix(SKIP));
    reason.map_or(Verdict::Passed, |reason| {
        Verdict::Skipped(reason.trim().to_owned())
    })
}

fn verdict(captured: &Captured) -> Verdict {
    match captured.status {
        None => Verdict::Failed(format!(
            "still running after {} s\n{}",
            LIMIT.as_secs(),
            captured.text
        )),
        Some(0) => ended_well(&captured.text),
        Some(_) => Verdict::Failed(captured.text.trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_ids_of_both_forms_give_the_name() {
        assert_eq!(
            package("path+file:///w/device#vhost-device-fifo@0.1.0"),
            "vhost-device-fifo"
        );
        assert_eq!(package("path+file:///w/protocol#0.1.0"), "protocol");
    }

    #[test]
    fn programs_have_the_names_that_nextest_gives_them() {
        assert_eq!(id("fifo-spec", "fifo_spec", "lib"), "fifo-spec");
        assert_eq!(id("fifo-lab", "boot", "test"), "fifo-lab::boot");
        assert_eq!(id("fifo-lab", "fifo-lab", "bin"), "fifo-lab::bin/fifo-lab");
    }

    #[test]
    fn only_an_explicit_pass_is_one() {
        let captured = |status, text: &str| Captured {
            status,
            text: text.to_owned(),
        };
        assert_eq!(
            verdict(&captured(Some(0), "test result: ok. 1 passed; 0 failed")),
            Verdict::Passed
        );
        let skipped = captured(
            Some(0),
            "running 1 test\n# SKIP no gdb: get it\ntest result: ok. 1 passed",
        );
        assert_eq!(
            verdict(&skipped),
            Verdict::Skipped("no gdb: get it".to_owned())
        );
        let failed = captured(Some(101), "# SKIP no gdb\ntest result: FAILED. 0 passed");
        assert!(matches!(verdict(&failed), Verdict::Failed(_)));
        assert!(matches!(
            verdict(&captured(Some(0), "test result: ok. 0 passed")),
            Verdict::Failed(_)
        ));
        assert!(matches!(
            verdict(&captured(Some(101), "panicked")),
            Verdict::Failed(_)
        ));
        assert!(matches!(verdict(&captured(None, "")), Verdict::Failed(_)));
    }
}
