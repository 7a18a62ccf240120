// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The end of the daemon: bytes that were accepted from the driver leave first, where somebody takes them.

use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use nix::fcntl::FcntlArg;
use nix::fcntl::OFlag;
use nix::fcntl::fcntl;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rstest::rstest;

use crate::binary::Daemon;
use crate::binary::command;
use crate::binary::driver;
use crate::common::Driver;

/// More than a pipe or a socket takes at once.
const SENT: usize = 600_000;
/// Time without progress after which the daemon gives up.
const STALL: Duration = Duration::from_secs(5);

fn bytes() -> Vec<u8> {
    (0..SENT).map(|at| (at % 251) as u8).collect()
}

/// A daemon with the FIFO `spec` of 1 MiB, `DIR` being `dir`.
fn start(dir: &Path, spec: &str, more: &[&str]) -> Daemon {
    let socket = dir.join("s").display().to_string();
    let spec = spec.replace("DIR", dir.to_str().unwrap()) + ",capacity=1M";
    let args = ["--socket-path", &socket, "--fifo", &spec];
    let mut command = command(&[&args, more].concat());
    // The path of a pseudo-terminal.
    command.stdout(Stdio::null());
    Daemon::start_command(command)
}

/// A driver that has sent [`bytes`], all of which were accepted.
fn send(dir: &Path) -> Driver {
    let mut driver = driver(&dir.join("s"));
    for part in bytes().chunks(50_000) {
        driver.send(0, part);
    }
    assert_eq!(driver.state(0).tx_accepted, SENT as u64);
    driver
}

/// A named pipe at DIR/pipe, and its reader, which has read nothing yet.
fn pipe(dir: &Path) -> fs::File {
    let path = dir.join("pipe");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let reader = fs::File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .unwrap();
    // Opening does not wait for a writer; reading does.
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    reader
}

#[rstest]
fn what_a_slow_reader_has_not_taken_yet_is_written_before_the_end(
    #[values(true, false)] once: bool,
) {
    let dir = tempfile::tempdir().unwrap();
    let mut reader = pipe(dir.path());
    let more: &[&str] = if once { &["--once"] } else { &[] };
    let mut daemon = start(dir.path(), "file=DIR/pipe", more);
    let driver = send(dir.path());
    if once {
        drop(driver);
    } else {
        daemon.signal(Signal::SIGTERM);
    }
    daemon.wait_for("before the end");
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    assert_eq!(read.len(), SENT);
    assert_eq!(read, bytes());
    assert_eq!(daemon.exit_code(), Some(0));
}

/// A UNIX peer as well.
#[test]
fn what_a_slow_peer_has_not_taken_yet_is_sent_before_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = start(dir.path(), "unix=DIR/data", &["--once"]);
    let mut peer = UnixStream::connect(dir.path().join("data")).unwrap();
    drop(send(dir.path()));
    daemon.wait_for("before the end");
    let mut read = Vec::new();
    peer.read_to_end(&mut read).unwrap();
    assert_eq!(read.len(), SENT);
    assert_eq!(read, bytes());
    assert_eq!(daemon.exit_code(), Some(0));
}

/// The bytes that a line of the log says are discarded.
fn discarded(line: &str) -> usize {
    let (_, bytes) = line.split_once(" bytes=").unwrap();
    let end = bytes.find(' ').unwrap_or(bytes.len());
    bytes[..end].parse().unwrap()
}

#[test]
fn a_reader_that_takes_nothing_is_given_up_and_its_bytes_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut reader = pipe(dir.path());
    let mut daemon = start(dir.path(), "file=DIR/pipe", &["--once"]);
    drop(send(dir.path()));
    let line = daemon.wait_for("discarded");
    assert!(line.contains(" WARN ") && line.contains("fifo=0"), "{line}");
    assert_eq!(daemon.exit_code(), Some(0));
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    assert_eq!(read.len() + discarded(&line), SENT);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let _reader = pipe(dir.path());
    let mut daemon = start(dir.path(), "file=DIR/pipe", &[]);
    let _driver = send(dir.path());
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for("before the end");
    let begun = Instant::now();
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for("discarded");
    assert_eq!(daemon.exit_code(), Some(0));
    assert!(begun.elapsed() < STALL, "{:?}", begun.elapsed());
}

/// Nobody was there, or is there any more: the end is prompt, and the bytes are counted.
#[rstest]
#[case::socket("unix=DIR/data")]
#[case::nobody_listens("unix=DIR/data,connect")]
#[case::terminal("pty")]
fn nobody_is_waited_for_where_there_is_no_peer(#[case] spec: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = start(dir.path(), spec, &["--once"]);
    let driver = send(dir.path());
    let begun = Instant::now();
    drop(driver);
    let line = daemon.wait_for("discarded");
    assert_eq!(discarded(&line), SENT);
    assert_eq!(daemon.exit_code(), Some(0));
    assert!(begun.elapsed() < STALL, "{:?}", begun.elapsed());
}

/// Bytes in a loopback FIFO are the guest's own.
#[rstest]
fn a_fifo_without_a_host_side_has_nothing_to_discard(#[values("loopback", "null")] spec: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = start(dir.path(), spec, &["--once"]);
    drop(send(dir.path()));
    let mut log = String::new();
    daemon.take_log().read_to_string(&mut log).unwrap();
    assert!(!log.contains("discarded"), "{log}");
    assert_eq!(daemon.exit_code(), Some(0));
}
