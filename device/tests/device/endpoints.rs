// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What FIFOs end at on the host: sockets, pseudo-terminals, files, patterns.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::thread;

use nix::sys::stat::Mode;
use nix::sys::termios::LocalFlags;
use nix::sys::termios::OutputFlags;
use nix::sys::termios::tcgetattr;
use nix::unistd::mkfifo;
use rstest::rstest;
use tempfile::TempDir;
use vhost_device_fifo::fifo::Connection;
use vhost_device_fifo::pattern::Pattern;
use vhost_device_fifo::refusal::Refusal;
use virtio_fifo_protocol::virtio_fifo::STATE_ERROR;
use virtio_fifo_protocol::virtio_fifo::STATE_HANGUP;
use virtio_fifo_protocol::virtio_fifo::STATE_RX_END;
use virtio_fifo_protocol::virtio_fifo::State;
use virtio_fifo_protocol::virtio_fifo::tx_queue;

use crate::common::Driver;
use crate::common::Host;

/// A folder and a path in it.
fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("end");
    (dir, path)
}

fn bytes(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Pattern::new(99).fill(0, &mut bytes);
    bytes
}

fn read_exact(from: &mut impl Read, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes).unwrap();
    bytes
}

/// The next event whose flags are these. (Others tell of credit.)
fn wait_flags(driver: &mut Driver, flags: u32) -> State {
    loop {
        let state = driver.wait_event();
        driver.post_event();
        if state.flags == flags {
            return state;
        }
    }
}

fn listening(options: &str) -> (TempDir, PathBuf, Host) {
    let (dir, path) = place();
    let host = Host::new(&[&format!("unix={}{options}", path.display()), "loopback"]);
    (dir, path, host)
}

/// DEV-16: from before the first peer to after the second, each change told by an event.
#[test]
fn peers_come_and_go() {
    let (_dir, path, host) = listening("");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let mut driver = host.driver();
    driver.post_event();
    // Nobody was there yet: no hang-up, and bytes wait.
    driver.send(0, b"stored");
    assert_eq!(driver.state(0).flags, 0);
    let mut peer = UnixStream::connect(&path).unwrap();
    assert_eq!(read_exact(&mut peer, 6), b"stored");
    peer.write_all(b"hello").unwrap();
    assert_eq!(driver.read_some(0, 100), b"hello");
    driver.send(0, b"and back");
    assert_eq!(read_exact(&mut peer, 8), b"and back");
    drop(peer);
    let state = wait_flags(&mut driver, STATE_HANGUP);
    assert_eq!(state.rx_end, 5);
    // A peer that is there again is no hang-up any more.
    let mut peer = UnixStream::connect(&path).unwrap();
    wait_flags(&mut driver, 0);
    peer.write_all(b"again").unwrap();
    assert_eq!(driver.read_some(0, 100), b"again");
    let status = host.device.fifo(0).unwrap().status();
    assert_eq!(
        (status.connection, status.peers),
        (Connection::Connected, 2)
    );
    assert_eq!((status.rx.entered, status.tx.left), (10, 14));
    driver.check_serves(1);
    assert_eq!(host.all_refused(), 0);
}

/// A peer that says that it has said all still gets what is written, until it goes.
#[test]
fn a_half_closed_peer_still_listens() {
    let (_dir, path, host) = listening("");
    let mut driver = host.driver();
    driver.post_event();
    let mut peer = UnixStream::connect(&path).unwrap();
    peer.write_all(b"question").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let state = wait_flags(&mut driver, STATE_RX_END);
    assert_eq!(state.rx_end, 8);
    assert_eq!(driver.read_some(0, 100), b"question");
    driver.send_all(0, &bytes(100_000));
    assert_eq!(read_exact(&mut peer, 100_000), bytes(100_000));
    drop(peer);
    let state = wait_flags(&mut driver, STATE_HANGUP);
    assert_eq!(state.rx_end, 8);
}

