// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Streams, capacity and credit: sections 6.1 to 6.3 of the specification.

use rstest::rstest;
use vhost_device_fifo::backend::FEATURES;
use virtio_fifo_protocol::virtio_fifo::Config;
use virtio_fifo_protocol::virtio_fifo::RxHeader;
use virtio_fifo_protocol::virtio_fifo::STATE_LOOPBACK;
use virtio_fifo_protocol::virtio_fifo::TxHeader;
use virtio_fifo_protocol::virtio_fifo::rx_queue;
use virtio_fifo_protocol::virtio_fifo::tx_queue;

use crate::common::EVENT_IDX;
use crate::common::Host;
use crate::common::INDIRECT_DESC;

/// Bytes that repeat only after a prime number of them.
fn pattern(from: u64, len: usize) -> Vec<u8> {
    (from..)
        .take(len)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect()
}

/// DEV-34: bits 0 to 23, and from 50 on, are a device's own.
#[test]
fn no_feature_bit_of_its_own_is_offered() {
    for bit in (0..24).chain(50..64) {
        assert_eq!(FEATURES & (1 << bit), 0, "bit {bit}");
    }
    assert_eq!(Host::new(&["null"]).driver().offered(), FEATURES);
}

/// DEV-1, DEV-2, DEV-32: what a driver finds, whatever part of configuration space is read.
#[test]
fn config_space_begins_with_magic_and_version_and_tells_the_number_of_fifos() {
    let host = Host::new(&["loopback", "null", "zero"]);
    let mut driver = host.driver();
    assert_eq!(driver.config(0, 12), *b"FIFO\x01\0\0\0\x03\0\0\0");
    assert_eq!(driver.config(0, 12), Config::new(3).to_bytes());
    assert_eq!(driver.config(2, 7), *b"FO\x01\0\0\0\x03");
    assert_eq!(driver.config(200, 56), [0; 56]);
}

/// DEV-5, DEV-9, DEV-10, DEV-13, DEV-14: everything comes back in order, with any set of virtio
/// features, many times the capacity, in messages and buffers of all sizes.
#[rstest]
#[case::all(FEATURES)]
#[case::no_event_idx(FEATURES & !EVENT_IDX)]
#[case::bare(FEATURES & !EVENT_IDX & !INDIRECT_DESC)]
fn loopback_returns_what_was_sent(#[case] features: u64) {
    const TOTAL: u64 = 300_000;
    let host = Host::new(&["loopback,capacity=1000"]);
    let mut driver = host.driver_with(features);
    let mut posted = 0_u32;
    let (mut sent, mut received) = (0, 0);
    while received < TOTAL {
        // Both sizes run through everything from one byte to more than the FIFO holds.
        while posted < 5 {
            driver.post_rx(0, 1 + u32::try_from(received % 1200).unwrap());
            posted += 1;
        }
        let stream = driver.streams[0];
        let credit = stream.consumed + 1000 - stream.sent;
        let len = (sent * 7 % 1000 + 1).min(credit).min(TOTAL - sent);
        if len > 0 {
            driver.send(0, &pattern(sent, usize::try_from(len).unwrap()));
            sent += len;
        }
        while let Some((_, bytes)) = driver.try_receive(0) {
            assert_eq!(bytes, pattern(received, bytes.len()));
            received += bytes.len() as u64;
            posted -= 1;
        }
    }
    driver.send(0, &[]);
    let state = driver.state(0);
    assert_eq!((state.rx_floor, state.rx_end), (TOTAL, TOTAL));
    assert_eq!(host.all_refused(), 0);
}

/// DEV-3, DEV-4: `capacity` bytes and not one more; bytes that were received and not reported as
/// consumed still count.
#[rstest]
#[case(1)]
#[case(4096)]
#[case(65_536)]
fn capacity_is_exact(#[case] capacity: usize) {
    let host = Host::new(&[&format!("loopback,capacity={capacity}")]);
    let mut driver = host.driver();
    assert_eq!(u64::from(driver.state(0).capacity), capacity as u64);
    driver.send(0, &pattern(0, capacity));
    // Received, but the device is not told.
    assert_eq!(
        driver.read_some(0, u32::try_from(capacity).unwrap()),
        pattern(0, capacity)
    );
    let state = driver.state(0);
    assert_eq!(state.tx_accepted, capacity as u64);
    assert_eq!(state.tx_limit, capacity as u64);
    assert_eq!((state.rx_floor, state.rx_end), (0, capacity as u64));
    assert_eq!(state.flags, STATE_LOOPBACK);
    let over = TxHeader {
        offset: capacity as u64,
        rx_consumed: 0,
    };
    driver.send_raw(0, over, b"x");
    assert_eq!(driver.state(0).tx_accepted, capacity as u64);
}

