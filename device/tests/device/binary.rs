// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program: its command line, its socket, its signals and its exit status.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::process::ChildStderr;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use nix::fcntl::FcntlArg;
use nix::fcntl::FdFlag;
use nix::fcntl::fcntl;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use rstest::rstest;
use vhost_device_fifo::backend::FEATURES;

use crate::common::Driver;

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-device-fifo"));
    command
        .args(args)
        .env_remove("RUST_LOG")
        .env("NO_COLOR", "1");
    command
}

/// A daemon that is ready; it dies with the test.
pub struct Daemon {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Daemon {
    pub fn start(args: &[&str]) -> Self {
        let mut child = command(args).stderr(Stdio::piped()).spawn().unwrap();
        let mut daemon = Self {
            stderr: BufReader::new(child.stderr.take().unwrap()),
            child,
        };
        daemon.wait_for("serving");
        daemon
    }

    /// Reads the log up to a line that contains `part`.
    fn wait_for(&mut self, part: &str) {
        let mut log = String::new();
        while self.stderr.read_line(&mut log).unwrap() > 0 {
            if log.lines().last().is_some_and(|line| line.contains(part)) {
                return;
            }
        }
        panic!("ended without '{part}': {log}");
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id()))
            .unwrap()
            .count()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn driver(path: &Path) -> Driver {
    let mut driver = Driver::connect(path, 1, FEATURES);
    driver.start(&[]);
    driver.init();
    driver
}

/// A signal ends it with status 0, its socket removed, while a VMM is connected and while none is.
#[rstest]
fn a_signal_ends_it(
    #[values(Signal::SIGTERM, Signal::SIGINT)] signal: Signal,
    #[values(true, false)] connected: bool,
) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut daemon = Daemon::start(&["--socket-path", path.to_str().unwrap()]);
    let driver = connected.then(|| {
        let mut driver = driver(&path);
        driver.check_serves(0);
        driver
    });
    daemon.signal(signal);
    assert_eq!(daemon.exit_code(), Some(0));
    assert!(!path.exists());
    drop(driver);
}

/// One VMM after another finds the same device, and none of them leaves anything open behind.
#[test]
fn vmm_after_vmm_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let daemon = Daemon::start(&["--socket-path", path.to_str().unwrap()]);
    let mut open = Vec::new();
    for _ in 0..30 {
        let mut driver = driver(&path);
        driver.check_serves(0);
        open.push(daemon.open_files());
    }
    assert_eq!(open.first(), open.last(), "{open:?}");
}

/// `--once`: the first VMM that chose features was the one; whoever only knocked was not.
#[test]
fn once_is_one_vmm() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut daemon = Daemon::start(&["--once", "--socket-path", path.to_str().unwrap()]);
    drop(UnixStream::connect(&path).unwrap());
    let driver = driver(&path);
    drop(driver);
    assert_eq!(daemon.exit_code(), Some(0));
    assert!(!path.exists());
}

/// Rubbish on the socket costs its sender the connection and nothing more.
#[test]
fn rubbish_on_the_socket() {
    use std::io::Write;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let _daemon = Daemon::start(&["--socket-path", path.to_str().unwrap()]);
    for len in [1, 12, 4096] {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(&vec![0xa5; len]).unwrap();
    }
    driver(&path).check_serves(0);
}

/// Opens `fd` to child processes.
fn inheritable(socket: &impl std::os::fd::AsFd) -> RawFd {
    fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    socket.as_fd().as_raw_fd()
}

/// `--socket-fd`: an inherited socket serves as well, and its file is its owner's business.
#[test]
fn an_inherited_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let fd = inheritable(&listener);
    let mut daemon = Daemon::start(&["--socket-fd", &fd.to_string()]);
    driver(&path).check_serves(0);
    driver(&path).check_serves(0);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
    assert!(path.exists());
}

pub fn run(args: &[&str]) -> Output {
    command(args).stdin(Stdio::null()).output().unwrap()
}

/// What the world refuses: status 1 and one line that says what and where.
pub fn fails(args: &[&str], parts: &[&str]) {
    let output = run(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "'{part}' is not in: {stderr}");
    }
}

#[test]
fn a_path_in_use_or_unusable() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let text = path.to_str().unwrap();
    let _daemon = Daemon::start(&["--socket-path", text]);
    fails(&["--socket-path", text], &[text, "in use"]);
    // The one that runs is unharmed.
    driver(&path).check_serves(0);
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let text = file.to_str().unwrap();
    fails(&["--socket-path", text], &[text, "is not a socket"]);
    let missing = dir.path().join("missing/s");
    let text = missing.to_str().unwrap();
    fails(&["--socket-path", text], &["missing", "does not exist"]);
    let long = dir.path().join("x".repeat(200));
    fails(
        &["--socket-path", long.to_str().unwrap()],
        &["too long", "107"],
    );
    fails(&["--socket-path", "/proc/s"], &["/proc/s", "cannot create"]);
}

#[test]
fn descriptors_that_are_no_listening_socket() {
    let (connected, _peer) = UnixStream::pair().unwrap();
    let fd = inheritable(&connected).to_string();
    fails(&["--socket-fd", &fd], &[&fd, "not listening"]);
    let file = fs::File::open("/dev/null").unwrap();
    let fd = inheritable(&file).to_string();
    fails(&["--socket-fd", &fd], &[&fd, "not an open socket"]);
    let inet = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let fd = inheritable(&inet).to_string();
    fails(&["--socket-fd", &fd], &[&fd, "not a UNIX stream socket"]);
    fails(&["--socket-fd", "999"], &["999", "not an open socket"]);
    fails(&["--socket-fd", "0"], &["standard stream"]);
}

/// What the command line has wrong: status 2, and the option is named.
#[rstest]
#[case(&[], "--socket-path")]
#[case(&["--socket-path", "/tmp/s", "--capacity", "0"], "--capacity")]
#[case(&["--socket-path", "/tmp/s", "--fifo", "loopback,capacity=x"], "not a number")]
#[case(&["--socket-path", "/tmp/s", "--fifo", "file"], "write 'file=PATH'")]
#[case(&["--socket-path", "/tmp/s", "--bogus"], "--bogus")]
fn usage_errors(#[case] args: &[&str], #[case] part: &str) {
    let output = run(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains(part), "{stderr}");
}

#[test]
fn capabilities_are_one_line_of_json() {
    let output = run(&["--print-capabilities", "--fifo", "loopback"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        concat!(
            r#"{"type":"fifo","features":[],"virtio-id":37,"num-fifos":1,"num-queues":4,"#,
            r#""queue-size":1024,"config-size":4}"#,
            "\n"
        )
    );
}