/// Many times the capacity, both ways at once, arrives whole.
#[rstest]
#[case(1)]
#[case(1000)]
#[case(100_000)]
fn streams_are_whole(#[case] capacity: usize) {
    let total = if capacity == 1 { 500 } else { 400_000 };
    let (_dir, path, host) = listening(&format!(",capacity={capacity}"));
    let mut driver = host.driver();
    let peer = UnixStream::connect(&path).unwrap();
    let (mut from, mut to) = (peer.try_clone().unwrap(), peer);
    let writer = thread::spawn(move || to.write_all(&bytes(total)));
    let reader = thread::spawn(move || read_exact(&mut from, total));
    driver.send_all(0, &bytes(total));
    assert_eq!(driver.read_exact(0, total), bytes(total));
    writer.join().unwrap().unwrap();
    assert_eq!(reader.join().unwrap(), bytes(total));
}

/// Messages in many pieces, more than the socket takes at a time, arrive whole and in order.
#[rstest]
#[case(33)]
#[case(100)]
fn large_messages_in_pieces(#[case] pieces: usize) {
    const LEN: usize = 100_000;
    let (_dir, path, host) = listening(",capacity=1M");
    let mut driver = host.driver();
    let mut peer = UnixStream::connect(&path).unwrap();
    wait_connected(&host);
    let all = bytes(6 * LEN);
    let mut sent = 0;
    for payload in all.chunks(LEN) {
        let mut header = driver.tx_header(0);
        header.offset = sent;
        let mut parts = vec![driver.readable(&header.to_bytes())];
        parts.extend(
            payload
                .chunks(LEN.div_ceil(pieces))
                .map(|piece| driver.readable(piece)),
        );
        driver.add_indirect(tx_queue(0), &parts);
        driver.notify(tx_queue(0));
        assert_eq!(driver.wait_used(tx_queue(0)).1, 0);
        sent += payload.len() as u64;
    }
    assert_eq!(driver.state(0).tx_accepted, sent);
    assert!(host.device.fifo(0).unwrap().status().tx.level > 0);
    assert_eq!(read_exact(&mut peer, all.len()), all);
}

/// Writes until the socket takes no more; how much it took.
fn fill(peer: &mut UnixStream) -> usize {
    peer.set_nonblocking(true).unwrap();
    let mut total = 0;
    loop {
        match peer.write(&[7; 8192]) {
            Ok(len) => total += len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return total,
            Err(error) => panic!("{error}"),
        }
    }
}

/// DEV-4: a peer that floods fills the FIFO and then waits; other FIFOs do not notice.
#[test]
fn a_flood_waits_at_a_full_fifo() {
    let (_dir, path, host) = listening(",capacity=1000");
    let mut driver = host.driver();
    let mut peer = UnixStream::connect(&path).unwrap();
    let total = fill(&mut peer);
    driver.wait_state(0, |state| state.rx_end == 1000);
    driver.check_serves(1);
    assert_eq!(host.device.fifo(0).unwrap().status().rx.level, 1000);
    let mut more = fill(&mut peer);
    // Room for one byte is one byte.
    assert_eq!(driver.read_some(0, 1), [7]);
    driver.send(0, &[]);
    driver.wait_state(0, |state| state.rx_end == 1001);
    more += fill(&mut peer);
    drop(peer);
    let rest = driver.read_exact(0, total + more - 1);
    assert!(rest.iter().all(|byte| *byte == 7));
    driver.wait_state(0, |state| state.flags == STATE_HANGUP);
}

/// DEV-10, DEV-20: a peer that does not read stops the credit, and nothing else.
#[test]
fn a_peer_that_stalls_stops_the_credit() {
    let (dir, path) = place();
    let other = dir.path().join("other");
    let specs = [&path, &other].map(|path| format!("unix={},capacity=1000", path.display()));
    let host = Host::new(&[&specs[0], &specs[1]]);
    let mut driver = host.driver();
    let mut peer = UnixStream::connect(&path).unwrap();
    let mut other = UnixStream::connect(&other).unwrap();
    let mut sent = 0;
    loop {
        let limit = driver.state(0).tx_limit;
        let len = usize::try_from(limit - sent as u64).unwrap();
        driver.send(0, &bytes(sent + len)[sent..]);
        sent += len;
        // Every byte that gets through here is a turn of the event loop, in which it has done
        // what it had to do before.
        for byte in 0..4 {
            other.write_all(&[byte]).unwrap();
            assert_eq!(driver.read_exact(1, 1), [byte]);
        }
        if len == 0 && host.device.fifo(0).unwrap().status().tx.level == 1000 {
            break;
        }
    }
    assert!(sent > 1000);
    assert_eq!(read_exact(&mut peer, sent), bytes(sent));
    driver.wait_state(0, |state| state.tx_limit == sent as u64 + 1000);
}

