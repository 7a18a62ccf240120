// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which files and ports a process in the sandbox reaches: its own, and no others.

use std::env;
use std::fs;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use vhost_device_fifo::sandbox::Needs;
use vhost_device_fifo::sandbox::Sandbox;

use crate::binary::Daemon;
use crate::binary::driver;
use crate::binary::run;

/// The folder in which [`confined`] tries things.
const FOLDER: &str = "CONFINED_FOLDER";

/// Version of the kernel's Landlock; 0 or less if it has none.
fn landlock() -> i64 {
    let version = 1;
    // SAFETY: without attributes the call does no more than to return a number.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, version) }
}

fn errno<T>(result: io::Result<T>) -> i32 {
    result
        .err()
        .and_then(|error| error.raw_os_error())
        .unwrap_or_default()
}

/// What a process does that has entered the sandbox, one word a result.
#[test]
#[ignore = "confines the process for good: the tests below start one for it"]
fn confined() {
    let folder = env::var(FOLDER).expect("it is for other tests to run this one");
    let at = |name: &str| Path::new(&folder).join(name);
    let allowed = TcpListener::bind("127.0.0.1:0").unwrap();
    let forbidden = TcpListener::bind("127.0.0.1:0").unwrap();
    let abstract_name = SocketAddr::from_abstract_name(folder.as_bytes()).unwrap();
    let _abstract = UnixListener::bind_addr(&abstract_name).unwrap();
    let needs = Needs {
        ring_bytes: 8 << 20,
        removed: vec![at("own/socket")],
        reopened: vec![at("log/file")],
        connected: vec![at("peers/socket")],
        tcp_ports: vec![allowed.local_addr().unwrap().port()],
        ..Needs::default()
    };
    let confinement = Sandbox::Kill.enter(&needs).unwrap();
    let append = |name| File::options().append(true).create(true).open(at(name));
    let results = [
        ("remove-own", errno(fs::remove_file(at("own/socket")))),
        ("remove-other", errno(fs::remove_file(at("precious")))),
        ("append-own", errno(append("log/file"))),
        ("append-other", errno(append("precious"))),
        ("create-other", errno(append("new"))),
        ("read", errno(File::open(at("log/file")))),
        ("read-proc", errno(File::open("/proc/self/maps"))),
        (
            "connect-own",
            errno(UnixStream::connect(at("peers/socket"))),
        ),
        (
            "connect-other",
            errno(UnixStream::connect(at("others/socket"))),
        ),
        (
            "tcp-own",
            errno(TcpStream::connect(allowed.local_addr().unwrap())),
        ),
        (
            "tcp-other",
            errno(TcpStream::connect(forbidden.local_addr().unwrap())),
        ),
    ];
    for (name, errno) in results {
        eprintln!("{name}={errno}");
    }
    eprintln!("told={confinement}");
    // Not the test harness's end, which takes more than a daemon may.
    std::process::exit(0);
}

#[test]
fn no_file_and_no_port_but_its_own_is_reached() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for folder in ["own", "log", "peers", "others"] {
        fs::create_dir(at(folder)).unwrap();
    }
    let _peers = UnixListener::bind(at("peers/socket")).unwrap();
    let _others = UnixListener::bind(at("others/socket")).unwrap();
    for file in ["own/socket", "precious", "log/file"] {
        fs::write(at(file), "data").unwrap();
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "landlock::confined", "--nocapture"])
        .env(FOLDER, dir.path())
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{}: {said}", output.status);
    let result = |name: &str| -> String {
        let mut lines = said.lines().filter_map(|line| line.split_once('='));
        lines
            .find(|(found, _)| *found == name)
            .unwrap()
            .1
            .to_owned()
    };
    let version = landlock();
    // What the kernel has it for is refused; what it has not is told, and the filter decides.
    let since = |first: i64, otherwise: i32| {
        let refused = if version >= first {
            libc::EACCES
        } else {
            otherwise
        };
        refused.to_string()
    };
    let opened = if version >= 3 { 0 } else { libc::ENOSYS }.to_string();
    for (name, expected) in [
        ("remove-own", "0".to_owned()),
        ("remove-other", since(1, 0)),
        ("append-own", opened),
        ("append-other", since(3, libc::ENOSYS)),
        ("create-other", since(3, libc::ENOSYS)),
        ("read", libc::ENOSYS.to_string()),
        ("read-proc", libc::ENOSYS.to_string()),
        ("connect-own", "0".to_owned()),
        ("connect-other", since(9, 0)),
        ("tcp-own", "0".to_owned()),
        ("tcp-other", since(4, 0)),
    ] {
        assert_eq!(
            result(name),
            expected,
            "{name} with Landlock {version}: {said}"
        );
    }
    let told = result("told");
    match version {
        ..1 => assert!(told.contains("no Landlock"), "{told}"),
        1..9 => assert!(
            told.contains(&format!("Landlock {version} (an older")),
            "{told}"
        ),
        9.. => assert!(told.contains("Landlock"), "{told}"),
    }
    assert_eq!(fs::read(at("precious")).is_ok(), version >= 1);
}

/// `ctl status` says what the daemon has given up.
#[test]
fn status_tells_the_sandbox_and_its_limits() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for (sandbox, told) in [
        ("kill", "sandbox: seccomp, "),
        ("seccomp", "sandbox: seccomp, "),
        ("log", "sandbox: seccomp that only logs, "),
        ("none", "sandbox: none\n"),
    ] {
        let (socket, control) = (at("s"), at("control"));
        let args = [
            "--socket-path",
            &socket,
            "--control",
            &control,
            "--sandbox",
            sandbox,
        ];
        let mut daemon = Daemon::start(&args);
        driver(Path::new(&socket)).check_serves(0);
        let status = String::from_utf8(run(&["ctl", &control, "status"]).stdout).unwrap();
        assert!(status.contains(told), "{sandbox}: {status}");
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.exit_code(), Some(0));
    }
}

/// SIGHUP after a file was renamed: what comes next is in a new file of that name, and no byte in both
/// or in neither.
#[test]
fn a_renamed_file_is_made_anew_at_sighup() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (socket, log, metrics) = (at("s"), at("log"), at("metrics"));
    let sandbox = if landlock() >= 3 { "kill" } else { "none" };
    let mut daemon = Daemon::start(&[
        "--socket-path",
        &socket,
        "--sandbox",
        sandbox,
        "--metrics",
        &metrics,
        "--fifo",
        &format!("file={log}"),
    ]);
    let mut driver = driver(Path::new(&socket));
    let wait = |path: &str, wanted: &[u8]| {
        while fs::read(path).unwrap_or_default() != wanted {
            std::thread::yield_now();
        }
    };
    driver.send(0, b"before");
    wait(&log, b"before");
    fs::rename(&log, at("log.1")).unwrap();
    fs::rename(&metrics, at("metrics.1")).unwrap();
    driver.send(0, b", still the old one");
    wait(&at("log.1"), b"before, still the old one");
    daemon.signal(Signal::SIGHUP);
    wait(&log, b"");
    while !Path::new(&log).exists() || !Path::new(&metrics).exists() {
        std::thread::yield_now();
    }
    driver.send(0, b"after");
    wait(&log, b"after");
    assert_eq!(fs::read(at("log.1")).unwrap(), b"before, still the old one");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
}
