// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Drivers of the user's: built from source, sandboxed, loaded by `--driver`, with a node where they make none, and one clear error where they
//! do not load. They boot machines, so `cargo lab test` runs them below lab/.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod common;

use std::fs;
use std::path::Path;
use std::path::PathBuf;

struct Outcome {
    status: i32,
    stdout: String,
    stderr: String,
}

fn run(args: &[&str]) -> Outcome {
    let output = common::command(args).output().unwrap();
    Outcome {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn sample(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/drivers")
        .join(name);
    path.display().to_string()
}

fn textbook() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/textbook")
}

#[test]
#[ignore = "boots a guest"]
fn a_textbook_driver_from_its_folder_is_built_loaded_and_does_what_a_fifo_must() {
    let folder = textbook().display().to_string();
    let script = fs::read_to_string(sample("textbook.py")).unwrap();
    let found = run(&[
        "run", "--driver", &folder, "--fifo", "none", "--", "python3", "-c", &script,
    ]);
    assert_eq!(
        (found.status, found.stdout.trim()),
        (0, "all is well"),
        "{}",
        found.stderr
    );
    assert!(
        !found.stderr.contains("the guest's kernel says"),
        "{}",
        found.stderr
    );
}

#[test]
#[ignore = "boots a guest"]
fn a_driver_without_a_class_gets_a_node_from_its_major_and_its_parameters() {
    let script =
        "test -c /dev/bare && readlink /dev/globalfifo && cat /sys/module/bare/parameters/answer";
    let driver = sample("bare.c");
    let args = [
        "run",
        "--driver",
        &driver,
        "--driver-arg",
        "answer=42",
        "--driver-arg",
        "nosuch=1",
        "--fifo",
        "none",
        "--",
        "sh",
        "-c",
        script,
    ];
    let found = run(&args);
    assert_eq!(
        (found.status, found.stdout.as_str()),
        (0, "/dev/bare\n42\n"),
        "{}",
        found.stderr
    );
    assert!(
        found
            .stderr
            .contains("the driver bare has no parameter nosuch"),
        "{}",
        found.stderr
    );
}

#[test]
#[ignore = "boots a guest"]
fn a_driver_that_does_not_load_is_one_error_in_the_kernels_words() {
    for (driver, words) in [
        (
            "fails.c",
            [
                "the driver fails does not load",
                "fails: the test's own reason",
                "No such device",
            ],
        ),
        (
            "oopses.c",
            [
                "the driver oopses does not load",
                "NULL pointer dereference",
                "oopses_init",
            ],
        ),
        (
            "hangs.c",
            [
                "the driver hangs does not load",
                "has not returned after 20 s",
                "hangs_init",
            ],
        ),
    ] {
        let found = run(&[
            "run",
            "--driver",
            &sample(driver),
            "--fifo",
            "none",
            "--",
            "true",
        ]);
        assert_eq!(
            (found.status, found.stdout.as_str()),
            (125, ""),
            "{driver}: {}",
            found.stderr
        );
        for word in words {
            assert!(
                found.stderr.contains(word),
                "{driver}: no {word:?} in {}",
                found.stderr
            );
        }
    }
}

#[test]
#[ignore = "needs the Debian tree"]
fn a_strangers_makefile_reaches_nothing_of_the_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "x").unwrap();
    let folder = dir.path().join("a folder");
    fs::create_dir(&folder).unwrap();
    let secret = secret.display();
    // Each line fails in the sandbox; what succeeds is said.
    let makefile = format!(
        "all:\n\
         \t@if cat '{secret}' 2>&1; then echo REACHED a file; fi\n\
         \t@if touch /usr/x /lab/kernel/build/x 2>&1; then echo REACHED the tree; fi\n\
         \t@if ls /home /work 2>&1; then echo REACHED home; fi\n\
         \t@if grep -v -e lo: -e face -e Inter /proc/net/dev; then echo REACHED a network; fi\n\
         \t@if grep '^CapEff.*[1-9a-f]' /proc/self/status; then echo REACHED rights; fi\n\
         \t@echo tried everything; touch here; false\n"
    );
    fs::write(folder.join("Makefile"), makefile).unwrap();
    let found = run(&["module", &folder.display().to_string()]);
    assert_eq!(found.status, 1, "{}", found.stderr);
    assert!(
        found.stderr.contains("tried everything"),
        "{}",
        found.stderr
    );
    assert!(!found.stderr.contains("REACHED"), "{}", found.stderr);
    assert!(!folder.join("here").exists());
}

#[test]
#[ignore = "needs the Debian tree"]
fn a_change_since_the_book_is_explained_under_the_compilers_message_with_the_users_path() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("old driver.c");
    let history = Path::new(env!("CARGO_MANIFEST_DIR")).join("history/samples/ioctl");
    fs::copy(history.join("before.c"), &file).unwrap();
    let path = file.display().to_string();
    let found = run(&["module", &path]);
    assert_eq!(found.status, 1, "{}", found.stderr);
    let lines: Vec<&str> = found.stderr.lines().collect();
    let at = lines
        .iter()
        .position(|line| line.contains("no member named 'ioctl'"));
    let at = at.unwrap_or_else(|| panic!("{}", found.stderr));
    assert!(lines[at].starts_with(&format!("{path}:")), "{}", lines[at]);
    assert!(
        lines[at + 1].contains("since Linux 2.6.36"),
        "{}",
        lines[at + 1]
    );
    // The mended one is built, and the second time nothing is done.
    let mended = fs::read_to_string(history.join("after.c")).unwrap();
    fs::write(&file, format!("{mended}/* never built before: {path} */\n")).unwrap();
    let module = dir.path().join("new.ko").display().to_string();
    for second in [false, true] {
        let found = run(&["module", &path, "-o", &module]);
        assert_eq!(found.status, 0, "{}", found.stderr);
        assert_eq!(
            found.stderr.contains("unchanged"),
            second,
            "{}",
            found.stderr
        );
        assert!(fs::read(&module).unwrap().starts_with(b"\x7fELF"));
    }
}