/// DEV-30: the event of a hang-up comes without any read, and only once every byte is in.
#[test]
fn a_hang_up_behind_a_full_fifo() {
    let (_dir, path, host) = listening(",capacity=100");
    let mut driver = host.driver();
    driver.post_event();
    let mut peer = UnixStream::connect(&path).unwrap();
    peer.write_all(&bytes(100)).unwrap();
    driver.wait_state(0, |state| state.rx_end == 100);
    drop(peer);
    assert_eq!(wait_flags(&mut driver, STATE_HANGUP).rx_end, 100);
    driver.clear(0);
    let mut peer = UnixStream::connect(&path).unwrap();
    peer.write_all(&bytes(250)).unwrap();
    drop(peer);
    wait_flags(&mut driver, 0);
    assert_eq!(driver.wait_state(0, |state| state.rx_end == 200).flags, 0);
    assert_eq!(driver.read_exact(0, 100), bytes(100));
    assert_eq!(driver.read_exact(0, 150), bytes(250)[100..]);
    assert_eq!(wait_flags(&mut driver, STATE_HANGUP).rx_end, 350);
}

/// One byte a write, of a thousand: all of them, in order.
#[test]
fn a_byte_at_a_time() {
    let (_dir, path, host) = listening("");
    let mut driver = host.driver();
    let mut peer = UnixStream::connect(&path).unwrap();
    let writer = thread::spawn(move || {
        for byte in bytes(1000) {
            peer.write_all(&[byte]).unwrap();
        }
    });
    assert_eq!(driver.read_exact(0, 1000), bytes(1000));
    writer.join().unwrap();
}

/// What a peer did not take when it vanished is for the next.
#[test]
fn bytes_wait_for_the_next_peer() {
    let (_dir, path, host) = listening(",capacity=1000");
    let mut driver = host.driver();
    driver.post_event();
    let peer = UnixStream::connect(&path).unwrap();
    wait_connected(&host);
    drop(peer);
    wait_flags(&mut driver, STATE_HANGUP);
    driver.send(0, b"for the next one");
    let mut peer = UnixStream::connect(&path).unwrap();
    assert_eq!(read_exact(&mut peer, 16), b"for the next one");
}

fn wait_connected(host: &Host) {
    while host.device.fifo(0).unwrap().status().connection != Connection::Connected {
        thread::yield_now();
    }
}

/// Peers are served one after another, in the order in which they came.
#[test]
fn the_second_peer_waits_for_the_first_to_go() {
    let (_dir, path, host) = listening("");
    let mut driver = host.driver();
    let mut first = UnixStream::connect(&path).unwrap();
    let mut second = UnixStream::connect(&path).unwrap();
    second.write_all(b"second").unwrap();
    first.write_all(b"first").unwrap();
    assert_eq!(driver.read_some(0, 100), b"first");
    driver.barrier();
    assert_eq!(driver.state(0).rx_end, 5);
    drop(first);
    assert_eq!(driver.read_some(0, 100), b"second");
    assert_eq!(host.device.fifo(0).unwrap().status().peers, 2);
}

/// Peers that come, write a little and vanish, as fast as they can.
#[test]
fn peers_that_vanish_disturb_nobody() {
    let (_dir, path, host) = listening("");
    let mut driver = host.driver();
    let peers = thread::spawn(move || {
        for _ in 0..300 {
            let mut peer = UnixStream::connect(&path).unwrap();
            peer.write_all(b"abc").unwrap();
        }
    });
    for _ in 0..100 {
        driver.check_serves(1);
    }
    assert_eq!(driver.read_exact(0, 900), b"abc".repeat(300));
    peers.join().unwrap();
    driver.wait_state(0, |state| state.flags == STATE_HANGUP);
    assert_eq!(host.device.fifo(0).unwrap().status().peers, 300);
}

/// `connect`: whoever listens late is found, and found again.
#[test]
fn it_connects_as_often_as_it_takes() {
    let (_dir, path) = place();
    let host = Host::new(&[&format!("unix={},connect", path.display())]);
    let mut driver = host.driver();
    driver.post_event();
    driver.send(0, b"early");
    assert_eq!(driver.state(0).flags, 0);
    for round in 0..3_u8 {
        let listener = UnixListener::bind(&path).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        if round == 0 {
            assert_eq!(read_exact(&mut peer, 5), b"early");
        } else {
            wait_flags(&mut driver, 0);
        }
        peer.write_all(&[round]).unwrap();
        assert_eq!(driver.read_some(0, 9), [round]);
        fs::remove_file(&path).unwrap();
        drop(listener);
        drop(peer);
        wait_flags(&mut driver, STATE_HANGUP);
    }
}

