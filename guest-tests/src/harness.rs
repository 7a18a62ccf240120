// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs tests one by one, each in a process of its own, and reports in KTAP version 1.
//!
//! A test is a function that returns an error or panics when the behaviour it names is broken. Own
//! processes keep signal handlers, descriptors and crashes of one test away from the next, and let a
//! test that hangs be ended.

use std::collections::BTreeSet;
use std::env;
use std::io::{Read, Write, stderr, stdout};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, setpgid};

/// A test: what it proves, and how.
pub type Test = (&'static str, fn() -> Result<()>);

/// How long a test may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How long a test may wait for something that must happen.
pub const SOON: Duration = Duration::from_secs(10);

/// Says by how much the guest's kernel is slower than usual; set by whoever boots it.
const ENV_PATIENCE: &str = "GLOBALFIFO_PATIENCE";

/// How many times as long as usual the kernel may take; 1 unless it is a slow one.
#[must_use]
pub fn patience() -> u32 {
    let patience = env::var(ENV_PATIENCE).ok();
    patience.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// A limit on how long the kernel may take: `usual`, and more on a slow kernel.
#[must_use]
pub fn limit(usual: Duration) -> Duration {
    usual.saturating_mul(patience())
}

/// Says which test a process of this program is to run; set by [`main`] for its children.
const ENV_TEST: &str = "GLOBALFIFO_TEST";

/// Exit status of a test that cannot say anything here, as the kernel's own tests have it.
const SKIPPED: u8 = 4;

/// Why a test cannot say anything on this machine: the error that it ends with then.
#[derive(Debug)]
pub struct Skip(pub &'static str);

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Skip {}

/// What became of a test that did not fail.
enum Outcome {
    /// With what it said on standard error.
    Passed(String),
    Skipped(String),
}

/// Runs the tests whose names contain one of the program's arguments, or all; lists them with `--list`.
pub fn main(tests: &[Test]) -> ExitCode {
    let filters: Vec<String> = env::args().skip(1).collect();
    main_with(tests, &filters, LIMIT, &[], "")
}

/// As [`main`], for a program whose arguments are more than filters: tests may take `limit`, and find
/// `arguments` as the program's own. Says `title` first, if there is one.
pub fn main_with(
    tests: &[Test],
    filters: &[String],
    limit: Duration,
    arguments: &[String],
    title: &str,
) -> ExitCode {
    if let Ok(name) = env::var(ENV_TEST) {
        return run_here(tests, &name);
    }
    if filters == ["--list"] {
        for (name, _) in tests {
            report(&format!("{name}\n"));
        }
        return ExitCode::SUCCESS;
    }
    let chosen: Vec<&Test> = tests
        .iter()
        .filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str())))
        .collect();
    let limit = self::limit(limit);
    report(&format!("KTAP version 1\n1..{}\n", chosen.len()));
    if !title.is_empty() {
        report(&format!("# {title}\n"));
    }
    let mut failed = 0;
    for (number, (name, _)) in (1..).zip(chosen) {
        let started = Instant::now();
        let outcome = run_apart(name, limit, arguments);
        let took = started.elapsed().as_millis();
        match outcome {
            Ok(Outcome::Passed(said)) => {
                for line in said.lines().filter(|line| line.starts_with("# ")) {
                    report(&format!("{line}\n"));
                }
                report(&format!("ok {number} {name} # {took} ms\n"));
            }
            Ok(Outcome::Skipped(why)) => report(&format!("ok {number} {name} # SKIP {why}\n")),
            Err(error) => {
                failed += 1;
                for line in format!("{error:#}").lines() {
                    report(&format!("# {line}\n"));
                }
                report(&format!("not ok {number} {name} # {took} ms\n"));
            }
        }
    }
    ExitCode::from(u8::from(failed > 0))
}

