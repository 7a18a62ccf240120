// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Device resets, pauses and new VMMs: what is kept, what comes again, what is gone.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rstest::rstest;
use vhost_device_fifo::fifo::ResetPolicy;
use virtio_fifo_protocol::virtio_fifo::STATE_ERROR;
use virtio_fifo_protocol::virtio_fifo::STATE_HANGUP;
use virtio_fifo_protocol::virtio_fifo::STATE_LOOPBACK;
use virtio_fifo_protocol::virtio_fifo::TxHeader;
use virtio_fifo_protocol::virtio_fifo::rx_queue;
use virtio_fifo_protocol::virtio_fifo::tx_queue;

use crate::common::Host;

/// DEV-6, DEV-8: what was not consumed comes again, what was consumed does not.
#[test]
fn reset_delivers_unconsumed_bytes_again() {
    let host = Host::new(&["loopback,capacity=16"]);
    let mut driver = host.driver();
    driver.send(0, b"abcdefghij");
    assert_eq!(driver.read_some(0, 3), b"abc");
    // This reports "abc".
    driver.send(0, b"kl");
    // "def" is received and never reported.
    assert_eq!(driver.read_some(0, 3), b"def");
    driver.reset();
    let state = driver.state(0);
    assert_eq!((state.rx_floor, state.rx_end), (3, 12));
    assert_eq!((state.tx_accepted, state.tx_limit), (12, 19));
    assert_eq!(driver.read_some(0, 100), b"defghijkl");
    driver.check_serves(0);
    assert_eq!(host.all_refused(), 0);
}

/// DEV-7: messages that are available when the queue is stopped are accepted, announced or not,
/// and what they report as consumed counts.
#[test]
fn reset_takes_available_messages_first() {
    let host = Host::new(&["loopback,capacity=16"]);
    let mut driver = host.driver();
    driver.send(0, b"abc");
    assert_eq!(driver.read_some(0, 2), b"ab");
    let header = driver.tx_header(0);
    assert_eq!(header.rx_consumed, 2);
    driver.post_tx(0, header, b"de");
    driver.streams[0].sent += 2;
    let header = driver.tx_header(0);
    driver.post_tx(0, header, b"fg");
    let bases = driver.stop();
    // Used, each once, before the answer to GET_VRING_BASE.
    assert_eq!(driver.used_count(tx_queue(0)), 2);
    assert_eq!(bases[usize::from(tx_queue(0))], 3);
    driver.start_anew();
    driver.init();
    let state = driver.state(0);
    assert_eq!((state.rx_floor, state.rx_end), (2, 7));
    assert_eq!(driver.read_some(0, 100), b"cdefg");
    assert_eq!(host.all_refused(), 0);
}

/// DEV-6: as configured, bytes are discarded instead, and the counters run on (DEV-8).
#[test]
fn reset_clear_discards() {
    let host = Host::with_reset(&["loopback"], ResetPolicy::Clear);
    let mut driver = host.driver();
    driver.send(0, b"abcdef");
    assert_eq!(driver.read_some(0, 3), b"abc");
    driver.reset();
    let state = driver.state(0);
    assert_eq!((state.rx_floor, state.rx_end), (6, 6));
    driver.check_serves(0);
}

/// DEV-33: a reset is one only if a ring starts elsewhere than it stopped. A VMM that pauses the machine stops and
/// starts them where they were, and the driver knows nothing of it.
#[test]
fn a_pause_is_no_reset() {
    let host = Host::new(&["loopback"]);
    let mut driver = host.driver();
    driver.send(0, b"abcdef");
    assert_eq!(driver.read_some(0, 3), b"abc");
    driver.post_rx(0, 100);
    assert_eq!(driver.receive(0).1, b"def");
    driver.post_rx(0, 100);
    let bases = driver.stop();
    driver.start(&bases);
    // `received` checks that the offset goes on where it was.
    driver.send(0, b"ghi");
    assert_eq!(driver.receive(0).1, b"ghi");
    assert_eq!(host.all_refused(), 0);
}

/// DEV-33: one queue that goes on does not make a pause of a stop after which the other begins anew.
#[rstest]
#[case::rx(rx_queue(0))]
#[case::tx(tx_queue(0))]
fn a_queue_that_starts_elsewhere_is_a_reset(#[case] anew: u16) {
    let host = Host::new(&["loopback"]);
    let mut driver = host.driver();
    driver.send(0, b"abcdef");
    assert_eq!(driver.read_some(0, 3), b"abc");
    let mut bases = driver.stop();
    for queue in [rx_queue(0), tx_queue(0)] {
        assert_ne!(bases[usize::from(queue)], 0);
    }
    bases[usize::from(anew)] = 0;
    driver.renew(anew);
    driver.start(&bases);
    driver.init();
    // Not consumed, so sent again.
    assert_eq!(driver.read_some(0, 100), b"abcdef");
    assert_eq!(host.all_refused(), 0);
}