/// A VMM that comes later finds what is there, and the state of the day.
#[test]
fn peers_outlive_drivers() {
    let (_dir, path, host) = listening("");
    let mut peer = UnixStream::connect(&path).unwrap();
    peer.write_all(b"early bird").unwrap();
    let mut driver = host.driver();
    assert_eq!(driver.read_some(0, 100), b"early bird");
    driver.reset();
    assert_eq!(driver.read_some(0, 100), b"early bird");
    driver.send(0, &[]);
    drop(driver);
    drop(peer);
    let mut driver = host.driver();
    let state = driver.wait_state(0, |state| state.flags != 0);
    assert_eq!((state.flags, state.rx_floor), (STATE_HANGUP, 10));
}

/// The server's end removes sockets and links, also with a peer there.
#[test]
fn nothing_is_left_behind() {
    let (dir, path) = place();
    let link = dir.path().join("tty");
    let specs = [
        format!("unix={}", path.display()),
        format!("pty,link={}", link.display()),
    ];
    let host = Host::new(&[&specs[0], &specs[1]]);
    assert!(path.exists() && link.exists());
    let _peer = UnixStream::connect(&path).unwrap();
    host.end().unwrap();
    assert!(!path.exists() && !link.is_symlink());
}

fn open_slave(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::fcntl::OFlag::O_NOCTTY.bits())
        .open(path)
        .unwrap()
}

/// The slave is a raw line; who opens and closes it comes and goes.
#[test]
fn a_pty_is_a_raw_line() {
    let (_dir, link) = place();
    let host = Host::new(&[&format!("pty,link={}", link.display()), "loopback"]);
    assert_eq!(fs::read_link(&link).unwrap(), host.ptys[0].1);
    assert_eq!(
        fs::metadata(&link).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let mut driver = host.driver();
    driver.post_event();
    driver.send(0, b"stored\n\x04");
    let every: Vec<u8> = (0..=255).collect();
    for round in 0..3 {
        let mut slave = open_slave(&link);
        if round == 0 {
            assert_eq!(read_exact(&mut slave, 8), b"stored\n\x04");
        } else {
            wait_flags(&mut driver, 0);
        }
        let settings = tcgetattr(&slave).unwrap();
        assert!(
            !settings
                .local_flags
                .intersects(LocalFlags::ECHO | LocalFlags::ICANON)
        );
        assert!(!settings.output_flags.contains(OutputFlags::OPOST));
        slave.write_all(&every).unwrap();
        assert_eq!(driver.read_exact(0, 256), every);
        driver.send(0, &every);
        assert_eq!(read_exact(&mut slave, 256), every);
        slave.write_all(b"last words").unwrap();
        drop(slave);
        wait_flags(&mut driver, STATE_HANGUP);
        assert_eq!(driver.read_exact(0, 10), b"last words");
    }
    driver.check_serves(1);
}

/// Many times what a terminal's buffer holds, in both directions.
#[test]
fn a_pty_has_backpressure() {
    let host = Host::new(&["pty,capacity=1000"]);
    let mut driver = host.driver();
    let slave = open_slave(&host.ptys[0].1);
    let (mut from, mut to) = (slave.try_clone().unwrap(), slave);
    let writer = thread::spawn(move || to.write_all(&bytes(200_000)));
    let reader = thread::spawn(move || read_exact(&mut from, 200_000));
    driver.send_all(0, &bytes(200_000));
    assert_eq!(driver.read_exact(0, 200_000), bytes(200_000));
    writer.join().unwrap().unwrap();
    assert_eq!(reader.join().unwrap(), bytes(200_000));
}

fn wait_contents(path: &Path, expected: &[u8]) {
    loop {
        let found = fs::read(path).unwrap();
        if found.len() >= expected.len() {
            assert!(found == expected);
            return;
        }
        thread::yield_now();
    }
}

/// What is written is appended; what is read is another file, whose end is the end of input only.
#[test]
fn files_are_appended_to_and_read() {
    let (dir, path) = place();
    let input = dir.path().join("input");
    fs::write(&path, "before\n").unwrap();
    fs::write(&input, bytes(100_000)).unwrap();
    let spec = format!("file={},input={}", path.display(), input.display());
    let host = Host::new(&[&spec, "loopback"]);
    let mut driver = host.driver();
    driver.post_event();
    assert_eq!(driver.read_exact(0, 100_000), bytes(100_000));
    assert_eq!(wait_flags(&mut driver, STATE_RX_END).rx_end, 100_000);
    driver.send_all(0, &bytes(50_000));
    let mut expected = b"before\n".to_vec();
    expected.extend(bytes(50_000));
    wait_contents(&path, &expected);
    driver.check_serves(1);
}

/// Without an input there is nothing to read, and no end either.
#[test]
fn a_file_alone_has_nothing_to_read() {
    let (_dir, path) = place();
    let host = Host::new(&[&format!("file={}", path.display())]);
    let mut driver = host.driver();
    driver.send(0, b"one\n");
    driver.send(0, b"two\n");
    wait_contents(&path, b"one\ntwo\n");
    let state = driver.state(0);
    assert_eq!((state.flags, state.rx_end), (0, 0));
}

/// Input without end is read no further than there is room.
#[test]
fn an_endless_file_waits_for_room() {
    let host = Host::new(&["file=/dev/null,input=/dev/zero,capacity=1000"]);
    let mut driver = host.driver();
    assert_eq!(driver.read_exact(0, 100_000), vec![0; 100_000]);
    driver.wait_state(0, |state| state.rx_end == 101_000);
    driver.send_all(0, &bytes(10_000));
}

/// A full disk is an error of the FIFO, told to the driver; what was accepted is kept, tried again
/// after a reset, and other FIFOs do not notice.
#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    let host = Host::new(&["file=/dev/full", "loopback"]);
    let mut driver = host.driver();
    driver.post_event();
    driver.send(0, b"precious");
    wait_flags(&mut driver, STATE_ERROR);
    assert_eq!(host.refused(0, Refusal::Endpoint), 1);
    assert_eq!(host.device.fifo(0).unwrap().status().tx.level, 8);
    driver.check_serves(1);
    driver.reset();
    driver.post_event();
    wait_flags(&mut driver, STATE_ERROR);
    assert_eq!(host.refused(0, Refusal::Endpoint), 2);
    assert_eq!(host.device.fifo(0).unwrap().status().tx.level, 8);
}