/// Fails the test with a message unless `left` equals `right`.
#[macro_export]
macro_rules! check_eq {
    ($left:expr, $right:expr $(,)?) => {{
        let (left, right) = (&$left, &$right);
        if left != right {
            anyhow::bail!(
                "{}:{}: {} is {left:?}, expected {right:?}",
                file!(),
                line!(),
                stringify!($left)
            );
        }
    }};
}

/// Fails the test with a message unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr $(,)?) => {
        if !$condition {
            anyhow::bail!(
                "{}:{}: not so: {}",
                file!(),
                line!(),
                stringify!($condition)
            );
        }
    };
}

/// Asks again and again until `condition` holds, for states that nothing announces (a task that has
/// fallen asleep, say). Fails when it does not in time.
pub fn eventually(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let soon = limit(SOON);
    let deadline = Instant::now() + soon;
    while !condition()? {
        if Instant::now() > deadline {
            bail!("did not happen within {} s: {what}", soon.as_secs());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn report(text: &str) {
    let mut out = stdout().lock();
    // Nobody to tell when the reader is gone; the exit status still says it.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn run_here(tests: &[Test], name: &str) -> ExitCode {
    let Some((_, test)) = tests.iter().find(|(candidate, _)| *candidate == name) else {
        return ExitCode::FAILURE;
    };
    match test() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "{error:?}");
            if error.is::<Skip>() {
                ExitCode::from(SKIPPED)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// Runs one test in a process group of its own, which is ended with it. Of what a test that passed said
/// on standard error, lines that begin with `# ` are reported.
fn run_apart(name: &str, limit: Duration, arguments: &[String]) -> Result<Outcome> {
    let mut child = Command::new(env::current_exe()?)
        .args(arguments)
        .env(ENV_TEST, name)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting the test")?;
    let group = Pid::from_raw(i32::try_from(child.id())?);
    // Too late only when the test is over already.
    let _ = setpgid(group, group);
    let mut pipe: OwnedFd = child.stderr.take().context("no pipe")?.into();
    let (said, timed_out) = collect(&mut pipe, limit)?;
    let _ = killpg(group, Signal::SIGKILL);
    if timed_out {
        let _ = kill(group, Signal::SIGKILL);
    }
    let status = child.wait().context("waiting for the test")?;
    let said = said.trim_end();
    if timed_out {
        bail!(
            "still running after {} s\n{said}{}",
            limit.as_secs(),
            restored()
        );
    }
    if status.code() == Some(i32::from(SKIPPED)) {
        return Ok(Outcome::Skipped(said.replace('\n', " ")));
    }
    if !status.success() {
        bail!("{status}\n{said}");
    }
    Ok(Outcome::Passed(said.to_owned()))
}

/// A test that was ended may have taken the driver away from the device: the tests after it find it there again. What could not be restored,
/// and why; nothing otherwise.
fn restored() -> String {
    match crate::system::restore() {
        Ok(()) => String::new(),
        Err(error) => format!("\nand the driver is not there any more: {error:#}"),
    }
}

/// Reads until the other side is closed or the time is over.
fn collect(pipe: &mut OwnedFd, limit: Duration) -> Result<(String, bool)> {
    let deadline = Instant::now() + limit;
    let mut said = Vec::new();
    let mut file = std::fs::File::from(pipe.try_clone()?);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        if left.is_zero() || poll(&mut fds, timeout)? == 0 {
            return Ok((String::from_utf8_lossy(&said).into_owned(), true));
        }
        let mut part = [0; 4096];
        match file.read(&mut part)? {
            0 => return Ok((String::from_utf8_lossy(&said).into_owned(), false)),
            n => said.extend_from_slice(part.get(..n).unwrap_or(&[])),
        }
    }
}

/// Open descriptors of this process, to find leaks.
pub fn open_descriptors() -> Result<BTreeSet<i32>> {
    let folder = std::fs::read_dir("/proc/self/fd")?;
    let own = folder
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    Ok(own)
}

/// A descriptor's number, for messages and for calls that take numbers.
pub fn number(fd: &impl AsRawFd) -> i32 {
    fd.as_raw_fd()
}
