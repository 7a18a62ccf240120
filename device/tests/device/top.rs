// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `ctl PATH top`: the panel on a terminal with a daemon behind it, and lines without a terminal.

use std::fs;
use std::fs::File;
use std::io::Read;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use rstest::rstest;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use serde_json::Value;

use crate::binary::command;
use crate::binary::run;
use crate::ctl_program::Controlled;
use crate::pty::Terminal;

/// Escape sequence that leaves the alternate screen.
const MAIN_SCREEN: &str = "\u{1b}[?1049l";
/// Escape sequence that shows the cursor.
const CURSOR: &str = "\u{1b}[?25h";

/// A terminal with the panel on it, its first look at the device drawn.
fn panel(fifo: &Controlled) -> Terminal {
    let mut terminal = Terminal::new();
    terminal.resize(24, 80);
    let path = fifo.path("control");
    let mut top = command(&["ctl", &path, "top", "--interval", "0.1"]);
    top.env("TERM", "xterm-256color");
    terminal.start(&top);
    terminal.wait_for("null");
    terminal
}

/// Waits until the daemon's status is as wanted.
fn until(fifo: &Controlled, what: &str, wanted: impl Fn(&Value) -> bool) {
    let begun = Instant::now();
    loop {
        let status: Value = serde_json::from_str(&fifo.text(&["status", "--json"])).unwrap();
        if wanted(&status) {
            return;
        }
        assert!(begun.elapsed().as_secs() < 60, "not {what}: {status}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[cfg_attr(not(feature = "faults"), ignore = "needs fault injection")]
fn keys_push_a_line_clear_hang_up_and_drop_an_interrupt() {
    let fifo = Controlled::start(&["null", "null"]);
    let mut terminal = panel(&fifo);
    let keys = [
        ("phello\r", "pushed"),
        ("c", "cleared"),
        ("jh", "hung up"),
        ("i", "with a fault"),
    ];
    let reached: [fn(&Value) -> bool; 4] = [
        |status| status["fifos"][0]["rx"]["level"] == 6,
        |status| status["fifos"][0]["rx"]["level"] == 0,
        |status| status["fifos"][1]["hangup_by_control"] == true,
        |status| status["faults"][0]["spec"] == "drop-interrupt,fifo=1,on=rx,count=1",
    ];
    for ((keys, what), reached) in keys.into_iter().zip(reached) {
        terminal.keys(keys);
        until(&fifo, what, reached);
    }
    // The panel shows what others do, too.
    fifo.text(&["push", "0", "a line of forty-two bytes that is not hers"]);
    terminal.wait_for("42");
    terminal.keys("q");
    terminal.wait_for(MAIN_SCREEN);
    assert_eq!(terminal.wait(), Some(0));
}

fn same_modes(terminal: &Terminal, before: &rustix::termios::Termios) {
    let after = terminal.modes();
    assert_eq!(after.input_modes, before.input_modes);
    assert_eq!(after.output_modes, before.output_modes);
    assert_eq!(after.control_modes, before.control_modes);
    assert_eq!(after.local_modes, before.local_modes);
}

/// Whichever way it ends: a key, or the daemon first.
#[rstest]
#[case("q", Some(0))]
#[case("\u{3}", Some(0))]
#[case("", Some(1))]
fn the_terminal_is_put_back(#[case] keys: &str, #[case] status: Option<i32>) {
    let fifo = Controlled::start(&["null"]);
    let before = Terminal::new().modes();
    let mut terminal = panel(&fifo);
    assert_ne!(terminal.modes().local_modes, before.local_modes);
    if keys.is_empty() {
        fifo.daemon.signal(Signal::SIGTERM);
    }
    terminal.keys(keys);
    terminal.wait_for(CURSOR);
    terminal.wait_for(MAIN_SCREEN);
    if keys.is_empty() {
        terminal.wait_for("ended the connection");
    }
    assert_eq!(terminal.wait(), status);
    same_modes(&terminal, &before);
}

#[rstest]
fn a_signal_puts_the_terminal_back_and_ends_it(
    #[values(Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP)] signal: Signal,
) {
    let fifo = Controlled::start(&["null"]);
    let before = Terminal::new().modes();
    let mut terminal = panel(&fifo);
    kill(pid_of_top(&fifo.path("control")), signal).unwrap();
    terminal.wait_for(MAIN_SCREEN);
    // Ended by the signal: no status of its own.
    assert_eq!(terminal.wait(), None);
    same_modes(&terminal, &before);
}

/// As when a window is closed: nobody has the terminal's other side any more.
#[test]
fn a_terminal_that_is_gone_ends_it() {
    let fifo = Controlled::start(&["null"]);
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let mut window = File::from(rustix::pty::openpt(flags).unwrap());
    rustix::pty::unlockpt(&window).unwrap();
    let size = Winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&window, size).unwrap();
    let name = rustix::pty::ptsname(&window, Vec::new()).unwrap();
    let slave = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    let mut top = Command::new("setsid")
        .args(["--ctty", env!("CARGO_BIN_EXE_vhost-device-fifo"), "ctl"])
        .args([&fifo.path("control"), "top", "--interval", "0.1"])
        .env("TERM", "xterm-256color")
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .stderr(slave)
        .spawn()
        .unwrap();
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&seen).contains("null") {
        let count = window.read(&mut buffer).unwrap();
        seen.extend_from_slice(&buffer[..count]);
    }
    drop(window);
    let begun = Instant::now();
    while top.try_wait().unwrap().is_none() {
        assert!(begun.elapsed().as_secs() < 60, "it goes on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The process with this path and `top` among its arguments.
fn pid_of_top(path: &str) -> Pid {
    let found = fs::read_dir("/proc").unwrap().find_map(|entry| {
        let entry = entry.ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let arguments = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let words: Vec<_> = arguments.split('\0').collect();
        (words.contains(&path) && words.contains(&"top")).then_some(pid)
    });
    Pid::from_raw(found.unwrap())
}

#[test]
#[cfg_attr(not(feature = "faults"), ignore = "needs fault injection")]
fn without_a_terminal_it_prints_as_many_blocks_as_asked_for() {
    let fifo = Controlled::start(&["null", "loopback"]);
    fifo.text(&["push", "0", "hello"]);
    fifo.text(&["fault", "add", "slow,fifo=0,p=0.5"]);
    let text = fifo.text(&["top", "--interval", "0.1", "--count", "3"]);
    let blocks: Vec<_> = text.split_terminator("\n\n").collect();
    assert_eq!(blocks.len(), 3, "{text}");
    for block in blocks {
        let lines: Vec<_> = block.lines().collect();
        assert_eq!(lines.len(), 6, "{text}");
        assert!(lines[1].contains("RX LEVEL"), "{text}");
        let words: Vec<_> = lines[2].split_whitespace().collect();
        assert_eq!(words[..2], ["0", "null"], "{text}");
        assert_eq!(words[5..8], ["5", "0", "0"], "{text}");
        assert!(lines[5].contains("slow,fifo=0,p=0.5"), "{text}");
    }
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let json = fifo.text(&["top", "--json", "--interval", "0.1", "--count", "2"]);
    let levels: Vec<_> = json
        .lines()
        .map(|line| {
            let status: Value = serde_json::from_str(line).unwrap();
            status["fifos"][0]["rx"]["level"].clone()
        })
        .collect();
    assert_eq!(levels, [5, 5]);
}

/// As `top | head -1`: it ends when nobody reads it, and that is no failure.
#[test]
fn a_reader_that_has_enough_ends_it() {
    let fifo = Controlled::start(&["null"]);
    let path = fifo.path("control");
    let mut top = command(&["ctl", &path, "top", "--interval", "0.1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(top.stdout.take());
    assert_eq!(top.wait().unwrap().code(), Some(0));
}

#[rstest]
#[case(&["--interval", "0"])]
#[case(&["--interval", "soon"])]
#[case(&["--count", "0"])]
fn wrong_options_are_usage_errors(#[case] options: &[&str]) {
    let output = run(&[&["ctl", "/tmp/s", "top"], options].concat());
    assert_eq!(output.status.code(), Some(2));
}
