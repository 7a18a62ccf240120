// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the lab prints and writes about itself without a machine: completions, pages, and the summary of a test run that is cut short.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod common;

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::process::Stdio;

use common::command;
use rustix::process::Pid;
use rustix::process::Signal;

struct Outcome {
    status: i32,
    stdout: String,
    stderr: String,
}

/// The lab with this for `$XDG_CACHE_HOME`.
fn lab(cache: &Path, args: &[&str]) -> Outcome {
    let mut command = command(args);
    command.env("XDG_CACHE_HOME", cache).stdin(Stdio::null());
    let output = command.output().unwrap();
    Outcome {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn completions_and_man_pages_have_every_command_and_its_options() {
    let cache = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let outcome = lab(cache.path(), &["completions", shell]);
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        for word in ["fifo-lab", "grade", "driver-edition"] {
            assert!(outcome.stdout.contains(word), "{shell}: {word}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("new/man");
    let outcome = lab(cache.path(), &["man", pages.to_str().unwrap()]);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    let page = |name: &str| fs::read_to_string(pages.join(name)).unwrap();
    assert!(page("fifo-lab.1").contains("fifo\\-lab\\-run(1)"));
    assert!(page("fifo-lab-run.1").contains("\\-\\-share"));
    assert_eq!(lab(cache.path(), &["completions", "cmd.exe"]).status, 2);
    assert!(!cache.path().join("globalfifo").exists());
}

#[test]
fn an_interrupted_test_run_says_what_passed_and_what_was_not_reached() {
    let cache = tempfile::tempdir().unwrap();
    let mut lab = command(&["test", "host/"])
        .env("XDG_CACHE_HOME", cache.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(lab.stderr.take().unwrap());
    let mut lines = stderr.lines().map(Result::unwrap);
    lines
        .find(|line| line.starts_with("lab: cargo fmt"))
        .unwrap();
    rustix::process::kill_process(Pid::from_child(&lab), Signal::INT).unwrap();
    let output = lab.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("0 passed, 0 failed\n"), "{said}");
    assert!(
        said.contains("interrupted: 1 more were about to run\n"),
        "{said}"
    );
    let others = said.lines().last().unwrap();
    assert!(others.starts_with("not reached: "), "{said}");
    assert!(others.contains(" guest/late@smp2 "), "{said}");
}

#[test]
fn a_part_of_a_run_is_one_of_its_number() {
    let cache = tempfile::tempdir().unwrap();
    for bad in ["0/3", "4/3", "3"] {
        let outcome = lab(cache.path(), &["test", "--partition", bad, "--list"]);
        assert_eq!(outcome.status, 2, "{bad}: {}", outcome.stderr);
    }
    let outcome = lab(
        cache.path(),
        &["test", "--partition", "1/3", "--times", "/no/file"],
    );
    assert_eq!(outcome.status, 2, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("/no/file"), "{}", outcome.stderr);
}
