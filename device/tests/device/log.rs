// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The log's reader: one that has gone, and one that does not read, change nothing of what is served.

use std::fs;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::FcntlArg;
use nix::fcntl::OFlag;
use nix::fcntl::fcntl;
use nix::sys::signal::Signal;
use rstest::rstest;

use crate::binary::Daemon;
use crate::binary::check_end;
use crate::binary::command;
use crate::binary::driver;
use crate::common::Driver;
use crate::common::wait_readable;

/// Only a hang takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon with a FIFO at DIR/data; `filter` is `RUST_LOG`. The second value is readable once the daemon has ended.
fn start(dir: &Path, filter: Option<&str>) -> (Daemon, impl AsRawFd) {
    let (socket, spec) = (
        dir.join("s"),
        format!("unix={}", dir.join("data").display()),
    );
    let mut command = command(&["--socket-path", socket.to_str().unwrap(), "--fifo", &spec]);
    command.envs(filter.map(|filter| ("RUST_LOG", filter)));
    let (daemon, stdout) = Daemon::start_command_with_stdout(command);
    (daemon, stdout.into_inner())
}

/// Each step writes to the log: a peer, a VMM, SIGTERM.
fn serves_and_ends(dir: &Path, mut driver: Driver, mut daemon: Daemon, ended: &impl AsRawFd) {
    let mut peer = UnixStream::connect(dir.join("data")).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    check_end(&mut driver, 0, &mut peer, 1);
    daemon.signal(Signal::SIGTERM);
    wait_readable(ended, "end of the daemon");
    assert_eq!(daemon.exit_code(), Some(0));
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
}

#[rstest]
#[case::limited(None)]
#[case::as_asked(Some("info"))]
fn a_log_without_a_reader_ends_nothing(#[case] filter: Option<&str>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, ended) = start(dir.path(), filter);
    drop(daemon.take_log());
    let driver = driver(&dir.path().join("s"));
    serves_and_ends(dir.path(), driver, daemon, &ended);
}

/// Writes to the pipe of which `reader` is the other end until nothing more fits.
fn fill(reader: &impl AsRawFd) {
    let mut pipe = fs::File::options()
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(format!("/proc/self/fd/{}", reader.as_raw_fd()))
        .unwrap();
    for len in [4096, 1] {
        let error = loop {
            if let Err(error) = pipe.write_all(&vec![b'.'; len]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
}

#[rstest]
#[case::limited(None)]
#[case::as_asked(Some("info"))]
fn a_log_that_nobody_reads_holds_nothing_up(#[case] filter: Option<&str>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, ended) = start(dir.path(), filter);
    let driver = driver(&dir.path().join("s"));
    let log = daemon.take_log();
    fill(log.get_ref());
    serves_and_ends(dir.path(), driver, daemon, &ended);
}

#[test]
fn lines_that_a_full_pipe_did_not_take_are_counted_with_the_next_that_fits() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, _) = start(dir.path(), None);
    let mut log = daemon.take_log();
    let mut driver = driver(&dir.path().join("s"));
    fill(log.get_ref());
    let mut peer = UnixStream::connect(dir.path().join("data")).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    check_end(&mut driver, 0, &mut peer, 1);
    fcntl(log.get_ref(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let error = log.get_mut().read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    fcntl(log.get_ref(), FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    daemon.signal(Signal::SIGTERM);
    let mut text = String::new();
    log.get_mut().read_to_string(&mut text).unwrap();
    let (first, others) = text.split_once('\n').unwrap();
    assert!(
        first.ends_with(" lines left out: standard error was full)"),
        "{text}"
    );
    assert!(others.contains("ending"), "{text}");
}