/// DEV-33: with a device that discards on reset: a pause discards nothing.
#[test]
fn a_pause_discards_nothing() {
    let host = Host::with_reset(&["loopback"], ResetPolicy::Clear);
    let mut driver = host.driver();
    driver.send(0, b"abcdef");
    let bases = driver.stop();
    driver.start(&bases);
    assert_eq!(driver.read_some(0, 100), b"abcdef");
}

/// DEV-33: a driver that waits for its first byte learns all that happened during a pause.
#[rstest]
#[case::keep(ResetPolicy::Keep)]
#[case::clear(ResetPolicy::Clear)]
fn a_pause_before_the_first_byte_forgets_nothing(#[case] reset: ResetPolicy) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let host = Host::with_reset(&[&format!("unix={}", path.display())], reset);
    let mut driver = host.driver();
    driver.post_event();
    driver.post_event();
    driver.post_rx(0, 100);
    let bases = driver.stop();
    assert_eq!(bases[usize::from(rx_queue(0))], 0);
    assert_eq!(bases[usize::from(tx_queue(0))], 0);
    let mut peer = UnixStream::connect(&path).unwrap();
    peer.write_all(b"hello").unwrap();
    drop(peer);
    let fifo = || host.device.fifo(0).unwrap().state();
    let deadline = Instant::now() + Duration::from_secs(10);
    while fifo().flags != STATE_HANGUP {
        assert!(Instant::now() < deadline, "{:?}", fifo());
        thread::yield_now();
    }
    driver.start(&bases);
    assert_eq!(driver.receive(0).1, b"hello");
    assert_eq!(driver.wait_event().flags, STATE_HANGUP);
    assert_eq!(host.all_refused(), 0);
}

/// DEV-21: reset ends STATE_ERROR and keeps what was accepted.
#[test]
fn reset_ends_the_error_state() {
    let host = Host::new(&["loopback"]);
    let mut driver = host.driver();
    driver.send(0, b"kept");
    let wrong = TxHeader {
        offset: 0,
        rx_consumed: 0,
    };
    driver.send_raw(0, wrong, b"lost");
    assert_eq!(driver.state(0).flags, STATE_LOOPBACK | STATE_ERROR);
    // DRV-14's other side: until then nothing is taken and nothing given.
    driver.post_rx(0, 10);
    let right = driver.tx_header(0);
    driver.send_raw(0, right, b"lost too");
    assert!(driver.try_receive(0).is_none());
    driver.reset();
    assert_eq!(driver.state(0).flags, STATE_LOOPBACK);
    assert_eq!(driver.read_some(0, 100), b"kept");
    driver.check_serves(0);
}

/// DEV-6, DEV-8: the next VMM finds what the last one left; twenty of them, some of which go
/// without a word.
#[test]
fn the_next_vmm_finds_unread_bytes() {
    let host = Host::new(&["loopback", "loopback"]);
    for round in 0..20_u64 {
        let mut driver = host.driver();
        let state = driver.state(0);
        assert_eq!(state.rx_end, 4 * round);
        if round > 0 {
            assert_eq!(driver.read_some(0, 100), *b"last");
        }
        driver.send(0, b"last");
        // Received again, never reported.
        driver.read_some(0, 100);
        if round % 2 == 0 {
            driver.stop();
        }
    }
    assert_eq!(host.all_refused(), 0);
}

/// DEV-7 for a VMM that is killed: what was available is accepted.
#[test]
fn a_killed_vmm_leaves_its_messages() {
    let host = Host::new(&["loopback"]);
    let mut driver = host.driver();
    let header = driver.tx_header(0);
    driver.post_tx(0, header, b"testament");
    drop(driver);
    let mut driver = host.driver();
    assert_eq!(driver.read_some(0, 100), b"testament");
}

/// A driver that is replaced while the VMM stays: a thousand resets lose nothing.
#[test]
fn many_resets_lose_nothing() {
    let host = Host::new(&["loopback"]);
    let mut driver = host.driver();
    driver.send(0, b"unread");
    for _ in 0..200 {
        driver.reset();
        assert_eq!(driver.read_some(0, 100), b"unread");
    }
    driver.check_serves(0);
}

/// The memory table may change between any two messages.
#[test]
fn memory_may_be_shared_anew() {
    let host = Host::new(&["loopback"]);
    let mut driver = host.driver();
    driver.post_rx(0, 100);
    driver.share_memory();
    driver.send(0, b"abc");
    assert_eq!(driver.receive(0).1, b"abc");
}

/// The server ends in an orderly way while a VMM is connected.
#[test]
fn the_server_ends_while_a_vmm_is_connected() {
    let host = Host::new(&["loopback"]);
    let mut driver = host.driver();
    driver.check_serves(0);
    host.end().unwrap();
}
