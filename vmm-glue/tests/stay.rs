// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Machines that stay: `up`, `exec`, `ps`, `down`, `console`. Tests that boot are run by `cargo lab test`; each has a machine of its own name.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]
#![expect(
    clippy::indexing_slicing,
    reason = "a test's helpers fail as the test does"
)]

mod common;
#[path = "common/pty.rs"]
mod pty;

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Instant;

use common::command;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::termios::SpecialCodeIndex;

use crate::pty::Terminal;

/// What a test says that cannot run here, for `cargo lab test` to report it as skipped.
const SKIP: &str = "# SKIP ";

/// A machine, ended with the test that failed.
struct Machine {
    name: String,
    /// Temporary directories of its own.
    tmp: tempfile::TempDir,
}

impl Machine {
    fn up(name: &str, options: &[&str]) -> Self {
        let machine = Self {
            name: format!("test-{name}-{}", std::process::id()),
            tmp: tempfile::tempdir().unwrap(),
        };
        let output = machine.command(&["up"], options).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stderr(&output), "");
        machine
    }

    fn command(&self, words: &[&str], rest: &[&str]) -> Command {
        let mut command = command(&["-q"]);
        command
            .args(words)
            .arg(&self.name)
            .args(rest)
            .env("TMPDIR", self.tmp.path())
            .stdin(Stdio::null());
        command
    }

    fn exec(&self, words: &[&str]) -> Command {
        self.command(&["exec"], &[&["--"], words].concat())
    }

    /// Starts a command of which everything is piped.
    fn start(&self, words: &[&str]) -> Child {
        self.exec(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// What `ps` says of it: state, since, pid, commands, and the words of the idle time.
    fn ps(&self) -> Vec<String> {
        let output = command(&["ps"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        text.lines()
            .map(words)
            .find(|words: &Vec<String>| words[0] == self.name)
            .map(|words| words[1..].to_vec())
            .unwrap_or_default()
    }

    fn keeper(&self) -> Pid {
        Pid::from_raw(self.ps()[2].parse().unwrap()).unwrap()
    }

    /// Ids of all processes that have a file of this machine's open: its lock, or something in its directories.
    fn processes(&self) -> Vec<i32> {
        let lock = format!("machines/{}/", self.name);
        let tmp = self.tmp.path().to_str().unwrap().to_owned();
        let open = |process: &Path| {
            entries(&process.join("fd")).iter().any(|fd| {
                fs::read_link(fd).is_ok_and(|target| {
                    let target = target.to_string_lossy();
                    target.contains(&lock) || target.starts_with(&tmp)
                })
            })
        };
        let all = entries(Path::new("/proc")).into_iter();
        all.filter(|process| open(process))
            .filter_map(|process| process.file_name()?.to_str()?.parse().ok())
            .collect()
    }

    fn down(&self) {
        let output = self.command(&["down"], &[]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        self.assert_that_nothing_is_left();
    }

    fn assert_that_nothing_is_left(&self) {
        assert_eq!(self.processes(), [] as [i32; 0]);
        assert_eq!(self.ps(), [] as [&str; 0]);
        assert_eq!(entries(self.tmp.path()), [] as [PathBuf; 0]);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It has ended already, unless the test has failed.
        let _ = self.command(&["down"], &[]).output();
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .map(|found| found.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line
}

fn signal(child: &Child, signal: Signal) {
    rustix::process::kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn a_machine_that_is_not_there_is_told_with_the_command_that_starts_it() {
    let dir = tempfile::tempdir().unwrap();
    let said = |words: &[&str]| {
        let mut command = command(words);
        let output = command.env("XDG_CACHE_HOME", dir.path()).output().unwrap();
        (output.status.code(), stderr(&output))
    };
    let (status, words) = said(&["exec", "nobody", "--", "true"]);
    assert_eq!(status, Some(125));
    assert!(words.contains("cargo lab up nobody"), "{words}");
    for command in ["down", "console"] {
        let (status, words) = said(&[command, "nobody"]);
        assert_eq!(status, Some(1), "{words}");
        assert!(words.contains("cargo lab ps"), "{words}");
    }
    assert_eq!(said(&["down", "--all"]), (Some(0), String::new()));
}

#[test]
fn names_and_times_that_cannot_be_are_refused_before_anything_is_started() {
    for words in [
        &["up", "../x"][..],
        &["up", "-x"],
        &["up", ""],
        &["exec", "a/b", "--", "true"],
        &["console", "a b"],
        &["down", "x", "--all"],
        &["up", "x", "--idle", "5"],
        &["up", "x", "--idle", "0s"],
        &["up", "x", "--timeout", "5"],
        &["exec", "x", "-n", "-t", "--", "true"],
    ] {
        let output = command(words).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(2),
            "{words:?}: {}",
            stderr(&output)
        );
    }
}

/// One boot for all that commands have of their own.
#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn commands_at_once_have_streams_statuses_and_signals_of_their_own() {
    let machine = Machine::up("streams", &[]);
    let output = machine
        .exec(&["sh", "-c", "echo out; echo err >&2; exit 3"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        (&output.stdout[..], &output.stderr[..]),
        (&b"out\n"[..], &b"err\n"[..])
    );
    assert_eq!(
        machine.exec(&["no-such-program"]).status().unwrap().code(),
        Some(127)
    );
    let killed = machine
        .exec(&["sh", "-c", "kill -TERM $$"])
        .status()
        .unwrap();
    assert_eq!(killed.code(), Some(128 + 15));

    // Ctrl-C ends one, not the other; what handles it decides itself.
    let script = "trap 'echo handled; exit 9' INT; echo ready; while :; do sleep 0.05; done";
    let mut first = machine.start(&["sh", "-c", script]);
    let mut second = machine.start(&["sh", "-c", "echo ready; exec sleep 1000"]);
    let mut third = machine.start(&["sh", "-c", "echo ready; exec cat"]);
    let mut outputs = [&mut first, &mut second, &mut third]
        .map(|child| BufReader::new(child.stdout.take().unwrap()));
    for output in &mut outputs {
        assert_eq!(line(output), "ready\n");
    }
    assert_eq!(machine.ps()[0], "running");
    assert_eq!(machine.ps()[3..], ["3", "-"]);
    signal(&first, Signal::INT);
    assert_eq!(line(&mut outputs[0]), "handled\n");
    assert_eq!(first.wait().unwrap().code(), Some(9));
    signal(&second, Signal::INT);
    assert_eq!(second.wait().unwrap().code(), Some(130));
    let mut stdin = third.stdin.take().unwrap();
    stdin.write_all(b"still there\n").unwrap();
    assert_eq!(line(&mut outputs[2]), "still there\n");

    // A command whose lab was killed is ended, and its neighbour is not.
    let mut fourth = machine.start(&["sh", "-c", "echo $$; exec sleep 1000"]);
    let pid = line(&mut BufReader::new(fourth.stdout.take().unwrap()));
    fourth.kill().unwrap();
    fourth.wait().unwrap();
    let gone = format!(
        "until ! kill -0 {} 2>/dev/null; do sleep 0.05; done",
        pid.trim()
    );
    assert!(
        machine
            .exec(&["sh", "-c", &gone])
            .status()
            .unwrap()
            .success()
    );
    stdin.write_all(b"and still\n").unwrap();
    assert_eq!(line(&mut outputs[2]), "and still\n");
    drop(stdin);
    assert_eq!(third.wait().unwrap().code(), Some(0));
    machine.down();
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn megabytes_pass_whole_beside_a_command_whose_output_nobody_reads_and_a_command_in_150_ms() {
    let machine = Machine::up("bytes", &[]);
    let mut stopped = machine.start(&["sh", "-c", "echo ready >&2; exec yes"]);
    let ready = line(&mut BufReader::new(stopped.stderr.take().unwrap()));
    assert_eq!(ready, "ready\n");
    let input: Vec<u8> = (0..3_000_000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    let mut cat = machine.start(&["cat"]);
    let (mut stdin, bytes) = (cat.stdin.take().unwrap(), input.clone());
    let feeder = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let mut back = Vec::new();
    let mut stdout = cat.stdout.take().unwrap();
    stdout.read_to_end(&mut back).unwrap();
    feeder.join().unwrap();
    assert!(cat.wait().unwrap().success());
    assert!(back == input, "{} bytes came back", back.len());
    // Its reader goes: closed pipe.
    drop(stopped.stdout.take());
    assert_eq!(stopped.wait().unwrap().code(), Some(141));
    // Once is enough: what is measured is the lab, not who else uses this host.
    let mut took = (0..200).map(|_| {
        let started = Instant::now();
        assert!(machine.exec(&["true"]).status().unwrap().success());
        started.elapsed()
    });
    assert!(took.any(|took| took.as_millis() <= 150));
    machine.down();
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_terminal_of_an_exec_is_the_hosts_and_ctrl_c_is_for_its_command() {
    let machine = Machine::up("terminal", &[]);
    let mut terminal = Terminal::new();
    terminal.resize(30, 90);
    let mut modes = terminal.modes();
    modes.special_codes[SpecialCodeIndex::VKILL] = 0x18;
    terminal.set_modes(&modes);
    let mut beside = Terminal::new();
    beside.start(&machine.command(&["exec"], &["-t", "--", "sh", "-c", "echo up; exec cat"]));
    beside.wait_for("up\r\n");
    let mut shell = machine.command(&["exec", "-t"], &["--env", "A=b c"]);
    shell.env("TERM", "xterm-kitty");
    terminal.start(&shell);
    terminal.wait_for("# ");
    terminal.keys("stty size; e''cho \"<$A|$TERM>\"\n");
    terminal.wait_for("30 90\r\n");
    terminal.wait_for("<b c|xterm-256color>");
    terminal.keys("stty -a | grep -o 'kill = [^;]*'\n");
    terminal.wait_for("kill = ^X\r\n");
    terminal.resize(50, 100);
    terminal.keys("until stty size | grep '50 100'; do :; done\n");
    terminal.wait_for("50 100\r\n");
    // The command itself says that it has the terminal. A shell that is interrupted between its fork and the change of the terminal's foreground
    // group takes the interrupt for its own, and its child sleeps on: bash does so on any terminal.
    terminal.keys("sh -c \"echo g''o; exec sleep 1000\"\n");
    terminal.wait_for("go\r\n");
    terminal.keys("\x03");
    terminal.wait_for("# ");
    terminal.keys("exit 7\n");
    assert_eq!(terminal.wait(), Some(7));
    assert_eq!(format!("{:?}", terminal.modes()), format!("{modes:?}"));
    beside.keys("echoed\n");
    beside.wait_for("echoed\r\nechoed\r\n");
    beside.keys("\x1d\x1d\x1d");
    assert_eq!(beside.wait(), Some(130));

    // Without a terminal in the guest, Ctrl-C is a signal of the command's.
    let mut plain = Terminal::new();
    plain.start(&machine.exec(&["sh", "-c", "echo up; exec sleep 1000"]));
    plain.wait_for("up\r\n");
    plain.keys("\x03");
    assert_eq!(plain.wait(), Some(130));
    machine.down();
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_machine_whose_keeper_was_killed_is_listed_and_ended_with_all_of_its_processes() {
    let share = tempfile::tempdir().unwrap();
    let path = share.path().to_str().unwrap();
    let machine = Machine::up("killed", &["--share", path, "--idle", "1h"]);
    let again = machine.command(&["up"], &[]).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(
        stderr(&again).contains("cargo lab down"),
        "{}",
        stderr(&again)
    );
    let clean = command(&["clean"]).output().unwrap();
    assert_eq!(clean.status.code(), Some(1), "{}", stderr(&clean));
    let written = machine.exec(&["sh", "-c", "pwd >here"]).status().unwrap();
    assert!(written.success());
    assert!(
        fs::read_to_string(share.path().join("here"))
            .unwrap()
            .starts_with("/mnt/")
    );

    let mut waits = machine.start(&["sh", "-c", "echo ready; exec sleep 1000"]);
    line(&mut BufReader::new(waits.stdout.take().unwrap()));
    let keeper = machine.keeper();
    rustix::process::kill_process(keeper, Signal::KILL).unwrap();
    assert_eq!(waits.wait().unwrap().code(), Some(125));
    let late = machine.exec(&["true"]).output().unwrap();
    assert_eq!(late.status.code(), Some(125));
    assert!(
        stderr(&late).contains("cargo lab down"),
        "{}",
        stderr(&late)
    );
    assert_eq!(machine.ps()[0], "unattended");
    assert!(machine.processes().len() >= 4, "{:?}", machine.processes());
    let clean = command(&["clean"]).output().unwrap();
    assert_eq!(clean.status.code(), Some(1), "{}", stderr(&clean));
    machine.down();
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_machine_ends_after_its_idle_time_and_its_console_ends_with_it() {
    let machine = Machine::up("idle", &["--idle", "20s"]);
    let mut follow = machine
        .command(&["console", "-f"], &[])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = machine.exec(&["sh", "-c", "echo '<6>for the console' >/dev/kmsg"]);
    assert!({ said }.status().unwrap().success());
    let mut console = String::new();
    let mut stdout = follow.stdout.take().unwrap();
    stdout.read_to_string(&mut console).unwrap();
    assert!(console.contains("Linux version"), "{console}");
    assert!(console.contains("for the console"), "{console}");
    assert!(follow.wait().unwrap().success());
    machine.assert_that_nothing_is_left();
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_machine_that_ended_by_itself_says_why_and_can_be_started_again() {
    let machine = Machine::up("panic", &[]);
    let over = machine
        .exec(&["sh", "-c", "echo c >/proc/sysrq-trigger"])
        .output()
        .unwrap();
    assert_eq!(over.status.code(), Some(125), "{}", stderr(&over));
    let mut follow = machine.command(&["console", "-f"], &[]).output().unwrap();
    let console = String::from_utf8_lossy(&std::mem::take(&mut follow.stdout)).into_owned();
    assert!(console.contains("Kernel panic"), "{console}");
    let late = machine.exec(&["true"]).output().unwrap();
    assert_eq!(late.status.code(), Some(125));
    let said = stderr(&late);
    assert!(
        said.contains("sysrq triggered crash") && said.contains("cargo lab up"),
        "{said}"
    );
    assert_eq!(machine.ps()[0], "ended");
    machine.down();
}

/// Ctrl-C, and a lab that is killed, while the machine is being started.
#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn an_up_that_is_ended_before_its_machine_is_ready_leaves_nothing() {
    for how in [Signal::INT, Signal::KILL] {
        let machine = Machine {
            name: format!("test-early-{}", std::process::id()),
            tmp: tempfile::tempdir().unwrap(),
        };
        let mut up = machine
            .command(&["up"], &["-v"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut console = BufReader::new(up.stderr.take().unwrap());
        // The guest's kernel says something.
        let mut said = line(&mut console);
        while !said.contains("Linux version") {
            assert_ne!(said, "", "the lab has ended");
            said = line(&mut console);
        }
        signal(&up, how);
        let status = up.wait().unwrap();
        assert_eq!(status.code(), (how == Signal::INT).then_some(130));
        // The keeper has this pipe until it ends.
        let mut rest = Vec::new();
        console.read_to_end(&mut rest).unwrap();
        machine.assert_that_nothing_is_left();
    }
}

/// What docs/debugging.md shows. The guest's own module has no debugging information, so that source and lines come from the one beside the
/// script.
#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn gdb_stops_the_driver_in_its_write_and_shows_source_and_line() {
    if Command::new("gdb").arg("--version").output().is_err() {
        // At the beginning of a line: the harness has begun one on a single CPU.
        eprintln!("\n{SKIP}gdb is not installed: apt-get install gdb");
        return;
    }
    let machine = Machine {
        name: format!("test-gdb-{}", std::process::id()),
        tmp: tempfile::tempdir().unwrap(),
    };
    let mut up = command(&["up", &machine.name, "--gdb"]);
    let up = up.env("TMPDIR", machine.tmp.path()).output().unwrap();
    let said = stderr(&up);
    assert!(up.status.success(), "{said}");
    let dir = said
        .split_once("cd ")
        .and_then(|(_, rest)| rest.split_once(" && gdb -x start.gdb"));
    let (dir, _) = dir.unwrap_or_else(|| panic!("{said}"));
    let guests = "grep -c debug_info \"$(modinfo -n globalfifo)\"";
    let guests = machine.exec(&["sh", "-c", guests]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&guests.stdout),
        "0\n",
        "{}",
        stderr(&guests)
    );
    let mut gdb = Command::new("gdb")
        .args(["-nx", "-batch", "-x", "start.gdb"])
        .args([
            "-ex",
            "break -function 'globalfifo_main::driver::file::{impl#0}::write'",
        ])
        .args([
            "-ex",
            "echo armed\\n",
            "-ex",
            "continue",
            "-ex",
            "backtrace 3",
        ])
        .args(["-ex", "delete", "-ex", "detach"])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(gdb.stdout.take().unwrap());
    let mut said = String::new();
    while !said.ends_with("armed\n") && stdout.read_line(&mut said).unwrap() > 0 {}
    // Until gdb goes on, the guest stands still and this waits.
    let mut writer = machine.start(&[
        "sh",
        "-c",
        "echo hi >/dev/globalfifo0; head -n 1 /dev/globalfifo0",
    ]);
    stdout.read_to_string(&mut said).unwrap();
    let ended = gdb.wait_with_output().unwrap();
    let complete = format!("{said}{}", stderr(&ended));
    for part in [
        "Breakpoint 1, globalfifo_main::driver::file",
        "driver/file.rs:",
        "vfs_write",
    ] {
        assert!(said.contains(part), "no {part:?}: {complete}");
    }
    drop(writer.stdin.take());
    let output = writer.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "hi\n",
        "{}",
        stderr(&output)
    );
    machine.down();
}
