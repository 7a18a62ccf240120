// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program among others: QEMU's conventions for backends, systemd's for services, signals.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use rstest::rstest;

use crate::binary::Daemon;
use crate::binary::command;
use crate::binary::driver;
use crate::binary::fails;
use crate::binary::run;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Signals that ask for something else leave the device and its bytes where they are, with and
/// without anybody who does what they ask for.
#[rstest]
fn a_signal_that_asks_for_something_ends_nothing(
    #[values(Signal::SIGHUP, Signal::SIGUSR1)] signal: Signal,
) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut daemon = Daemon::start(&["--socket-path", text(&path)]);
    for _ in 0..3 {
        daemon.signal(signal);
        driver(&path).check_serves(0);
    }
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
    assert!(!path.exists());
}

/// Every other signal that would kill it ends it in order.
#[rstest]
fn any_other_signal_ends_it_in_order(
    #[values(
        Signal::SIGTERM,
        Signal::SIGQUIT,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGIO,
        Signal::SIGXCPU
    )]
    signal: Signal,
) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut daemon = Daemon::start(&["--socket-path", text(&path)]);
    daemon.signal(signal);
    assert_eq!(daemon.exit_code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn capabilities_are_printed_whatever_else_is_on_the_line() {
    let output = run(&["--socket-path", "x", "--print-capabilities", "--anything"]);
    assert_eq!(output.status.code(), Some(0));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["type"], "fifo");
    assert!(output.stderr.is_empty());
}

#[test]
fn a_group_may_connect_to_the_socket_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let group = nix::unistd::getgid().to_string();
    let args = ["--socket-path", text(&path), "--socket-group", &group];
    let _daemon = Daemon::start(&args);
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    assert_eq!(metadata.gid().to_string(), group);
    let other = dir.path().join("other");
    fails(
        &[
            "--socket-path",
            text(&other),
            "--socket-group",
            "no such group",
        ],
        &["no group 'no such group'", "getent group"],
    );
    assert!(!other.exists());
}

/// The program as systemd starts it: `sockets` are descriptors 3 and up.
fn activated(args: &[&str], sockets: &[(&UnixListener, &str)]) -> Command {
    let program = command(args);
    // The shell knows its process id, which the program then has.
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""])
        .arg(program.get_program())
        .args(program.get_args())
        .env_remove("RUST_LOG")
        .env("LISTEN_PID", "0")
        .env("LISTEN_FDS", sockets.len().to_string());
    let names: Vec<_> = sockets.iter().map(|(_, name)| *name).collect();
    shell.env("LISTEN_FDNAMES", names.join(":"));
    // Out of the way of the numbers that they are to have.
    let copies: Vec<_> = sockets
        .iter()
        .map(|(socket, _)| {
            let arg = nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(100);
            nix::fcntl::fcntl(*socket, arg).unwrap()
        })
        .collect();
    let place = move || {
        for (number, copy) in (3..).zip(&copies) {
            // SAFETY: both are plain numbers, and nothing in the child owns the second one.
            if unsafe { libc::dup2(*copy, number) } < 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: it makes async-signal-safe calls only, and allocates nothing.
    unsafe { shell.pre_exec(place) };
    shell
}

/// Sockets handed over by systemd: one for VMMs and one, by its name, for control clients.
#[test]
fn sockets_that_systemd_hands_over_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let (vmm, control) = (dir.path().join("vmm"), dir.path().join("control"));
    let (vmm_socket, control_socket) = (
        UnixListener::bind(&vmm).unwrap(),
        UnixListener::bind(&control).unwrap(),
    );
    let sockets = [(&control_socket, "control"), (&vmm_socket, "unknown")];
    let mut daemon = Daemon::start_command(activated(&[], &sockets));
    driver(&vmm).check_serves(0);
    let status = run(&["ctl", text(&control), "status"]);
    assert_eq!(status.status.code(), Some(0));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
    // They are systemd's.
    assert!(vmm.exists() && control.exists());
}

#[rstest]
#[case::too_many(&["a", "b"], "2 sockets are handed over")]
#[case::only_control(&["control"], "without a socket for VMMs")]
fn sockets_that_mean_nothing_are_an_error(#[case] names: &[&str], #[case] part: &str) {
    let dir = tempfile::tempdir().unwrap();
    let sockets: Vec<_> = names
        .iter()
        .map(|name| UnixListener::bind(dir.path().join(name)).unwrap())
        .collect();
    let named: Vec<_> = sockets.iter().zip(names.iter().copied()).collect();
    let output = activated(&[], &named).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(part), "{stderr}");
}

/// `Type=notify`: ready once the socket is there and the sandbox is entered, stopping at the end.
#[test]
fn the_service_manager_is_told_when_it_is_ready_and_when_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let (notify, path) = (dir.path().join("notify"), dir.path().join("s"));
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut command = command(&["--socket-path", text(&path)]);
    command.env("NOTIFY_SOCKET", &notify);
    let mut daemon = Daemon::start_command(command);
    let mut message = [0; 1000];
    let mut next = || {
        let len = manager.recv(&mut message).unwrap();
        String::from_utf8(message[..len].to_vec()).unwrap()
    };
    assert!(next().starts_with("READY=1\nSTATUS=serving 1 FIFOs on"));
    assert!(path.exists());
    daemon.signal(Signal::SIGTERM);
    assert_eq!(next(), "STOPPING=1");
    assert_eq!(daemon.exit_code(), Some(0));
}

/// A service manager that does not read is no reason to wait.
#[test]
fn a_service_manager_that_does_not_read_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let (notify, path) = (dir.path().join("notify"), dir.path().join("s"));
    let _manager = UnixDatagram::bind(&notify).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    filler.connect(&notify).unwrap();
    while filler.send(b"x").is_ok() {}
    let mut command = command(&["--socket-path", text(&path)]);
    command.env("NOTIFY_SOCKET", &notify);
    let mut daemon = Daemon::start_command(command);
    driver(&path).check_serves(0);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

/// A service manager that cannot be reached is named, and is no reason not to serve.
#[rstest]
#[case::missing("/no/where/notify")]
#[case::of_a_machine("vsock:2:1234")]
#[case::relative("notify")]
fn a_service_manager_that_cannot_be_reached_is_a_warning_with_its_name(#[case] name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut command = command(&["--socket-path", text(&path)]);
    command.env("NOTIFY_SOCKET", name);
    let mut daemon = Daemon::spawn(command);
    let line = daemon.wait_for("NOTIFY_SOCKET");
    assert!(line.contains(" WARN ") && line.contains(name), "{line}");
    daemon.wait_for("serving");
    driver(&path).check_serves(0);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

/// Metrics are for the daemon's user, and a name that leads elsewhere is not followed.
#[test]
fn a_metrics_file_is_private_and_no_link() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let metrics = at("metrics");
    let _daemon = Daemon::start(&["--socket-path", text(&at("s")), "--metrics", text(&metrics)]);
    let mode = fs::metadata(&metrics).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (link, victim) = (at("link"), at("victim"));
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, &link).unwrap();
    fails(
        &[
            "--socket-path",
            text(&at("other")),
            "--metrics",
            text(&link),
        ],
        &[text(&link), "not a regular file"],
    );
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
}
