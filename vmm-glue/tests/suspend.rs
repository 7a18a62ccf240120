// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Suspend, with real machines. Ignored by plain `cargo test`, which must not need minutes of set-up; `cargo lab test` runs them, one by one.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod common;

use std::fs;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use common::command;

/// The lab, running a script in a guest.
fn guest(options: &[&str], script: &str) -> Child {
    command(&["-q", "run", "--timeout", "90"])
        .args(options)
        .args(["--", "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Types a line once the guest says `before`; what it says after that, its status, and its standard error.
fn typed_meanwhile(mut lab: Child) -> (String, Option<i32>, String) {
    let mut stdout = BufReader::new(lab.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    if line == "before\n" {
        lab.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    }
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let output = lab.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (rest, output.status.code(), stderr)
}

/// virtiofs refuses to be frozen: what was frozen before it is brought back, the lab's own ports among them.
#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_command_in_which_a_suspend_is_aborted_ends_with_its_output_and_status() {
    let script = "echo before; rtcwake -q -m freeze -s 2; echo $?; cat; dmesg | grep -q 'returns -95'; echo $?; exit 3";
    let (rest, status, stderr) = typed_meanwhile(guest(&[], script));
    assert_eq!(rest, "1\ntyped\n0\n", "{stderr}");
    assert_eq!(status, Some(3), "{stderr}");
}

fn sleeps_and_goes_on(mode: &str, said: &str) {
    let script = format!(
        "echo before; rtcwake -q -m {mode} -s 3; echo $?; cat; dmesg | grep -c 'PM: suspend entry ({said})'"
    );
    // Suspend is the lab's business here, not the driver's.
    let lab = guest(&["--root", "ram", "--driver", "none"], &script);
    let (rest, status, stderr) = typed_meanwhile(lab);
    assert_eq!(rest, "0\ntyped\n1\n", "{stderr}");
    assert_eq!(status, Some(0), "{stderr}");
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_guest_with_its_root_in_ram_sleeps_and_goes_on_and_hears_what_was_typed_meanwhile() {
    sleeps_and_goes_on("freeze", "s2idle");
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_guest_that_is_suspended_to_ram_goes_on_and_hears_what_was_typed_meanwhile() {
    sleeps_and_goes_on("mem", "deep");
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_suspend_that_the_smallest_driver_refuses_loses_no_byte() {
    let script = "echo before; echo one >/dev/globalfifo; rtcwake -q -m freeze -s 3; echo $?; cat; echo two >/dev/globalfifo; \
        timeout 5 head -c 8 /dev/globalfifo; dmesg | grep -q 'virtio_pci_suspend returns -16'; echo $?";
    let driver = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/irq");
    let lab = guest(&["--root", "ram", "--driver", driver], script);
    let (rest, status, stderr) = typed_meanwhile(lab);
    assert_eq!(rest, "1\ntyped\none\ntwo\n0\n", "{stderr}");
    assert_eq!(status, Some(0), "{stderr}");
}

/// Lines that are sent at once.
const BURST: u32 = 100;

/// Sends numbered lines to a FIFO's socket: before the machine hibernates, each time that it writes its image, and at the end.
fn send_lines(socket: &Path, console: &Path) {
    let mut fifo = loop {
        match UnixStream::connect(socket) {
            Ok(fifo) => break fifo,
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    };
    let said = |what: &str, times: usize| {
        let deadline = Instant::now() + Duration::from_secs(200);
        let console = || fs::read_to_string(console).unwrap_or_default();
        while console().matches(what).count() < times {
            assert!(Instant::now() < deadline, "not said {times} times: {what}");
            thread::sleep(Duration::from_millis(20));
        }
    };
    for burst in 0..4 {
        match burst {
            0 => {}
            3 => said("said: hibernated", 2),
            times => said("Image saving progress:   0%", times as usize),
        }
        for number in burst * BURST..(burst + 1) * BURST {
            writeln!(fifo, "{number:08}").unwrap();
        }
    }
    // Its end would be a hang-up, and so the end of what is read.
    let _ = fifo.read(&mut [0]);
}

/// The machine takes an image of its memory, has its devices back to write it to a disk, and then goes on from the image: what a pending read got
/// meanwhile would not be in it. The lab's own ports do not live through that, so the guest talks to its console.
#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn pending_reads_lose_no_byte_in_two_hibernations() {
    const LINES: u32 = 4 * BURST;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guest/lines.c");
    let compiled = command(&["-q", "cc", source, "-laio", "-o", &file("lines")]);
    assert!({ compiled }.status().unwrap().success());
    let (megabyte, swap) = (1 << 20, file("swap"));
    File::create(&swap)
        .unwrap()
        .set_len(1500 * megabyte)
        .unwrap();

    let (socket, log) = (dir.path().join("fifo"), dir.path().join("console"));
    let peer = thread::spawn(move || send_lines(&socket, &log));
    let script = format!(
        "cat >/tmp/lines; chmod +x /tmp/lines; exec >/dev/kmsg 2>&1; modprobe virtio_blk; until [ -b /dev/vda ]; do sleep .1; done; \
         mkswap /dev/vda; swapon /dev/vda; cat /sys/class/block/vda/dev >/sys/power/resume; \
         /tmp/lines {LINES} >/tmp/said & reader=$!; sleep 2; \
         for i in 1 2; do echo test_resume >/sys/power/disk; echo disk >/sys/power/state; echo said: hibernated $?; sleep 1; done; \
         wait $reader; echo said: $? $(cat /tmp/said); echo o >/proc/sysrq-trigger; sleep 60"
    );
    let (fifo, console) = (format!("unix={}", file("fifo")), file("console"));
    let drive = format!("--qemu-arg=file={swap},if=virtio,format=raw");
    let lab = command(&[
        "-q",
        "run",
        "--timeout",
        "300",
        "--root",
        "ram",
        "--mem",
        "2G",
    ])
    .args([
        "--fifo",
        &fifo,
        "--console",
        &console,
        "--qemu-arg=-drive",
        &drive,
    ])
    .args(["--", "sh", "-c", &script])
    .stdin(File::open(file("lines")).unwrap())
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let output = lab.wait_with_output().unwrap();
    let console = fs::read_to_string(console).unwrap();
    let said: Vec<_> = console
        .lines()
        .filter_map(|line| Some(line.split_once("said: ")?.1))
        .collect();
    let end = format!("0 {LINES} lines in order");
    assert_eq!(
        said,
        ["hibernated 0", "hibernated 0", &end],
        "{console}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for complaint in ["WARNING:", "BUG:", "Oops"] {
        assert!(!console.contains(complaint), "{console}");
    }
    peer.join().unwrap();
}
