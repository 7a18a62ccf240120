// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program: its command line, its socket, its signals and its exit status.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::process::ChildStderr;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::FcntlArg;
use nix::fcntl::FdFlag;
use nix::fcntl::fcntl;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use rstest::rstest;
use vhost_device_fifo::backend::FEATURES;
use virtio_fifo_protocol::virtio_fifo::STATE_ERROR;
use virtio_fifo_protocol::virtio_fifo::STATE_HANGUP;
use virtio_fifo_protocol::virtio_fifo::STATE_RX_END;

use crate::common::Driver;

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-device-fifo"));
    command.args(args).env_remove("RUST_LOG");
    command
}

/// A daemon that is ready; it dies with the test.
pub struct Daemon {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Daemon {
    pub fn start(args: &[&str]) -> Self {
        Self::start_with_line(args).0
    }

    /// As [`Daemon::start`], with the line of the log that says so.
    fn start_with_line(args: &[&str]) -> (Self, String) {
        Self::started(command(args))
    }

    /// As [`Daemon::start`], with a command of the test's own.
    pub fn start_command(command: Command) -> Self {
        Self::started(command).0
    }

    /// As [`Daemon::start_command`], of which nothing was read of the log yet.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        Self {
            stderr: BufReader::new(child.stderr.take().unwrap()),
            child,
        }
    }

    fn started(command: Command) -> (Self, String) {
        let mut daemon = Self::spawn(command);
        let line = daemon.wait_for("serving");
        (daemon, line)
    }

    /// As [`Daemon::start`], with what it prints.
    pub fn start_with_stdout(args: &[&str]) -> (Self, BufReader<ChildStdout>) {
        Self::start_command_with_stdout(command(args))
    }

    /// As [`Daemon::start_with_stdout`], with a command of the test's own.
    pub fn start_command_with_stdout(mut command: Command) -> (Self, BufReader<ChildStdout>) {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut daemon = Self {
            stderr: BufReader::new(child.stderr.take().unwrap()),
            child,
        };
        daemon.wait_for("serving");
        (daemon, stdout)
    }

    /// Time that it has spent computing, in hundredths of a second.
    fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let times = fields.split_whitespace().skip(11).take(2);
        times.map(|time| time.parse::<u64>().unwrap()).sum()
    }

    /// Reads the log up to a line that contains `part`, and gives that.
    pub fn wait_for(&mut self, part: &str) -> String {
        let mut log = String::new();
        while self.stderr.read_line(&mut log).unwrap() > 0 {
            if let Some(line) = log.lines().last().filter(|line| line.contains(part)) {
                return line.to_owned();
            }
        }
        panic!("ended without '{part}': {log}");
    }

    /// The end of the log that is read, for the test to close or to leave unread.
    pub fn take_log(&mut self) -> BufReader<ChildStderr> {
        let nothing = OwnedFd::from(fs::File::open("/dev/null").unwrap());
        std::mem::replace(&mut self.stderr, BufReader::new(nothing.into()))
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

/// No colours for files and journals.
#[test]
fn the_log_is_plain_text_that_names_what_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let socket = socket.to_str().unwrap();
    let (_daemon, line) =
        Daemon::start_with_line(&["--socket-path", socket, "--fifo", "pattern,seed=7"]);
    let tail = format!(
        r#" INFO vhost_device_fifo: serving socket="{socket}" virtio_id=37 fifos=["pattern,seed=7,capacity=4096"]"#
    );
    assert!(line.ends_with(&tail), "{line:?}");
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

/// A daemon with one FIFO.
fn fifo(dir: &Path, spec: &str) -> [String; 4] {
    let socket = dir.join("vmm").display().to_string();
    let spec = spec.replace("DIR", dir.to_str().unwrap());
    ["--socket-path".into(), socket, "--fifo".into(), spec]
}

/// What a FIFO cannot end at: the path and what to do, and nothing is harmed or left behind.
#[rstest]
#[case::in_use("unix=DIR/living", &["DIR/living", "in use", "another path"])]
#[case::precious("unix=DIR/file", &["DIR/file", "is not a socket"])]
#[case::no_folder("unix=DIR/no/s", &["DIR/no", "does not exist"])]
#[case::too_long(&format!("unix=DIR/{}", "x".repeat(200)), &["too long", "107", "shorter path"])]
#[case::connect_too_long(&format!("unix=DIR/{},connect", "x".repeat(200)), &["too long", "107"])]
#[case::connect_to_a_file("unix=DIR/file,connect", &["DIR/file", "is not a socket"])]
#[case::link_taken("pty,link=DIR/file", &["DIR/file", "exists", "another link=PATH"])]
#[case::link_nowhere("pty,link=DIR/no/tty", &["DIR/no/tty", "cannot make the link"])]
#[case::folder("file=DIR", &["DIR", "folder"])]
#[case::socket("file=DIR/living", &["DIR/living", "use unix=PATH,connect"])]
#[case::no_input("file=DIR/new,input=DIR/absent", &["DIR/absent", "No such file"])]
fn ends_that_cannot_be(#[case] spec: &str, #[case] parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let _living = UnixListener::bind(dir.path().join("living")).unwrap();
    fs::write(dir.path().join("file"), "precious").unwrap();
    let before = fs::read_dir(dir.path()).unwrap().count();
    let args = fifo(dir.path(), spec);
    let here = dir.path().to_str().unwrap();
    let parts: Vec<_> = parts.iter().map(|part| part.replace("DIR", here)).collect();
    let parts: Vec<_> = parts.iter().map(String::as_str).collect();
    fails(&args.each_ref().map(String::as_str), &parts);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), before);
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"precious");
    UnixStream::connect(dir.path().join("living")).unwrap();
}

