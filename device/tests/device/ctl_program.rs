// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `vhost-device-fifo ctl` and a daemon with `--control` and `--metrics`, as programs.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Output;
use std::process::Stdio;

use nix::sys::signal::Signal;
use rstest::rstest;
use tempfile::TempDir;

use crate::binary::Daemon;
use crate::binary::command;
use crate::binary::driver;
use crate::binary::fails;
use crate::binary::run;

/// A daemon with a control socket.
pub struct Controlled {
    pub daemon: Daemon,
    pub dir: TempDir,
}

impl Controlled {
    pub fn start(specs: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let daemon = start(dir.path(), specs, &[]);
        Self { daemon, dir }
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn ctl(&self, args: &[&str]) -> Output {
        let path = self.path("control");
        run(&[&["ctl", &path], args].concat())
    }

    /// What `ctl` writes to standard output when it succeeds.
    fn says(&self, args: &[&str]) -> Vec<u8> {
        let output = self.ctl(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
        assert_eq!(stderr, "", "{args:?}");
        output.stdout
    }

    pub fn text(&self, args: &[&str]) -> String {
        String::from_utf8(self.says(args)).unwrap()
    }

    fn refuses(&self, args: &[&str], parts: &[&str]) {
        let path = self.path("control");
        fails(&[&["ctl", &path], args].concat(), parts);
    }

    /// `ctl` with `input` on standard input.
    fn feed(&self, args: &[&str], input: &[u8]) -> Output {
        let path = self.path("control");
        let mut child = command(&[&["ctl", &path], args].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It may end before it has read everything.
        let _ = stdin.write_all(input);
        drop(stdin);
        child.wait_with_output().unwrap()
    }
}

fn start(dir: &Path, specs: &[&str], more: &[&str]) -> Daemon {
    let socket = dir.join("s");
    let control = dir.join("control");
    let mut args = vec!["--socket-path", socket.to_str().unwrap()];
    args.extend(["--control", control.to_str().unwrap()]);
    args.extend(specs.iter().flat_map(|spec| ["--fifo", spec]));
    args.extend(more);
    Daemon::start(&args)
}

#[test]
fn status_is_a_table_or_json() {
    let fifo = Controlled::start(&["loopback,capacity=64"]);
    driver(&dir_socket(&fifo)).check_serves(0);
    let table = fifo.text(&["status"]);
    assert!(table.contains("KIND"), "{table}");
    assert!(table.contains("loopback"), "{table}");
    let json = fifo.text(&["status", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["fifos"][0]["capacity"], 64);
    assert_eq!(json["ok"], true);
}

fn dir_socket(fifo: &Controlled) -> std::path::PathBuf {
    fifo.dir.path().join("s")
}

/// Bytes go in by an argument or by standard input, and come out by standard output.
#[test]
fn push_and_pull() {
    let fifo = Controlled::start(&["null,capacity=100K"]);
    let mut driver = driver(&dir_socket(&fifo));
    assert_eq!(fifo.says(&["push", "0", "hello"]), b"");
    assert_eq!(driver.read_some(0, 100), b"hello");
    let bytes: Vec<u8> = (0..90_000_u32).map(|at| (at % 251) as u8).collect();
    let output = fifo.feed(&["push", "0"], &bytes);
    assert_eq!(output.status.code(), Some(0));
    let mut got = Vec::new();
    while got.len() < bytes.len() {
        got.extend(driver.read_some(0, 50_000));
    }
    assert_eq!(got, bytes);
    fifo.says(&["hangup", "0"]);
    driver.send(0, &bytes);
    assert_eq!(fifo.says(&["pull", "0", "--max", "3"]), bytes[..3]);
    assert_eq!(fifo.says(&["pull", "0"]), bytes[3..]);
    assert_eq!(fifo.says(&["pull", "0"]), b"");
}

/// More than fits: what was sent is said, and `--wait` sends the rest when there is room.
#[test]
fn push_into_a_full_fifo() {
    let fifo = Controlled::start(&["null,capacity=10"]);
    let mut driver = driver(&dir_socket(&fifo));
    let output = fifo.feed(&["push", "0"], b"0123456789abc");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("only 10 of 13 bytes"), "{stderr}");
    assert!(stderr.contains("--wait"), "{stderr}");
    assert_eq!(driver.read_some(0, 100), b"0123456789");
    std::thread::scope(|scope| {
        let push = scope.spawn(|| fifo.feed(&["push", "0", "--wait"], b"abcdefghijklmno"));
        let mut got = Vec::new();
        while got.len() < 15 {
            driver.send(0, b"");
            got.extend(driver.read_some(0, 100));
        }
        assert_eq!(got, b"abcdefghijklmno");
        assert_eq!(push.join().unwrap().status.code(), Some(0));
    });
}

#[test]
fn clear_and_hangup() {
    let fifo = Controlled::start(&["null"]);
    fifo.says(&["push", "0", "hello"]);
    assert_eq!(fifo.text(&["clear", "0"]), "5 bytes discarded\n");
    fifo.says(&["hangup", "0"]);
    assert!(fifo.text(&["status"]).contains("hung up by ctl"));
    fifo.refuses(&["push", "0", "x"], &["hung up"]);
    fifo.says(&["hangup", "0", "off"]);
    fifo.says(&["push", "0", "x"]);
}

#[test]
#[cfg_attr(not(feature = "faults"), ignore = "needs fault injection")]
fn faults() {
    let fifo = Controlled::start(&["null"]);
    assert_eq!(fifo.text(&["fault", "add", "slow,fifo=0,p=0.5"]), "1\n");
    assert_eq!(fifo.text(&["fault", "add", "stall,after=1h"]), "2\n");
    let list = fifo.text(&["fault", "list"]);
    assert!(list.contains("stall"), "{list}");
    assert!(fifo.text(&["status"]).contains("stall"));
    fifo.says(&["fault", "remove", "2"]);
    assert_eq!(fifo.text(&["fault", "clear"]), "1 removed\n");
    fifo.refuses(&["fault", "add", "boom"], &["unknown fault 'boom'", "slow"]);
    fifo.refuses(&["fault", "remove", "2"], &["no fault 2"]);
}

#[test]
fn metrics_are_prometheus_text() {
    let fifo = Controlled::start(&["null"]);
    fifo.says(&["push", "0", "hello"]);
    let text = fifo.text(&["metrics"]);
    let line = r#"virtio_fifo_level_bytes{direction="rx",fifo="0"} 5"#;
    assert!(text.lines().any(|found| found == line), "{text}");
}

/// `trace` tells each event with its time, and ends with the daemon.
#[rstest]
#[case(&["trace"], "  endpoint-read   bytes=5 fifo=0 position=")]
#[case(&["trace", "--json"], r#""trace":"endpoint-read""#)]
fn trace_follows(#[case] args: &[&str], #[case] part: &str) {
    let mut fifo = Controlled::start(&["null"]);
    let path = fifo.path("control");
    let mut trace = command(&[&["ctl", &path], args].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(trace.stdout.take().unwrap()).lines();
    let wanted = part.to_owned();
    let first = std::thread::spawn(move || {
        // The trace may begin between the two commands below, so with either's events.
        let line = lines.find(|line| line.as_ref().unwrap().contains(&wanted));
        // It has a reader as long as it runs.
        (line, lines)
    });
    let begun = std::time::Instant::now();
    while !first.is_finished() {
        fifo.says(&["push", "0", "hello"]);
        fifo.says(&["clear", "0"]);
        assert!(begun.elapsed().as_secs() < 60, "no event says {part}");
    }
    let (line, lines) = first.join().unwrap();
    assert!(line.is_some(), "the trace has ended");
    fifo.daemon.signal(Signal::SIGTERM);
    assert_eq!(fifo.daemon.exit_code(), Some(0));
    lines.for_each(drop);
    assert_eq!(trace.wait().unwrap().code(), Some(1));
}

/// `watch` says each thing as it happens, and ends with the daemon.
#[test]
fn watch_follows() {
    let mut fifo = Controlled::start(&["null"]);
    let path = fifo.path("control");
    let mut watch = command(&["ctl", &path, "watch"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let first = std::thread::spawn(move || lines.next().unwrap().unwrap());
    // What happened before it watches, it is not told.
    while !first.is_finished() {
        fifo.says(&["push", "0", "x"]);
    }
    let line = first.join().unwrap();
    assert!(line.starts_with("FIFO 0: rx holds "), "{line}");
    fifo.daemon.signal(Signal::SIGTERM);
    assert_eq!(fifo.daemon.exit_code(), Some(0));
    let output = watch.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("ended the connection"), "{stderr}");
}

/// What the daemon says no to: status 1, one line.
#[rstest]
#[case(&["push", "7", "x"], &["no FIFO 7", "has 1"])]
#[case(&["pull", "7"], &["no FIFO 7"])]
#[case(&["clear", "7"], &["no FIFO 7"])]
#[case(&["hangup", "7"], &["no FIFO 7"])]
#[case(&["watch", "0", "7"], &["no FIFO 7"])]
#[case(&["pull", "0"], &["loopback"])]
fn the_daemon_says_no(#[case] args: &[&str], #[case] parts: &[&str]) {
    let fifo = Controlled::start(&["loopback"]);
    fifo.refuses(args, parts);
}

/// No daemon, a dead one, somebody else's socket: what to do is said.
#[test]
fn no_daemon_to_talk_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nothing");
    let text = path.to_str().unwrap();
    fails(&["ctl", text, "status"], &[text, "--control"]);
    let path = dir.path().join("dead");
    drop(UnixListener::bind(&path).unwrap());
    let text = path.to_str().unwrap();
    fails(
        &["ctl", text, "status"],
        &["nobody serves", text, "--control"],
    );
    let path = dir.path().join("stranger");
    let listener = UnixListener::bind(&path).unwrap();
    let stranger = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 hello\n").unwrap();
    });
    let text = path.to_str().unwrap();
    fails(&["ctl", text, "status"], &[text, "not a control socket"]);
    stranger.join().unwrap();
}

#[rstest]
#[case(&["ctl"])]
#[case(&["ctl", "/tmp/s"])]
#[case(&["ctl", "/tmp/s", "explode"])]
#[case(&["ctl", "/tmp/s", "push"])]
#[case(&["ctl", "/tmp/s", "push", "x"])]
#[case(&["ctl", "/tmp/s", "hangup", "0", "maybe"])]
fn usage_errors(#[case] args: &[&str]) {
    assert_eq!(run(args).status.code(), Some(2));
}

/// The socket is for its owner only, replaces a dead one, and goes with the daemon; a living one
/// and what is no socket stay.
#[test]
fn the_socket_is_made_with_care() {
    let mut fifo = Controlled::start(&["null"]);
    let path = fifo.path("control");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let other = fifo.path("other");
    fails(
        &["--socket-path", &other, "--control", &path],
        &[&path, "in use"],
    );
    fifo.says(&["status"]);
    fifo.daemon.signal(Signal::SIGTERM);
    fifo.daemon.exit_code();
    assert!(!Path::new(&path).exists());
    drop(UnixListener::bind(&path).unwrap());
    fifo.daemon = start(fifo.dir.path(), &["null"], &[]);
    fifo.says(&["status"]);
    let file = fifo.path("file");
    fs::write(&file, "precious").unwrap();
    fails(
        &["--socket-path", &other, "--control", &file],
        &[&file, "is not a socket"],
    );
    assert!(!Path::new(&other).exists());
    let long = fifo.path(&"x".repeat(200));
    fails(
        &["--socket-path", &other, "--control", &long],
        &["too long"],
    );
}

/// `--metrics`: a file at once, a new text at SIGUSR1, the last one at the end.
#[test]
fn metrics_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics");
    // Longer than the text: nothing of it must be left.
    fs::write(&path, "x".repeat(1 << 20)).unwrap();
    let daemon = start(
        dir.path(),
        &["null"],
        &["--metrics", path.to_str().unwrap()],
    );
    let mut fifo = Controlled { daemon, dir };
    let level = |bytes: usize| {
        let line = format!("virtio_fifo_level_bytes{{direction=\"rx\",fifo=\"0\"}} {bytes}");
        let text = fs::read_to_string(&path).unwrap();
        text.lines().any(|found| found == line) && text.ends_with('\n') && !text.contains("xxx")
    };
    assert!(level(0));
    fifo.says(&["push", "0", "hello"]);
    assert!(level(0));
    fifo.daemon.signal(Signal::SIGUSR1);
    while !level(5) {
        std::thread::yield_now();
    }
    fifo.says(&["push", "0", "more"]);
    fifo.daemon.signal(Signal::SIGTERM);
    assert_eq!(fifo.daemon.exit_code(), Some(0));
    assert!(level(9));
    let socket = fifo.path("other");
    fails(
        &["--socket-path", &socket, "--metrics", "/dev/full"],
        &["/dev/full", "not a regular file"],
    );
    fails(
        &["--socket-path", &socket, "--metrics", "/no/where"],
        &["/no/where", "cannot write metrics"],
    );
}
