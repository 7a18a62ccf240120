// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The lab on terminals, and with streams as other programs leave them. Tests that boot are run by `cargo lab test`.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]
#![expect(
    clippy::indexing_slicing,
    reason = "a test's helpers fail as the test does"
)]

#[path = "common/pty.rs"]
mod pty;

use std::fs;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use rustix::termios::InputModes;
use rustix::termios::SpecialCodeIndex;

use crate::pty::Terminal;

const LAB: &str = env!("CARGO_BIN_EXE_fifo-lab");

/// A shell that runs a script with the lab's program as its first argument.
fn shell(script: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", script, "bash", LAB]);
    command
}

fn set_nonblocking(fd: impl AsFd) {
    rustix::io::ioctl_fionbio(fd, true).unwrap();
}

/// timeout(1) makes its command a job in the background, as `&` does: reading the terminal would stop it.
#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_job_in_the_background_of_a_terminal_runs_to_its_end() {
    let mut terminal = Terminal::new();
    terminal.start(&shell(
        r#"set -m
           timeout 280 "$1" -q run -- sh -c 'cat & echo from-the-guest; exit 5' & wait $!; echo "rc=$?""#,
    ));
    terminal.keys("not for the guest\n");
    terminal.wait_for("from-the-guest");
    let ended = terminal.wait_for("rc=");
    assert!(!ended.contains("Stopped"), "{ended}");
    terminal.wait_for("5\r\n");
    assert_eq!(terminal.wait(), Some(0));
}

/// A job that comes to the foreground has the terminal from then on. bash sends no signal to a job that was running.
#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_job_brought_to_the_foreground_reads_the_terminal() {
    let mut terminal = Terminal::new();
    terminal.start(&shell(
        r#"set -m; "$1" -q run -- sh -c 'echo up; read -r line; echo "<$line>"' & read -r go; fg; echo "rc=$?""#,
    ));
    terminal.wait_for("up\r\n");
    terminal.keys("go\n");
    terminal.wait_for("run -- sh");
    terminal.keys("for the guest\n");
    terminal.wait_for("<for the guest>");
    terminal.wait_for("rc=0");
    assert_eq!(terminal.wait(), Some(0));
}

/// One boot for all that a shell takes over from a terminal.
#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_guests_shell_has_the_size_the_keys_and_a_name_of_the_terminal() {
    let mut terminal = Terminal::new();
    let mut modes = terminal.modes();
    modes.input_modes.insert(InputModes::IUTF8);
    modes.special_codes[SpecialCodeIndex::VKILL] = 0x18;
    terminal.set_modes(&modes);
    let mut lab = Command::new(LAB);
    lab.args(["-q", "run"]).env("TERM", "xterm-kitty");
    terminal.start(&lab);
    terminal.wait_for("# ");
    // The quotes keep what is typed from looking like the answer.
    terminal.keys("stty size; stty -a | tr ' ;' '\\n\\n' >s; grep iutf8 s; grep -A2 ^kill s | xargs; e''cho term=$TERM\n");
    terminal.wait_for("24 80\r\n");
    let said = terminal.wait_for("iutf8\r\n");
    assert!(!said.contains("-iutf8"), "{said}");
    terminal.wait_for("kill = ^X\r\n");
    terminal.wait_for("term=xterm-256color\r\n");
    terminal.keys("clear; e''cho clear=$?\n");
    terminal.wait_for("clear=0\r\n");
    terminal.resize(50, 100);
    terminal.keys("until stty size | grep '50 100'; do :; done\n");
    terminal.wait_for("50 100\r\n");
    terminal.keys("IFS= read -r line; printf %s \"$line\" | od -An -tx1\n");
    terminal.keys("x中\u{7f}\n");
    terminal.wait_for(" 78\r\n");
    terminal.keys("exit 7\n");
    assert_eq!(terminal.wait(), Some(7));
    assert_eq!(format!("{:?}", terminal.modes()), format!("{modes:?}"));
}

/// O_NONBLOCK on both sides, input that comes late, and a reader of the output who takes it in small pieces.
#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn streams_that_do_not_block_carry_every_byte() {
    let (stdin, mut feed) = std::io::pipe().unwrap();
    let (mut output, stdout) = std::io::pipe().unwrap();
    set_nonblocking(&stdin);
    set_nonblocking(&stdout);
    let mut lab = Command::new(LAB)
        .args(["-q", "run", "--", "sh", "-c"])
        .arg("echo ready; cat; seq 1 100000")
        .stdin(stdin)
        .stdout(stdout)
        .spawn()
        .unwrap();
    let mut first = [0; 6];
    output.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"ready\n");
    feed.write_all(b"late\n").unwrap();
    drop(feed);
    let mut got = Vec::new();
    let mut piece = [0; 1000];
    loop {
        match output.read(&mut piece).unwrap() {
            0 => break,
            count => got.extend_from_slice(&piece[..count]),
        }
    }
    let expected: String = std::iter::once("late\n".to_owned())
        .chain((1..=100_000).map(|number| format!("{number}\n")))
        .collect();
    assert!(got == expected.as_bytes(), "{} bytes", got.len());
    assert_eq!(lab.wait().unwrap().code(), Some(0));
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_full_disk_behind_standard_output_is_told_and_the_status_is_1() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(LAB)
        .args(["-q", "run", "--", "echo", "lost"])
        .stdin(Stdio::null())
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("standard output: No space left on device"),
        "{stderr}"
    );
}