/// Two daemons on one path: the second is told, the first serves on. One that was killed leaves a
/// socket, which is replaced.
#[test]
fn two_daemons_on_the_path_of_a_fifo() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("1"), dir.path().join("2"));
    let spec = format!("unix={}", dir.path().join("data").display());
    let args = |socket: &Path| {
        let socket = socket.display().to_string();
        [
            "--socket-path".into(),
            socket,
            "--fifo".into(),
            spec.clone(),
        ]
    };
    let mut daemon = Daemon::start(&args(&first).each_ref().map(String::as_str));
    fails(&args(&second).each_ref().map(String::as_str), &["in use"]);
    let mut peer = UnixStream::connect(dir.path().join("data")).unwrap();
    peer.write_all(b"hello").unwrap();
    let mut driver = driver(&first);
    assert_eq!(driver.read_some(0, 100), b"hello");
    daemon.signal(Signal::SIGKILL);
    daemon.exit_code();
    assert!(dir.path().join("data").exists());
    let _daemon = Daemon::start(&args(&second).each_ref().map(String::as_str));
    UnixStream::connect(dir.path().join("data")).unwrap();
}

/// Every kind of end does all it does in the sandbox, and a signal removes what was made.
#[test]
fn every_end_works_in_the_sandbox() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("input"), "input").unwrap();
    let specs = [
        format!("unix={}", at("data").display()),
        format!("unix={},connect", at("theirs").display()),
        format!("pty,link={}", at("tty").display()),
        format!(
            "file={},input={}",
            at("log").display(),
            at("input").display()
        ),
        "pattern".to_owned(),
    ];
    let vmm = at("vmm");
    let mut args = vec!["--socket-path", vmm.to_str().unwrap()];
    for spec in &specs {
        args.extend(["--fifo", spec]);
    }
    let (mut daemon, mut stdout) = Daemon::start_with_stdout(&args);
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let pty = fs::read_link(at("tty")).unwrap();
    assert_eq!(line, format!("fifo 2: pty {}\n", pty.display()));
    let mut driver = Driver::connect(&vmm, 5, FEATURES);
    driver.start(&[]);
    driver.init();
    for round in 0..3_u8 {
        let mut peer = UnixStream::connect(at("data")).unwrap();
        check_end(&mut driver, 0, &mut peer, round);
        drop(peer);
        let listener = UnixListener::bind(at("theirs")).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        fs::remove_file(at("theirs")).unwrap();
        check_end(&mut driver, 1, &mut peer, round);
        drop((listener, peer));
        let mut slave = fs::File::options()
            .read(true)
            .write(true)
            .open(&pty)
            .unwrap();
        check_end(&mut driver, 2, &mut slave, round);
        drop(slave);
        for fifo in 0..3 {
            driver.wait_state(fifo, |state| state.flags == STATE_HANGUP);
        }
    }
    driver.send(3, b"output");
    assert_eq!(driver.read_some(3, 100), b"input");
    driver.wait_state(3, |state| {
        state.flags == STATE_RX_END && state.tx_limit == 4096 + 6
    });
    assert_eq!(fs::read(at("log")).unwrap(), b"output");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
    for name in ["data", "tty", "vmm"] {
        assert!(!at(name).is_symlink() && !at(name).exists(), "{name}");
    }
}

/// Bytes go from the driver to `peer` and back.
pub fn check_end(driver: &mut Driver, fifo: u16, peer: &mut (impl Read + Write), round: u8) {
    peer.write_all(&[round; 7]).unwrap();
    assert_eq!(driver.read_exact(fifo, 7), [round; 7]);
    driver.send(fifo, &[!round; 9]);
    let mut bytes = [0; 9];
    peer.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, [!round; 9]);
}

/// Ends that are gone, half-closed, full, or cannot be reached are waited for, not asked again and
/// again.
#[test]
fn waiting_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let specs = [
        format!("unix={},capacity=10", at("data").display()),
        format!("unix={}", at("half").display()),
        format!("unix={},connect", at("theirs").display()),
        format!("pty,link={}", at("tty").display()),
        "file=/dev/full,input=/dev/zero".to_owned(),
        format!("file={},input=/dev/null", at("log").display()),
    ];
    let vmm = at("vmm");
    let mut args = vec!["--socket-path", vmm.to_str().unwrap()];
    for spec in &specs {
        args.extend(["--fifo", spec]);
    }
    let daemon = Daemon::start(&args);
    let mut driver = Driver::connect(&vmm, 6, FEATURES);
    driver.start(&[]);
    driver.init();
    // More than there is room for, from a peer that is gone.
    let mut peer = UnixStream::connect(at("data")).unwrap();
    peer.write_all(&[7; 1000]).unwrap();
    drop(peer);
    let half = UnixStream::connect(at("half")).unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    drop(
        fs::File::options()
            .read(true)
            .write(true)
            .open(at("tty"))
            .unwrap(),
    );
    for fifo in [3, 4] {
        driver.send(fifo, b"nobody takes it");
    }
    driver.wait_state(0, |state| state.rx_end == 10);
    driver.wait_state(1, |state| state.flags == STATE_RX_END);
    driver.wait_state(3, |state| state.flags == STATE_HANGUP);
    driver.wait_state(4, |state| state.flags == STATE_ERROR);
    driver.wait_state(5, |state| state.flags == STATE_RX_END);
    // Nothing announces that nothing happens.
    let before = daemon.cpu_ticks();
    std::thread::sleep(Duration::from_millis(500));
    let spent = daemon.cpu_ticks() - before;
    // Half a second is 50 of them; attempts to connect cost next to nothing.
    assert!(spent < 10, "{spent} ticks");
    drop(half);
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
            r#""queue-size":1024,"config-size":12}"#,
            "\n"
        )
    );
}
