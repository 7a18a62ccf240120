// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab grade` as a user has it: what it prints and writes, a class in one go, grading again after a save, and nothing left behind. They
//! boot machines or need the Debian tree, so `cargo lab test` runs them below lab/.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod common;

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::WaitOptions;

struct Outcome {
    status: i32,
    stdout: String,
    stderr: String,
}

/// Grades with a directory for temporary files that is empty before and has to be afterwards; no process and no mount may be left either.
fn grade(args: &[&str]) -> Outcome {
    rustix::process::set_child_subreaper(Some(Pid::INIT)).unwrap();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let output = common::command(&[&["grade"], args].concat())
        .env("TMPDIR", temporary.path())
        .output()
        .unwrap();
    let left: Vec<_> = fs::read_dir(temporary.path()).unwrap().collect();
    assert!(left.is_empty(), "left in TMPDIR: {left:?}");
    assert_eq!(fs::read_to_string("/proc/self/mounts").unwrap(), mounts);
    // Orphans of the lab are this process's children now; one that has been killed may take a moment to end.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Err(rustix::io::Errno::CHILD) => break,
            Ok(None) if Instant::now() > deadline => panic!("a process is left"),
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Ok(Some(_)) | Err(_) => {}
        }
    }
    Outcome {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn textbook() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../grader/mutants/textbook.c");
    fs::read_to_string(path).unwrap()
}

/// That of a write: no reader hears of it.
fn textbook_without_its_last_wake_up() -> String {
    let text = textbook();
    let (before, after) = text
        .rsplit_once("wake_up_interruptible(&dev->wait);")
        .unwrap();
    format!("{before}{after}")
}

fn write(path: &Path, text: &str) -> String {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    path.display().to_string()
}

#[test]
#[ignore = "boots a guest"]
fn a_driver_that_oopses_has_one_clear_verdict_on_the_terminal_and_in_json_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let text = textbook().replace("dev->current_len = 0;", "*(volatile int *)NULL = 0;");
    let path = write(&dir.path().join("a class/my driver.c"), &text);
    let json = dir.path().join("out.json").display().to_string();
    let rules = [
        "--rule",
        "clear.empties",
        "--rule",
        "read.data",
        "--rule",
        "kernel.alive",
    ];
    let found = grade(&[&[path.as_str(), "--json", &json], rules.as_slice()].concat());
    assert_eq!(found.status, 1, "{}", found.stderr);
    let line = text
        .lines()
        .position(|line| line.contains("volatile"))
        .unwrap()
        + 1;
    let place = format!("in fifo_ioctl(), {path}:{line}");
    for part in [
        &place,
        "NULL pointer dereference",
        "hint",
        "0 of 3 M rules passed; in all 0 passed, 3 failed",
    ] {
        assert!(found.stdout.contains(part), "no {part:?}: {}", found.stdout);
    }
    let value = fs::read_to_string(json).unwrap();
    let value: serde_json::Value = serde_json::from_str(&value).unwrap();
    let rules = value["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 3);
    for rule in rules {
        let word = match rule["verdict"].as_str().unwrap() {
            "pass" => "pass",
            "fail" => "FAIL",
            other => panic!("{other}"),
        };
        let id = rule["id"].as_str().unwrap();
        let line = found
            .stdout
            .lines()
            .find(|line| line.ends_with(&format!("  {id}")));
        assert!(line.unwrap().starts_with(word), "{id}: {}", found.stdout);
    }
}

/// The driver has no virtio device: its timeline has the guest's calls alone.
#[test]
#[ignore = "boots a guest"]
fn a_rule_that_fails_has_its_timeline_as_a_page_and_one_that_passes_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let text = textbook_without_its_last_wake_up();
    let path = write(&dir.path().join("driver.c"), &text);
    let name = |file: &str| dir.path().join(file).display().to_string();
    let (json, html, traces) = (name("out.json"), name("out.html"), name("traces"));
    let args = [
        &path,
        "--json",
        &json,
        "--html",
        &html,
        "--trace",
        &traces,
        "--rule",
        "read.data",
        "--rule",
        "read.wakes",
    ];
    let found = grade(&args);
    assert_eq!(found.status, 1, "{}{}", found.stdout, found.stderr);
    let page = format!("{traces}/read.wakes.html");
    assert!(found.stdout.contains(&page), "{}", found.stdout);
    let value: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    let rules = value["rules"].as_array().unwrap();
    let of = |id: &str| rules.iter().find(|rule| rule["id"] == id).unwrap();
    assert_eq!(of("read.wakes")["trace"], page.as_str());
    assert_eq!(of("read.data").get("trace"), None);
    let report = fs::read_to_string(html).unwrap();
    assert!(
        report.contains(r#"href="traces/read.wakes.html""#),
        "{report}"
    );
    let pages: Vec<_> = fs::read_dir(&traces).unwrap().collect();
    assert_eq!(pages.len(), 1, "{pages:?}");
    let page = fs::read_to_string(page).unwrap();
    assert!(
        page.contains("\nsys_read") && page.contains("trace of read.wakes"),
        "a page without calls"
    );
}