/// DEV-9: what a message gives back is room for its own payload.
#[test]
fn a_message_may_use_the_room_that_it_gives_back() {
    let host = Host::new(&["loopback,capacity=8"]);
    let mut driver = host.driver();
    driver.send(0, b"12345678");
    assert_eq!(driver.read_some(0, 100), b"12345678");
    driver.send(0, b"abcdefgh");
    assert_eq!(driver.read_some(0, 100), b"abcdefgh");
    assert_eq!(host.all_refused(), 0);
}

/// DEV-9: a lower `rx_consumed` than before is no error and changes nothing.
#[test]
fn rx_consumed_does_not_go_back() {
    let host = Host::new(&["loopback,capacity=8"]);
    let mut driver = host.driver();
    driver.send(0, b"abcd");
    driver.read_some(0, 100);
    driver.send(0, b"ef");
    let late = TxHeader {
        offset: 6,
        rx_consumed: 1,
    };
    driver.send_raw(0, late, b"g");
    let state = driver.state(0);
    assert_eq!((state.rx_floor, state.rx_end), (4, 7));
    assert_eq!(host.all_refused(), 0);
}

/// DEV-13: data that waits goes into a buffer as soon as there is one, as much as fits.
#[test]
fn waiting_bytes_fill_buffers_as_they_come() {
    let host = Host::new(&["loopback"]);
    let mut driver = host.driver();
    driver.send(0, b"abcdefgh");
    assert_eq!(driver.read_some(0, 3), b"abc");
    assert_eq!(driver.read_some(0, 1), b"d");
    assert_eq!(driver.read_some(0, 100), b"efgh");
    driver.post_rx(0, 100);
    driver.barrier();
    // Nothing to put into it: it waits, and is not used empty.
    assert!(driver.try_receive(0).is_none());
    driver.send(0, b"i");
    assert_eq!(driver.receive(0).1, b"i");
}

/// DEV-10, DEV-13: an empty payload only reports, and is answered by nothing on rx.
#[test]
fn an_empty_message_moves_only_rx_consumed() {
    let host = Host::new(&["loopback"]);
    let mut driver = host.driver();
    driver.post_rx(0, 100);
    driver.send(0, &[]);
    driver.barrier();
    assert!(driver.try_receive(0).is_none());
    assert_eq!(driver.state(0).tx_accepted, 0);
}

/// INDIRECT_DESC, and chains of many parts, on both queues.
#[rstest]
#[case::direct(false)]
#[case::indirect(true)]
fn chains_of_many_parts(#[case] indirect: bool) {
    let host = Host::new(&["loopback"]);
    let mut driver = host.driver();
    let header = driver.tx_header(0).to_bytes();
    let parts = [
        driver.readable(&header[..5]),
        driver.readable(&[]),
        driver.readable(&header[5..]),
        driver.readable(b"hello "),
        driver.readable(b"world"),
    ];
    let buffers = [
        driver.writable(3),
        driver.writable(0),
        driver.writable(15),
        driver.writable(4),
        driver.writable(40),
    ];
    if indirect {
        driver.add_indirect(tx_queue(0), &parts);
        driver.add_indirect(rx_queue(0), &buffers);
    } else {
        driver.add(tx_queue(0), &parts);
        driver.add(rx_queue(0), &buffers);
    }
    driver.notify(tx_queue(0));
    driver.notify(rx_queue(0));
    let (_, used) = driver.wait_used(rx_queue(0));
    assert_eq!(used as usize, RxHeader::LEN + 11);
    let bytes: Vec<u8> = buffers
        .iter()
        .flat_map(|part| driver.read(part.at, usize::try_from(part.len).unwrap()))
        .take(RxHeader::LEN + 11)
        .collect();
    assert_eq!(&bytes[RxHeader::LEN..], b"hello world");
    assert_eq!(host.all_refused(), 0);
}

