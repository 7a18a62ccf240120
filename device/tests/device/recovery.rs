// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What has died, or is busy, holds nothing up: a daemon's leftovers, a queue worker, a FIFO's lock.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use nix::sys::signal::Signal;
use rstest::rstest;
use virtio_fifo_protocol::virtio_fifo::rx_queue;
use virtio_fifo_protocol::virtio_fifo::tx_queue;

use crate::binary::Daemon;
use crate::binary::fails;
use crate::common::Host;

const TX: u16 = tx_queue(0);
const RX: u16 = rx_queue(0);

/// A daemon that was killed leaves files behind; the same command line works again.
#[rstest]
#[case::unix("unix=DIR/data")]
#[case::unix_connect("unix=DIR/theirs,connect")]
#[case::pty("pty")]
#[case::pty_link("pty,link=DIR/tty")]
#[case::file("file=DIR/log,input=DIR/input")]
#[case::pattern("pattern")]
fn a_killed_daemon_can_be_started_again(#[case] spec: &str) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    fs::write(dir.path().join("input"), "input").unwrap();
    let _theirs = UnixListener::bind(dir.path().join("theirs")).unwrap();
    let at = |name: &str| format!("{folder}/{name}");
    let spec = spec.replace("DIR", folder);
    let (socket, control, metrics) = (at("s"), at("control"), at("metrics"));
    let args = [
        "--socket-path",
        &socket,
        "--control",
        &control,
        "--metrics",
        &metrics,
        "--fifo",
        &spec,
    ];
    for _ in 0..3 {
        let mut daemon = Daemon::start(&args);
        if spec.contains("link") {
            let path = fs::read_link(at("tty")).unwrap();
            assert!(path.starts_with("/dev/pts") && path.exists(), "{path:?}");
        }
        daemon.signal(Signal::SIGKILL);
        daemon.exit_code();
    }
    let mut daemon = Daemon::start(&args);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
    for name in ["s", "control", "data", "tty"] {
        assert!(!Path::new(&at(name)).is_symlink() && !Path::new(&at(name)).exists());
    }
    let left = fs::read_dir(dir.path()).unwrap();
    let locks = left.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_str().unwrap().contains("lock")
    });
    assert_eq!(locks.count(), 0, "an orderly end leaves no lock");
}

/// What a daemon that lives has made stays, whichever option another one names it by.
#[test]
fn what_a_living_daemon_has_made_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (socket, link) = (at("s"), format!("pty,link={}", at("tty")));
    let _daemon = Daemon::start(&["--socket-path", &socket, "--fifo", &link]);
    let pty = fs::read_link(at("tty")).unwrap();
    fails(&["--socket-path", &socket], &[&socket, "in use"]);
    fails(
        &["--socket-path", &at("other"), "--fifo", &link],
        &[&at("tty"), "left alone"],
    );
    assert_eq!(fs::read_link(at("tty")).unwrap(), pty);
}

/// A queue worker that has ended is noticed: its VMM is told by the end of the connection, and the
/// next one is served.
#[test]
fn a_dead_queue_worker_ends_the_connection_and_the_next_vmm_is_served() {
    let host = Host::new(&["loopback"]);
    let mut driver = host.driver();
    driver.send(0, b"kept");
    driver.break_kick(TX);
    driver.wait_disconnected();
    let mut driver = host.driver();
    assert_eq!(driver.read_some(0, 10), b"kept");
    driver.check_serves(0);
}

/// An eventfd of the VMM's that is full and blocks holds nobody up.
#[test]
fn an_interrupt_that_would_block_does_not_stop_the_queue_worker() {
    let host = Host::new(&["loopback", "loopback"]);
    let mut driver = host.driver();
    driver.block_interrupts(RX);
    driver.post_rx(0, 100);
    driver.send(0, b"interrupts");
    driver.check_serves(1);
    drop(driver);
    let mut driver = host.driver();
    assert_eq!(driver.read_some(0, 100), b"interrupts");
}

/// A FIFO is not locked for a whole pass over a queue: whoever else needs it, as the event loop does,
/// has its turn between two messages.
#[test]
fn a_long_pass_lets_others_at_the_fifo_between_two_messages() {
    // Room for all of it: a refused message would count as a turn.
    let host = Host::new(&["null,capacity=1M"]);
    let mut driver = host.driver();
    let messages = || host.device.fifo(0).unwrap().status().tx.messages;
    for round in 0..2000 {
        let before = messages();
        let watching = Barrier::new(2);
        let between = thread::scope(|scope| {
            let watch = scope.spawn(|| {
                messages();
                watching.wait();
                loop {
                    let now = messages();
                    if now > before {
                        return now < before + 100;
                    }
                }
            });
            // A thread that has yet to start would miss the pass on a busy machine.
            watching.wait();
            driver.at_once(TX, |driver| {
                for _ in 0..100 {
                    let header = driver.tx_header(0);
                    driver.post_tx(0, header, b"x");
                    driver.streams[0].sent += 1;
                }
            });
            driver.kick(TX);
            for _ in 0..100 {
                driver.wait_used(TX);
            }
            watch.join().unwrap()
        });
        if between {
            return;
        }
        // The watcher had no CPU while the pass went on. That is chance; twice is less of it.
        assert!(round < 1999, "never a turn in the middle of 2000 passes");
    }
}