/// Named pipes do as files; who reads the one ends it all by going.
#[test]
fn named_pipes() {
    let (dir, path) = place();
    let input = dir.path().join("input");
    for path in [&path, &input] {
        mkfifo(path, Mode::S_IRWXU).unwrap();
    }
    let mut reader = OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(&path)
        .unwrap();
    let spec = format!("file={},input={}", path.display(), input.display());
    let host = Host::new(&[&spec]);
    let mut driver = host.driver();
    driver.post_event();
    // No writer yet is no end.
    assert_eq!(driver.state(0).flags, 0);
    let mut writer = OpenOptions::new().write(true).open(&input).unwrap();
    writer.write_all(b"in").unwrap();
    assert_eq!(driver.read_some(0, 9), b"in");
    drop(writer);
    wait_flags(&mut driver, STATE_RX_END);
    driver.send(0, b"out");
    crate::common::wait_readable(&reader, "the pipe");
    assert_eq!(read_exact(&mut reader, 3), b"out");
    drop(reader);
    wait_flags(&mut driver, STATE_HANGUP);
}

/// Reads give the stream, writes are compared with it, and the first wrong byte fails the FIFO.
#[test]
fn a_pattern_checks_what_is_written() {
    let host = Host::new(&["pattern,seed=12345,capacity=1000", "loopback"]);
    let mut driver = host.driver();
    driver.post_event();
    let mut expected = vec![0; 50_000];
    Pattern::new(12345).fill(0, &mut expected);
    assert_eq!(driver.read_exact(0, 50_000), expected);
    driver.send_all(0, &expected);
    assert_eq!(driver.state(0).flags, 0);
    driver.send(0, b"wrong");
    wait_flags(&mut driver, STATE_ERROR);
    assert_eq!(host.refused(0, Refusal::Mismatch), 1);
    driver.check_serves(1);
}
