// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Least privilege: what the daemon has given up once it serves, and what becomes of a process that
//! tries more.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::process::ExitStatus;
use std::thread;

use libc::c_long;
use rstest::rstest;
use vhost_device_fifo::log;
use vhost_device_fifo::sandbox::Needs;
use vhost_device_fifo::sandbox::Sandbox;

use crate::binary::Daemon;
use crate::binary::driver;

/// Tells [`confined`] what to do.
const TASK: &str = "CONFINED_TASK";

/// What a process does that has entered the sandbox.
#[test]
#[ignore = "confines the process for good: the tests below start one for it"]
fn confined() {
    let task = env::var(TASK).expect("it is for other tests to run this one");
    let mut words = task.split(' ');
    let connects = words.next() == Some("connect");
    let needs = Needs {
        connected: connects.then(|| "/no/where".into()).into_iter().collect(),
        ..Needs::default()
    };
    let numbers: Vec<c_long> = words.map(|word| word.parse().unwrap()).collect();
    log::init().unwrap();
    Sandbox::Kill.enter(&needs).unwrap();
    match numbers[..] {
        [number, first, second, third] => call(number, [first, second, third]),
        _ => everyday_life(),
    }
    // Not the test harness's end, which takes more than a daemon may.
    std::process::exit(0);
}

fn call(number: c_long, [first, second, third]: [c_long; 3]) {
    // SAFETY:
    // - No argument is a valid pointer, so the kernel touches no memory of this process.
    // - If the call does something after all, nothing follows but the end of the process.
    unsafe { libc::syscall(number, first, second, third, -1, 0) };
}

/// What libraries do without being asked must not end the daemon.
fn everyday_life() {
    let error = fs::File::open("/dev/null").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSYS));
    let worker = thread::Builder::new().name("worker".to_owned()).spawn(|| {
        // Enough for the heap of this thread to grow, and to shrink when it goes.
        let mut pieces = vec![vec![1_u8; 100_000]; 100];
        pieces.truncate(1);
        pieces.len()
    });
    assert_eq!(worker.unwrap().join().unwrap(), 1);
    assert!(thread::spawn(|| panic!("on purpose")).join().is_err());
}

fn run_confined(task: &str) -> (ExitStatus, String) {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "sandbox::confined", "--nocapture"])
        .env(TASK, task)
        .env("RUST_BACKTRACE", "1")
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status, stderr)
}

/// A forbidden call ends the process.
#[rstest]
#[case::internet_socket(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0)]
#[case::unix_socket(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0)]
#[case::connect(libc::SYS_connect, -1, 0, 0)]
#[case::bind(libc::SYS_bind, -1, 0, 0)]
#[case::socket_option(libc::SYS_setsockopt, -1, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER)]
#[case::program(libc::SYS_execve, 0, 0, 0)]
#[case::child(libc::SYS_clone, libc::SIGCHLD, 0, 0)]
#[case::namespace(libc::SYS_clone, libc::CLONE_THREAD | libc::CLONE_NEWNET, 0, 0)]
#[case::new_namespace(libc::SYS_unshare, libc::CLONE_NEWUSER, 0, 0)]
#[case::executable_memory(libc::SYS_mmap, 0, 4096, libc::PROT_READ | libc::PROT_EXEC)]
#[case::memory_made_executable(libc::SYS_mprotect, 0, 0, libc::PROT_EXEC)]
#[case::shared_memory(libc::SYS_memfd_create, 0, 0, 0)]
#[case::file(libc::SYS_openat2, libc::AT_FDCWD, 0, 0)]
#[case::rename(libc::SYS_renameat2, libc::AT_FDCWD, 0, libc::AT_FDCWD)]
#[case::mode(libc::SYS_fchmodat, libc::AT_FDCWD, 0, 0)]
#[case::debugging(libc::SYS_ptrace, 0, 0, 0)]
#[case::other_memory(libc::SYS_process_vm_writev, 1, 0, 0)]
#[case::signal(libc::SYS_kill, 1, 0, 0)]
#[case::signal_to_thread(libc::SYS_tgkill, 1, 1, 0)]
#[case::signal_by_descriptor(libc::SYS_fcntl, 0, libc::F_SETOWN, 1)]
#[case::typing_on_a_terminal(libc::SYS_ioctl, 0, libc::TIOCSTI as i32, 0)]
#[case::limits(libc::SYS_prlimit64, 0, 7, 0)]
#[case::dumps(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0)]
#[case::bpf(libc::SYS_bpf, 0, 0, 0)]
#[case::io_uring(libc::SYS_io_uring_setup, 1, 0, 0)]
fn a_forbidden_call_ends_it(
    #[case] number: c_long,
    #[case] first: i32,
    #[case] second: i32,
    #[case] third: i32,
) {
    let (status, stderr) = run_confined(&format!("serve {number} {first} {second} {third}"));
    assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}: {stderr}");
}