/// FIFOs are apart: each has its own streams and its own credit.
#[test]
fn many_fifos_do_not_mix() {
    let specs = ["loopback,capacity=64"; 31];
    let host = Host::new(&specs);
    let mut driver = host.driver();
    for fifo in 0..31 {
        driver.send(fifo, format!("for {fifo}").as_bytes());
    }
    for fifo in (0..31).rev() {
        assert_eq!(
            driver.read_some(fifo, 100),
            format!("for {fifo}").as_bytes()
        );
    }
    driver.check_serves(17);
    assert_eq!(host.all_refused(), 0);
}

/// DEV-13: the zero endpoint keeps the rx stream full, and gives more when bytes are consumed.
#[test]
fn zero_gives_zeros_for_ever() {
    let host = Host::new(&["zero,capacity=100"]);
    let mut driver = host.driver();
    let state = driver.state(0);
    assert_eq!(state.flags, 0);
    for _ in 0..50 {
        driver.post_rx(0, 70);
        driver.post_rx(0, 70);
        assert_eq!(driver.receive(0).1, [0; 70]);
        assert_eq!(driver.receive(0).1, [0; 30]);
        // DEV-4: all that fits has been received; more comes for what is reported as consumed.
        driver.post_rx(0, 70);
        driver.barrier();
        assert!(driver.try_receive(0).is_none());
        driver.send(0, b"gone");
        assert_eq!(driver.receive(0).1, [0; 70]);
        driver.post_rx(0, 70);
        assert_eq!(driver.receive(0).1, [0; 30]);
        driver.send(0, &[]);
    }
    assert_eq!(host.all_refused(), 0);
}

/// DEV-16, DEV-17, DEV-20: with an endpoint, credit comes by events before it runs out, and
/// limits that were told never shrink.
#[test]
fn null_takes_everything_and_gives_credit_by_events() {
    let host = Host::new(&["null,capacity=100"]);
    let mut driver = host.driver();
    driver.post_event();
    let mut limit = driver.streams[0].tx_limit;
    assert_eq!(limit, 100);
    let mut events = 0;
    for _ in 0..100 {
        let sent = driver.streams[0].sent;
        let len = usize::try_from((limit - sent).min(30)).unwrap();
        assert!(len > 0);
        driver.send(0, &vec![7; len]);
        if limit - driver.streams[0].sent < 50 {
            let state = driver.wait_event();
            events += 1;
            assert!(state.tx_limit > limit);
            assert!(state.tx_limit - state.tx_accepted <= 100);
            limit = state.tx_limit;
            driver.post_event();
        }
    }
    // Not one event a message.
    assert!((20..=60).contains(&events), "{events}");
    assert!(driver.try_event().is_none());
    driver.post_rx(0, 10);
    driver.barrier();
    assert!(driver.try_receive(0).is_none());
    assert_eq!(host.all_refused(), 0);
}

/// DEV-16: a capacity of one byte is the narrowest case of credit.
#[test]
fn credit_of_one_byte() {
    let host = Host::new(&["null,capacity=1"]);
    let mut driver = host.driver();
    for sent in 1..20 {
        driver.post_event();
        driver.send(0, b"x");
        let state = driver.wait_event();
        assert_eq!((state.tx_accepted, state.tx_limit), (sent, sent + 1));
    }
}

/// DEV-13: rx buffers that were never filled are not lost when there is more data than buffers.
#[test]
fn a_small_queue_goes_round() {
    let host = Host::new(&["loopback"]);
    let mut driver = crate::common::Driver::connect(host.path(), 1, FEATURES);
    driver.resize(rx_queue(0), 2);
    driver.resize(tx_queue(0), 1);
    driver.start(&[]);
    driver.init();
    for round in 0..1000_u32 {
        driver.send(0, &round.to_le_bytes());
        assert_eq!(driver.read_some(0, 3), round.to_le_bytes()[..3]);
        assert_eq!(driver.read_some(0, 3), round.to_le_bytes()[3..]);
    }
}