#[test]
#[ignore = "boots a guest"]
fn a_class_is_graded_into_one_table_each_entry_on_a_machine_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let class = dir.path().join("class");
    write(&class.join("anna.c"), &textbook());
    write(&class.join("bert/Makefile"), "all:\n\tfalse\n");
    write(&class.join("carl/notes.txt"), "nothing to build");
    let output = dir.path().join("grades");
    let (class, out) = (class.display().to_string(), output.display().to_string());
    let args = [
        "--batch",
        &class,
        "--output",
        &out,
        "--rule",
        "read.data",
        "--rule",
        "build.*",
    ];
    let found = grade(&args);
    assert_eq!(found.status, 1, "{}", found.stderr);
    assert!(
        found.stdout.contains("1 of 3 pass every M rule"),
        "{}",
        found.stdout
    );
    let table = fs::read_to_string(output.join("table.csv")).unwrap();
    let verdicts: Vec<_> = table
        .lines()
        .skip(1)
        .map(|line| line.split(',').take(2).collect::<Vec<_>>())
        .collect();
    assert_eq!(
        verdicts,
        [
            ["anna.c", "passed"],
            ["bert", "failed"],
            ["carl", "not graded"]
        ],
        "{table}"
    );
    assert!(table.contains("no Kbuild and no Makefile"), "{table}");
    let page = fs::read_to_string(output.join("table.html")).unwrap();
    assert!(page.contains("./anna.c.html") && output.join("anna.c.html").is_file());
    // A part has only its entries, and adds to the table that is there.
    fs::remove_file(output.join("bert.json")).unwrap();
    let found = grade(&[&args, ["--partition", "2/3"].as_slice()].concat());
    assert!(
        found.stdout.contains("0 of 1 pass every M rule"),
        "{}",
        found.stdout
    );
    assert_eq!(
        fs::read_to_string(output.join("table.csv"))
            .unwrap()
            .lines()
            .count(),
        4
    );
}

#[test]
#[ignore = "needs the Debian tree"]
fn a_watched_source_is_graded_again_when_it_is_saved_and_ctrl_c_ends_that() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo.c");
    write(&path, "#error the first text\n");
    let args = [
        "grade",
        "--watch",
        "--rule",
        "build.compiles",
        path.to_str().unwrap(),
    ];
    let mut child = common::command(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut graded = || {
        lines
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.contains("M rules passed"))
            .unwrap()
    };
    assert!(graded().starts_with("0 of 1 M rules passed"));
    // As editors do it: a new file in the place of the old one.
    let new = dir.path().join("new");
    write(
        &new,
        "#include <linux/module.h>\nMODULE_LICENSE(\"GPL\");\nMODULE_DESCRIPTION(\"nothing\");\n",
    );
    fs::rename(new, &path).unwrap();
    assert!(graded().starts_with("1 of 1 M rules passed"));
    rustix::process::kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// A limit of memory under which QEMU or a file server cannot start stands for a host on which no guest comes up.
#[test]
#[ignore = "needs the Debian tree"]
fn a_machine_that_does_not_come_up_is_no_verdict_and_is_told_as_that() {
    let dir = tempfile::tempdir().unwrap();
    let class = dir.path().join("class");
    write(&class.join("anna.c"), &textbook());
    let path = class.join("anna.c").display().to_string();
    // What has to be built needs more memory.
    let built = grade(&[&path, "--rule", "build.compiles"]);
    assert_eq!(built.status, 0, "{}", built.stderr);
    let limited = |args: &[&str]| {
        let lab = env!("CARGO_BIN_EXE_fifo-lab");
        std::process::Command::new("bash")
            .args(["-c", "ulimit -v 1000000; exec \"$@\"", "bash", lab, "grade"])
            .args(["--rule", "build.compiles", "--rule", "read.data"])
            .args(args)
            .env("LC_ALL", "C")
            .output()
            .unwrap()
    };
    let json = dir.path().join("out.json");
    let output = limited(&[&path, "--json", json.to_str().unwrap()]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stdout}{stderr}");
    assert!(
        stdout.contains("not reached: read.data, no machine came up: "),
        "{stdout}"
    );
    assert!(stdout.contains("1 passed, 0 failed"), "{stdout}");
    assert!(stderr.contains("no verdict on the driver"), "{stderr}");
    let value = fs::read_to_string(json).unwrap();
    let value: serde_json::Value = serde_json::from_str(&value).unwrap();
    assert_eq!(value["passed"], false);
    assert!(!value["error"].as_str().unwrap().is_empty(), "{value}");
    let table = dir.path().join("grades");
    let output = limited(&[
        "--batch",
        class.to_str().unwrap(),
        "--output",
        table.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    let rows = fs::read_to_string(table.join("table.csv")).unwrap();
    assert!(rows.contains("anna.c,not graded,"), "{rows}");
}
