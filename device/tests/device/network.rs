// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! FIFOs on TCP connections, and on standard input and output, in the sandbox.

use std::io::BufRead;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use rstest::rstest;
use vhost_device_fifo::backend::FEATURES;
use virtio_fifo_protocol::virtio_fifo::STATE_HANGUP;
use virtio_fifo_protocol::virtio_fifo::STATE_RX_END;

use crate::binary::Daemon;
use crate::binary::check_end;
use crate::binary::command;
use crate::binary::driver;
use crate::binary::fails;
use crate::common::Driver;

/// Peers come one after another; the port is told, and can be had again at once.
#[rstest]
#[case::ipv4("127.0.0.1")]
#[case::name("localhost")]
fn peers_connect_to_a_tcp_port(#[case] host: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut port = "0".to_owned();
    for _ in 0..2 {
        let spec = format!("tcp={host}:{port},listen");
        let args = ["--socket-path", path.to_str().unwrap(), "--fifo", &spec];
        let (mut daemon, mut stdout) = Daemon::start_with_stdout(&args);
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("fifo 0: tcp ").unwrap().to_owned();
        let mut driver = driver(&path);
        for round in 0..3 {
            let mut peer = TcpStream::connect(&address).unwrap();
            check_end(&mut driver, 0, &mut peer, round);
            drop(peer);
            // TCP does not say whether it is gone; the next one finds its place free even so.
            driver.wait_state(0, |state| state.flags == STATE_RX_END);
        }
        port = address.rsplit(':').next().unwrap().to_owned();
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.exit_code(), Some(0));
    }
}

/// The device connects, and again when the connection is lost, also where nobody listens at first.
#[test]
fn the_device_connects_to_a_tcp_port() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let spec = format!("tcp={address}");
    let args = ["--socket-path", path.to_str().unwrap(), "--fifo", &spec];
    let mut daemon = Daemon::start(&args);
    daemon.wait_for("nobody to connect to yet");
    let mut driver = driver(&path);
    let listener = TcpListener::bind(address).unwrap();
    for round in 0..3 {
        let (mut peer, _) = listener.accept().unwrap();
        check_end(&mut driver, 0, &mut peer, round);
        drop(peer);
        driver.wait_state(0, |state| state.flags == STATE_RX_END);
        // That the peer is gone shows when it is sent something.
        driver.send(0, b"lost with it");
    }
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

/// A peer that has said all it will gets what the guest writes, as long as no other one comes.
#[test]
fn a_half_closed_tcp_peer_gets_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let spec = "tcp=127.0.0.1:0,listen";
    let args = ["--socket-path", path.to_str().unwrap(), "--fifo", spec];
    let (_daemon, mut stdout) = Daemon::start_with_stdout(&args);
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("fifo 0: tcp ").unwrap();
    let mut driver = driver(&path);
    let mut peer = TcpStream::connect(address).unwrap();
    peer.write_all(b"question").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(driver.read_exact(0, 8), b"question");
    driver.wait_state(0, |state| state.flags == STATE_RX_END);
    driver.send(0, b"answer");
    let mut bytes = [0; 6];
    peer.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"answer");
    let mut next = TcpStream::connect(address).unwrap();
    check_end(&mut driver, 0, &mut next, 1);
    assert_eq!(peer.read(&mut bytes).unwrap(), 0);
}

#[test]
fn a_port_that_is_taken_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let spec = format!("tcp={address},listen");
    fails(
        &["--socket-path", path.to_str().unwrap(), "--fifo", &spec],
        &["cannot listen at", &address],
    );
}

/// What comes in at standard input is read by the driver, to its end; what the driver writes goes to
/// standard output, and nothing else does.
#[test]
fn standard_input_and_output_are_the_ends_of_a_fifo() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let args = [
        "--socket-path",
        path.to_str().unwrap(),
        "--fifo",
        "stdio",
        "--fifo",
        "pty",
    ];
    let mut child = command(&args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(log.any(|line| line.unwrap().starts_with("fifo 1: pty ")));
    assert!(log.any(|line| line.unwrap().contains("serving")));
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut driver = two_fifos(&path);
    stdin.write_all(b"typed").unwrap();
    assert_eq!(driver.read_exact(0, 5), b"typed");
    driver.send(0, b"printed");
    let mut bytes = [0; 7];
    stdout.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"printed");
    drop(stdin);
    driver.wait_state(0, |state| state.flags == STATE_RX_END);
    drop(stdout);
    driver.wait_state(0, |state| state.flags == STATE_HANGUP);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

fn two_fifos(path: &Path) -> Driver {
    let mut driver = Driver::connect(path, 2, FEATURES);
    driver.start(&[]);
    driver.init();
    driver
}

#[test]
fn there_is_one_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let path = path.to_str().unwrap();
    fails(
        &["--socket-path", path, "--fifo", "stdio", "--fifo", "stdio"],
        &["given twice"],
    );
}