/// Connecting is for those who need it, and for UNIX sockets.
#[rstest]
#[case::unix("connect", libc::AF_UNIX, None)]
#[case::internet("connect", libc::AF_INET6, Some(libc::SIGSYS))]
fn connecting_takes_unix_sockets_only(
    #[case] needs: &str,
    #[case] family: i32,
    #[case] signal: Option<i32>,
) {
    let (number, kind) = (libc::SYS_socket, libc::SOCK_STREAM);
    let (status, stderr) = run_confined(&format!("{needs} {number} {family} {kind} 0"));
    assert_eq!(status.signal(), signal, "{status}: {stderr}");
}

#[test]
fn what_libraries_try_by_themselves_does_not_end_it() {
    let (status, stderr) = run_confined("serve");
    assert!(status.success(), "{status}: {stderr}");
    assert!(stderr.contains("on purpose"), "{stderr}");
}

/// The fields of a `status` file in /proc.
fn status(path: &Path) -> HashMap<String, String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .filter_map(|line| line.split_once(":\t"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The `status` files of all threads of a process.
fn threads(pid: u32) -> Vec<HashMap<String, String>> {
    fs::read_dir(format!("/proc/{pid}/task"))
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .unwrap()
        .iter()
        .map(|task| status(&task.path().join("status")))
        .collect()
}

/// No capability, no way to new ones, and the filter: on every thread while a VMM is served.
#[test]
fn a_daemon_that_serves_has_given_up_its_rights() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let daemon = Daemon::start(&["--socket-path", path.to_str().unwrap()]);
    let mut driver = driver(&path);
    driver.check_serves(0);
    let threads = threads(daemon.pid());
    assert!(threads.len() >= 3, "{threads:?}");
    for thread in &threads {
        for none in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(
                thread[none], "0000000000000000",
                "{none} of {}",
                thread["Name"]
            );
        }
        assert_eq!(thread["NoNewPrivs"], "1", "{}", thread["Name"]);
        assert_eq!(thread["Seccomp"], "2", "{}", thread["Name"]);
    }
    let own = u64::from_str_radix(&status(Path::new("/proc/self/status"))["CapEff"], 16).unwrap();
    if own & (1 << caps::Capability::CAP_SETPCAP.index()) != 0 {
        assert!(
            threads
                .iter()
                .all(|thread| thread["CapBnd"] == "0000000000000000")
        );
    }
}

/// Files, memory and core files are limited; memory by what the FIFOs need.
#[test]
fn a_daemon_that_serves_is_limited() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let daemon = Daemon::start(&[
        "--socket-path",
        path.to_str().unwrap(),
        "--fifo",
        "loopback,capacity=8M",
    ]);
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    for (name, most) in [
        ("Max open files", "1024"),
        ("Max data size", "83886080"),
        ("Max core file size", "0"),
    ] {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        let values: Vec<_> = line[name.len()..].split_whitespace().collect();
        assert_eq!(values[..2], [most, most], "{line}");
    }
}

/// `--sandbox none` gives up nothing.
#[test]
fn no_sandbox() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let daemon = Daemon::start(&["--sandbox", "none", "--socket-path", path.to_str().unwrap()]);
    // Connected to the end: its threads must not go while they are looked at.
    let mut driver = driver(&path);
    driver.check_serves(0);
    let own = status(Path::new("/proc/self/status"));
    for thread in threads(daemon.pid()) {
        for same in ["CapEff", "CapBnd", "NoNewPrivs", "Seccomp"] {
            assert_eq!(thread[same], own[same], "{same}");
        }
    }
}
