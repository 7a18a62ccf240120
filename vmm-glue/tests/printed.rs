// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the lab prints and writes about itself without a machine: completions, pages, the summary of a test run that is cut short, and what
//! comes of a run by cargo-nextest.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod common;

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

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
    let others = interrupted(&["test"]);
    assert!(others.contains(" guest/late@smp2 "), "{others}");
    // Of what was asked for.
    assert_eq!(interrupted(&["test", "host/"]), "not reached: host");
}

/// The last line of a run that is interrupted in its first check.
fn interrupted(words: &[&str]) -> String {
    let cache = tempfile::tempdir().unwrap();
    let mut lab = command(words)
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
    others.to_owned()
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

/// A program of two tests, and a cargo that brings a cargo-nextest: `nextest` is what a shell does for `cargo nextest run`, with the JUnit file's
/// path in `$junit`.
fn fake_cargo(dir: &Path, version: &str, nextest: &str) -> Command {
    let script = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    };
    let program = script(
        "program",
        r#"case "$*" in
           *--list*--ignored*) ;;
           *--list*) printf 'one: test\ntwo: test\n' ;;
           *) echo "test result: ok. 1 passed" ;;
           esac"#,
    );
    let artifact = format!(
        r#"{{"package_id":"path+file:///w#fake@0.1.0","manifest_path":"{}/Cargo.toml","target":{{"name":"fake","kind":["lib"]}},"profile":{{"test":true}},"executable":"{program}"}}"#,
        dir.display()
    );
    let cargo = script(
        "cargo",
        &format!(
            r#"case "$*" in
               *--no-run*) echo '{artifact}' ;;
               "nextest --version") {version} ;;
               nextest*) echo "$* [$NEXTEST_RETRIES]" >'{dir}/asked'
                   config=${{*##*--config-file }}
                   junit=$(sed -n 's/^path = "\(.*\)"$/\1/p' "${{config%% *}}")
                   {nextest} ;;
               esac"#,
            dir = dir.display()
        ),
    );
    let mut command = command(&["test", "host/fake/"]);
    command
        .env("CARGO", cargo)
        .env("XDG_CACHE_HOME", dir.join("cache"))
        .env("NEXTEST_RETRIES", "3")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A JUnit file of nextest's with these cases.
fn junit(cases: &str) -> String {
    format!(
        r#"echo '<testsuites name="nextest-run" tests="1" failures="0" errors="0"><testsuite name="fake" tests="1" disabled="0" errors="0" failures="0">{cases}</testsuite></testsuites>' >"$junit""#
    )
}

const ONE: &str = r#"<testcase name="one" classname="fake" time="12.5"><system-out>test result: ok. 1 passed</system-out></testcase>"#;
const TWO: &str = r#"<testcase name="two" classname="fake" time="0.5"><failure message="left is 1" type="test failure"/><system-err>right is 2</system-err></testcase>"#;

#[test]
fn nextest_runs_the_hosts_tests_once_each_and_its_failures_are_told_whole() {
    let dir = tempfile::tempdir().unwrap();
    let nextest = junit(&format!("{ONE}{TWO}"));
    let output = fake_cargo(dir.path(), "true", &format!("{nextest}; exit 100"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [
        "ok        12.500 s  host/fake/one\n",
        "FAILED     0.500 s  host/fake/two\n",
        "left is 1",
        "right is 2",
        "1 passed, 1 failed",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let asked = fs::read_to_string(dir.path().join("asked")).unwrap();
    for part in ["--retries 0", "--user-config-file none", "[]"] {
        assert!(asked.contains(part), "no {part:?} in {asked}");
    }
}

/// Not installed is no fault.
#[test]
fn what_nextest_does_not_run_is_run_without_it_and_told() {
    let two_left = junit(ONE);
    let cases = [
        ("true", two_left.as_str(), "has not run 1 of"),
        ("true", "echo boom; exit 96", "boom"),
        ("true", "kill -9 $$", "has not run 2 of"),
        ("echo boom; exit 1", "exit 9", "boom"),
        (
            "echo 'error: no such command: `nextest`'; exit 101",
            "exit 9",
            "",
        ),
    ];
    for (version, nextest, warning) in cases {
        let dir = tempfile::tempdir().unwrap();
        let output = fake_cargo(dir.path(), version, nextest).output().unwrap();
        let (said, warned) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(said.contains("2 passed, 0 failed"), "{said}{warned}");
        assert_eq!(output.status.code(), Some(0), "{said}{warned}");
        assert_eq!(
            warned.contains("warning: "),
            !warning.is_empty(),
            "{warned}"
        );
        assert!(warned.contains(warning), "no {warning:?} in {warned}");
    }
}

/// nextest gives each test a process group of its own and ends it when it is asked to end itself.
#[test]
fn nothing_that_nextest_has_started_outlives_a_lab_that_is_ended() {
    for signal in [Signal::INT, Signal::KILL] {
        let dir = tempfile::tempdir().unwrap();
        let nextest = format!(
            r#"setsid sleep 1000 & trap "kill $!; exit 100" TERM; {}; echo $! >'{}'; wait"#,
            junit(&format!("{ONE}{TWO}")),
            dir.path().join("pid").display()
        );
        let mut lab = fake_cargo(dir.path(), "true", &nextest).spawn().unwrap();
        let pid = loop {
            let pid = fs::read_to_string(dir.path().join("pid")).unwrap_or_default();
            if let Ok(pid) = pid.trim().parse::<i32>() {
                break pid;
            }
            assert!(lab.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(10));
        };
        rustix::process::kill_process(Pid::from_child(&lab), signal).unwrap();
        let output = lab.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        if signal == Signal::INT {
            assert_eq!(output.status.code(), Some(130), "{said}");
            assert!(said.contains("1 passed, 0 failed"), "{said}");
            assert!(said.contains("interrupted: 1 more"), "{said}");
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        let state = format!("/proc/{pid}/stat");
        let gone = || !fs::read_to_string(&state).is_ok_and(|stat| !stat.contains(") Z "));
        while !gone() {
            assert!(
                Instant::now() < deadline,
                "{signal:?}: sleep is still there"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// As one that `cargo install` has put elsewhere.
#[test]
fn an_installed_lab_says_where_its_repository_is_or_was() {
    let dir = tempfile::tempdir().unwrap();
    let installed = dir.path().join("fifo-lab");
    fs::copy(env!("CARGO_BIN_EXE_fifo-lab"), &installed).unwrap();
    let other = dir.path().join("other");
    for file in ["images/tree.toml", "vmm-glue/Cargo.toml"] {
        let path = other.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let run = |script: &str, cwd: &Path| {
        let output = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", script, "sh"])
            .args([&installed, repository])
            .env("XDG_CACHE_HOME", dir.path().join("cache"))
            .current_dir(cwd)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let plan = r#""$1" -q run --dry-run"#;
    assert_eq!(run(plan, dir.path()), (Some(0), String::new()));
    assert_eq!(
        run(plan, &repository.join("docs")),
        (Some(0), String::new())
    );
    let (status, said) = run(plan, &other.join("images"));
    assert_eq!(status, Some(0), "{said}");
    for part in [
        "warning: ",
        repository.to_str().unwrap(),
        other.to_str().unwrap(),
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let hidden = format!(r#"mount -t tmpfs lab "$2" && {plan}"#);
    let (status, said) = run(&hidden, dir.path());
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains(&format!("is not at {} any more", repository.display())));
    assert!(
        said.contains("cargo install --locked --path vmm-glue"),
        "{said}"
    );
}