/// The lab's own output, too: no machine is booted.
#[test]
fn a_list_that_cannot_be_printed_is_a_failure_unless_its_reader_has_gone() {
    let cache = cache();
    let clean = |stdout: Stdio| {
        Command::new(LAB)
            .args(["clean"])
            .env("XDG_CACHE_HOME", cache.path())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .output()
            .unwrap()
    };
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = clean(full.into());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("No space left on device"), "{stderr}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(clean(writer.into()).status.code(), Some(141));
}

/// A cache with nothing in it.
fn cache() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let locks = dir.path().join("globalfifo/locks");
    fs::create_dir_all(&locks).unwrap();
    fs::write(locks.join("in-use"), "").unwrap();
    dir
}

/// Makes a cache that has the stages of the user's own, set up before, but the last one.
fn with_all_but_the_guests_files(to: &Path) {
    let lab = |words: &[&str]| {
        let mut lab = Command::new(LAB);
        lab.args(["-q", "run"]).args(words).stdin(Stdio::null());
        let output = lab.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    if lab(&["--dry-run"]).contains("not set up yet") {
        lab(&["--", "true"]);
    }
    let of_user = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || Path::new(&std::env::var_os("HOME").unwrap()).join(".cache"),
        PathBuf::from,
    );
    let stages = to.join("globalfifo/stages");
    fs::create_dir_all(&stages).unwrap();
    for stage in fs::read_dir(of_user.join("globalfifo/stages")).unwrap() {
        let stage = stage.unwrap();
        if stage.file_name() != "guest" {
            std::os::unix::fs::symlink(stage.path(), stages.join(stage.file_name())).unwrap();
        }
    }
}

/// One boot for the options that shape what the command finds. The directory of the run has a comma and a space in its name.
#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn variables_folders_kernel_words_network_and_console_are_as_asked_and_stdin_is_left_alone() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("a,b c");
    let data = base.path().join("data");
    fs::create_dir(&run).unwrap();
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "x").unwrap();
    let console = base.path().join("console, whole");
    let (mut stdin, mut feed) = std::io::pipe().unwrap();
    feed.write_all(b"kept").unwrap();
    drop(feed);
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("PORT={}", service.local_addr().unwrap().port());
    std::thread::spawn(move || {
        let (mut guest, _) = service.accept().unwrap();
        guest.write_all(b"from the host\n").unwrap();
    });
    let script = r#"cat; echo "$A|$HERE|$(pwd)|$(ls)"; grep -o lab.test=1 /proc/cmdline
        busybox nc 10.0.2.2 "$PORT" </dev/null
        printf '%s\n' "$@""#;
    let output = Command::new(LAB)
        .args([
            "-q", "run", "-n", "--env", "A=b=c", "--env", "HERE", "--net", "--env", &port,
        ])
        .args(["--append", "lab.test=1"])
        .arg("--share")
        .arg(format!("other={}", data.display()))
        .arg("--console")
        .arg(&console)
        .args(["--", "sh", "-c", script, "sh", "/dev/globalfifo*"])
        .env("TMPDIR", &run)
        .env("HERE", "from here")
        .stdin(stdin.try_clone().unwrap())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        stdout, "b=c|from here|/mnt/other|file\nlab.test=1\nfrom the host\n/dev/globalfifo*\n",
        "{stderr}"
    );
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let mut left = String::new();
    stdin.read_to_string(&mut left).unwrap();
    assert_eq!(left, "kept");
    let console = fs::read_to_string(console).unwrap();
    assert!(console.contains("Linux version"), "{console}");
    assert_eq!(fs::read_dir(run).unwrap().count(), 0);
}

/// All that shells and users leave lying about, at once: on a terminal, from a subfolder, with a strict umask, flags for another build, and a
/// directory for temporary files that is too long for sockets and has a comma and a space in it. The guest's files are put together anew, by
/// that umask.
#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_strict_umask_flags_of_a_build_and_an_odd_directory_do_not_matter() {
    let base = tempfile::tempdir().unwrap();
    let odd = base.path().join(format!("a,b c{}", "x".repeat(150)));
    fs::create_dir(&odd).unwrap();
    let cache = base.path().join("cache");
    with_all_but_the_guests_files(&cache);
    let subfolder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/vm");
    let mut terminal = Terminal::new();
    let mut shell = shell(&format!(
        r#"cd {subfolder} && umask 077 && "$1" -q run -- sh -c 'echo hi; setpriv --reuid=1000 --clear-groups ls -d /usr/bin'; echo "rc=$?""#
    ));
    shell
        .env("RUSTFLAGS", "-C target-feature=-crt-static")
        .env("TMPDIR", &odd)
        .env("XDG_CACHE_HOME", cache);
    terminal.start(&shell);
    terminal.wait_for("hi\r\n/usr/bin\r\nrc=0\r\n");
    assert_eq!(terminal.wait(), Some(0));
    assert_eq!(fs::read_dir(odd).unwrap().count(), 0);
}
