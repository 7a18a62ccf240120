// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A driver that breaks every rule: refused, counted, and nobody else notices.

use rstest::rstest;
use vhost_device_fifo::backend::FEATURES;
use vhost_device_fifo::refusal::Refusal;
use virtio_fifo_protocol::virtio_fifo::CONTROL_QUEUE;
use virtio_fifo_protocol::virtio_fifo::CTRL_GET_STATE;
use virtio_fifo_protocol::virtio_fifo::CtrlRequest;
use virtio_fifo_protocol::virtio_fifo::EVENT_QUEUE;
use virtio_fifo_protocol::virtio_fifo::STATE_ERROR;
use virtio_fifo_protocol::virtio_fifo::STATE_LOOPBACK;
use virtio_fifo_protocol::virtio_fifo::TxHeader;
use virtio_fifo_protocol::virtio_fifo::rx_queue;
use virtio_fifo_protocol::virtio_fifo::tx_queue;

use crate::common::Driver;
use crate::common::Host;
use crate::common::INDIRECT;
use crate::common::NEXT;
use crate::common::Part;
use crate::common::RAM_LEN;
use crate::common::RAM_START;

const TX: u16 = tx_queue(0);
const RX: u16 = rx_queue(0);
const RAM_END: u64 = RAM_START + RAM_LEN;

/// Two FIFOs: the first is abused, the second must not notice.
fn host() -> (Host, Driver) {
    let host = Host::new(&["loopback,capacity=100", "loopback"]);
    let mut driver = Driver::connect(host.path(), 2, FEATURES);
    driver.resize(TX, 512);
    driver.start(&[]);
    driver.init();
    (host, driver)
}

fn part(at: u64, len: u32, write: bool) -> Part {
    Part { at, len, write }
}

/// How a chain can be broken on any queue, whatever it carries.
#[derive(Clone, Copy, Debug)]
enum Broken {
    /// Two descriptors that point at each other.
    Loop,
    /// A descriptor that points at itself.
    SelfLoop,
    /// The next descriptor does not exist.
    NextOutOfRange,
    /// An address below, above, at the end of, or around memory.
    Address(u64, u32),
    /// More than 2^32 bytes, each of them in memory.
    TooManyBytes,
    /// More descriptors than the queue has entries.
    TooManyParts,
    /// An indirect table of no whole number of descriptors, of none, elsewhere, in itself, looping.
    TableLength(u32),
    TableAddress(u64),
    TableInTable,
    TableLoop,
}

/// Makes the chain available on `queue`; `write` says which direction its parts have.
fn add_broken(driver: &mut Driver, queue: u16, broken: Broken, write: bool) {
    let mut good = driver.readable(&[0; 64]);
    good.write = write;
    let table = driver.table(queue);
    let indirect = |driver: &mut Driver, at: u64, len: u32| {
        let head = driver.take_descriptors(queue, 1)[0];
        driver.put_descriptor(table, head, part(at, len, false), INDIRECT, 0);
        driver.make_available(queue, head);
    };
    match broken {
        Broken::Loop => {
            let taken = driver.take_descriptors(queue, 2);
            driver.put_descriptor(table, taken[0], good, NEXT, taken[1]);
            driver.put_descriptor(table, taken[1], good, NEXT, taken[0]);
            driver.make_available(queue, taken[0]);
        }
        Broken::SelfLoop => {
            let head = driver.take_descriptors(queue, 1)[0];
            driver.put_descriptor(table, head, good, NEXT, head);
            driver.make_available(queue, head);
        }
        Broken::NextOutOfRange => {
            let head = driver.take_descriptors(queue, 1)[0];
            driver.put_descriptor(table, head, good, NEXT, 0xffff);
            driver.make_available(queue, head);
        }
        Broken::Address(at, len) => {
            driver.add(queue, &[part(at, len, write)]);
        }
        Broken::TooManyBytes => {
            let all = part(RAM_START, u32::try_from(RAM_LEN).unwrap(), write);
            driver.add_indirect(queue, &vec![all; 300]);
        }
        Broken::TooManyParts => {
            driver.add_indirect(queue, &vec![part(RAM_START, 1, write); 600]);
        }
        Broken::TableLength(len) => {
            let at = driver.buffer(len);
            driver.put_descriptor(at, 0, good, 0, 0);
            indirect(driver, at, len);
        }
        Broken::TableAddress(at) => indirect(driver, at, 16),
        Broken::TableInTable => {
            let (outer, inner) = (driver.buffer(32), driver.buffer(16));
            driver.put_descriptor(inner, 0, good, 0, 0);
            driver.put_descriptor(outer, 0, good, NEXT, 1);
            driver.put_descriptor(outer, 1, part(inner, 16, false), INDIRECT, 0);
            indirect(driver, outer, 32);
        }
        Broken::TableLoop => {
            let at = driver.buffer(32);
            driver.put_descriptor(at, 0, good, NEXT, 1);
            driver.put_descriptor(at, 1, good, NEXT, 0);
            indirect(driver, at, 32);
        }
    }
    driver.kick(queue);
}

/// DEV-11, DEV-15, DEV-19, DEV-25, DEV-26, DEV-27: on each queue each of them is refused with
/// used length 0 and counted; tx fails its FIFO, the others lose nothing.
#[rstest]
fn broken_chains(
    #[values(CONTROL_QUEUE, EVENT_QUEUE, RX, TX)] queue: u16,
    #[values(
        Broken::Loop,
        Broken::SelfLoop,
        Broken::NextOutOfRange,
        Broken::Address(0, 64),
        Broken::Address(RAM_START - 1, 64),
        Broken::Address(RAM_END, 1),
        Broken::Address(RAM_END - 63, 64),
        Broken::Address(RAM_START, 0xffff_ffff),
        Broken::Address(u64::MAX, 64),
        Broken::Address(u64::MAX - 63, 64),
        Broken::Address(0, 0xffff_ffff),
        Broken::TooManyBytes,
        Broken::TooManyParts,
        Broken::TableLength(0),
        Broken::TableLength(15),
        Broken::TableLength(17),
        Broken::TableLength(0xffff_fff0),
        Broken::TableAddress(0),
        Broken::TableAddress(RAM_END - 8),
        Broken::TableAddress(u64::MAX - 7),
        Broken::TableInTable,
        Broken::TableLoop
    )]
    broken: Broken,
) {
    let (host, mut driver) = host();
    // Something to put into rx and event buffers.
    if queue == RX {
        driver.send(0, b"abc");
    }
    let due = u64::from(queue == EVENT_QUEUE);
    if queue == EVENT_QUEUE {
        let header = TxHeader {
            offset: 1,
            rx_consumed: 0,
        };
        driver.send_raw(0, header, b"");
    }
    add_broken(&mut driver, queue, broken, queue != TX);
    assert_eq!(driver.wait_used(queue).1, 0);
    let counted: u64 = [Refusal::InvalidChain, Refusal::InvalidAddress]
        .into_iter()
        .map(|reason| host.refused(0, reason) + host.device.refused(reason))
        .sum();
    assert_eq!(counted, 1);
    assert_eq!(host.all_refused(), 1 + due);
    let failed = driver.state(0).flags & STATE_ERROR != 0;
    assert_eq!(failed, queue == TX || queue == EVENT_QUEUE);
    match queue {
        RX => {
            assert_eq!(driver.read_some(0, 10), b"abc");
            driver.send(0, &[]);
        }
        EVENT_QUEUE => {
            driver.post_event();
            assert_eq!(driver.wait_event().flags, STATE_LOOPBACK | STATE_ERROR);
        }
        _ => {}
    }
    driver.check_serves(1);
    driver.reset();
    driver.check_serves(0);
    driver.check_serves(1);
}

/// DEV-11: messages whose chain is fine and whose content is not.
#[rstest]
#[case::offset_too_low(TxHeader { offset: 9, rx_consumed: 0 }, 1, Refusal::WrongOffset)]
#[case::offset_too_high(TxHeader { offset: 11, rx_consumed: 0 }, 1, Refusal::WrongOffset)]
#[case::offset_max(TxHeader { offset: u64::MAX, rx_consumed: 0 }, 1, Refusal::WrongOffset)]
#[case::one_over(TxHeader { offset: 10, rx_consumed: 0 }, 91, Refusal::OverLimit)]
#[case::far_over(TxHeader { offset: 10, rx_consumed: 0 }, 100_000, Refusal::OverLimit)]
#[case::one_over_with_room(TxHeader { offset: 10, rx_consumed: 4 }, 95, Refusal::OverLimit)]
#[case::not_sent(TxHeader { offset: 10, rx_consumed: 5 }, 1, Refusal::NotSent)]
#[case::not_sent_max(TxHeader { offset: 10, rx_consumed: u64::MAX }, 1, Refusal::NotSent)]
fn messages_that_break_the_rules(
    #[case] header: TxHeader,
    #[case] len: usize,
    #[case] reason: Refusal,
) {
    let (host, mut driver) = host();
    driver.send(0, b"0123456789");
    assert_eq!(driver.read_some(0, 4), b"0123");
    driver.post_event();
    driver.send_raw(0, header, &vec![0xee; len]);
    assert_eq!(host.refused(0, reason), 1);
    assert_eq!(host.all_refused(), 1);
    // DEV-16; and nothing of it was accepted, not even what it reported.
    let state = driver.wait_event();
    assert_eq!(state.flags, STATE_LOOPBACK | STATE_ERROR);
    assert_eq!((state.rx_floor, state.rx_end), (0, 10));
    driver.check_serves(1);
    driver.reset();
    assert_eq!(driver.read_some(0, 100), b"0123456789");
    driver.check_serves(0);
}

/// DEV-11: with an endpoint the limit is what the driver was told, not what would fit by now.
#[test]
fn credit_that_was_not_told_does_not_count() {
    let host = Host::new(&["null,capacity=100"]);
    let mut driver = host.driver();
    driver.send(0, &[0; 100]);
    let header = driver.tx_header(0);
    driver.send_raw(0, header, b"x");
    assert_eq!(host.refused(0, Refusal::OverLimit), 1);
    driver.reset();
    // CTRL_GET_STATE told a new limit.
    driver.send(0, &[0; 100]);
    assert_eq!(host.all_refused(), 1);
}

/// DEV-11, DEV-15, DEV-19, DEV-25: chains of the wrong shape for their queue: parts by length,
/// negative where the device writes.
#[rstest]
#[case::tx_empty(TX, &[0], Refusal::WrongLength)]
#[case::tx_short(TX, &[15], Refusal::WrongLength)]
#[case::tx_short_in_parts(TX, &[8, 7], Refusal::WrongLength)]
#[case::tx_writable(TX, &[-16], Refusal::WrongDirection)]
#[case::tx_writable_tail(TX, &[16, -1], Refusal::WrongDirection)]
#[case::tx_writable_head(TX, &[-1, 16], Refusal::WrongDirection)]
#[case::tx_empty_writable(TX, &[16, 0, -100_000], Refusal::WrongDirection)]
#[case::rx_no_room(RX, &[-16], Refusal::WrongLength)]
#[case::rx_short(RX, &[-15], Refusal::WrongLength)]
#[case::rx_readable(RX, &[100], Refusal::WrongDirection)]
#[case::rx_readable_head(RX, &[1, -100], Refusal::WrongDirection)]
#[case::rx_readable_tail(RX, &[-100, 1], Refusal::WrongDirection)]
#[case::event_short(EVENT_QUEUE, &[-47], Refusal::WrongLength)]
#[case::event_readable(EVENT_QUEUE, &[48], Refusal::WrongDirection)]
#[case::control_short(CONTROL_QUEUE, &[15, -56], Refusal::WrongLength)]
#[case::control_long(CONTROL_QUEUE, &[17, -56], Refusal::WrongLength)]
#[case::control_no_room(CONTROL_QUEUE, &[16, -55], Refusal::WrongLength)]
#[case::control_no_response(CONTROL_QUEUE, &[16], Refusal::WrongLength)]
#[case::control_no_request(CONTROL_QUEUE, &[-56], Refusal::WrongLength)]
#[case::control_reversed(CONTROL_QUEUE, &[-56, 16], Refusal::WrongDirection)]
fn chains_of_the_wrong_shape(#[case] queue: u16, #[case] shape: &[i32], #[case] reason: Refusal) {
    let (host, mut driver) = host();
    let mut expected = 1;
    if queue == RX {
        driver.send(0, b"abc");
    }
    if queue == EVENT_QUEUE {
        let header = TxHeader {
            offset: 1,
            rx_consumed: 0,
        };
        driver.send_raw(0, header, b"");
        expected = 2;
    }
    let parts: Vec<Part> = shape
        .iter()
        .map(|len| {
            let size = len.unsigned_abs();
            part(driver.buffer(size), size, *len < 0)
        })
        .collect();
    driver.add(queue, &parts);
    driver.kick(queue);
    assert_eq!(driver.wait_used(queue).1, 0);
    assert_eq!(host.refused(0, reason) + host.device.refused(reason), 1);
    assert_eq!(host.all_refused(), expected);
    if queue == RX {
        assert_eq!(driver.read_some(0, 10), b"abc");
        driver.send(0, &[]);
    }
    if queue == EVENT_QUEUE {
        driver.post_event();
        assert_eq!(driver.wait_event().flags, STATE_LOOPBACK | STATE_ERROR);
    }
    driver.check_serves(1);
    driver.reset();
    driver.check_serves(0);
}

/// DEV-25: more room than a response needs is fine; the used length is the response's.
#[test]
fn a_large_response_buffer_is_fine() {
    let (host, mut driver) = host();
    let request = CtrlRequest {
        kind: CTRL_GET_STATE,
        fifo: 0,
        tx_sent: 0,
    };
    let bytes = request.to_bytes();
    let parts = [
        driver.readable(&bytes[..3]),
        driver.readable(&bytes[3..]),
        driver.writable(7),
        driver.writable(100),
    ];
    driver.add(CONTROL_QUEUE, &parts);
    driver.notify(CONTROL_QUEUE);
    assert_eq!(driver.wait_used(CONTROL_QUEUE).1, 56);
    assert_eq!(host.all_refused(), 0);
}

/// How a queue as a whole can be corrupt.
#[derive(Clone, Copy, Debug)]
enum Corrupt {
    /// The available index is further ahead than the queue is long.
    IndexJump,
    /// It goes back.
    IndexBack,
    /// An entry names a descriptor that does not exist.
    Head(u16),
}

/// DEV-26: the queue is ignored until it is stopped; its FIFO says so; the other one serves.
#[rstest]
fn corrupt_queues(
    #[values(CONTROL_QUEUE, EVENT_QUEUE, RX, TX)] queue: u16,
    #[values(
        Corrupt::IndexJump,
        Corrupt::IndexBack,
        Corrupt::Head(512),
        Corrupt::Head(0xffff)
    )]
    corrupt: Corrupt,
) {
    let (host, mut driver) = host();
    if queue == RX {
        driver.send(0, b"abc");
    }
    if queue == EVENT_QUEUE {
        let header = TxHeader {
            offset: 1,
            rx_consumed: 0,
        };
        driver.send_raw(0, header, b"");
    } else {
        driver.post_event();
    }
    match corrupt {
        Corrupt::IndexJump => {
            let index = driver.avail_index(queue);
            driver.set_avail_index(queue, index.wrapping_add(5000));
        }
        Corrupt::IndexBack => {
            let index = driver.avail_index(queue);
            driver.set_avail_index(queue, index.wrapping_sub(1));
        }
        Corrupt::Head(head) => driver.make_available(queue, head),
    }
    for _ in 0..10 {
        driver.kick(queue);
    }
    if queue == RX || queue == TX {
        assert_eq!(driver.wait_event().flags, STATE_LOOPBACK | STATE_ERROR);
        assert_eq!(host.refused(0, Refusal::CorruptQueue), 1);
    }
    driver.check_serves_without_control(1);
    if queue == CONTROL_QUEUE || queue == EVENT_QUEUE {
        // Other queues can be served first.
        host.wait_refused(Refusal::CorruptQueue);
        assert_eq!(host.device.refused(Refusal::CorruptQueue), 1);
    }
    driver.reset();
    if queue == RX {
        assert_eq!(driver.read_some(0, 10), b"abc");
    }
    driver.check_serves(0);
    driver.check_serves(1);
}

/// DEV-26: a guest that makes buffers available faster than they can be refused does not keep the
/// worker from the other FIFO.
#[rstest]
fn a_flood_starves_nobody(#[values(CONTROL_QUEUE, TX)] queue: u16) {
    let (host, mut driver) = host();
    let flood = driver.flood(queue);
    for _ in 0..20 {
        driver.check_serves_without_control(1);
    }
    drop(flood);
    driver.barrier();
    assert!(host.all_refused() > 0);
    driver.reset();
    driver.check_serves(0);
}

/// DEV-26: descriptors that change while they are read.
#[test]
fn descriptors_that_change_under_the_device() {
    let (_host, mut driver) = host();
    let scribbler = driver.scribble(TX);
    for _ in 0..300 {
        let header = driver.tx_header(0);
        driver.post_tx(0, header, &[1; 40]);
        driver.kick(TX);
        // Nobody knows how many of them pass; all of them are used.
        driver.wait_used(TX);
        if driver.used_count(CONTROL_QUEUE) == 0 && driver.state(0).flags & STATE_ERROR != 0 {
            driver.reset();
        } else {
            let state = driver.state(0);
            driver.streams[0].sent = state.tx_accepted;
            driver.clear(0);
        }
    }
    drop(scribbler);
    driver.reset();
    driver.clear(0);
    driver.check_serves(0);
    driver.check_serves(1);
}

/// DEV-26: rings full of noise, from a fixed seed, on every queue.
#[test]
fn noise_in_the_rings() {
    let (_host, mut driver) = host();
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..200 {
        for queue in [CONTROL_QUEUE, EVENT_QUEUE, RX, TX] {
            driver.fill_with_noise(queue, &mut noise);
            driver.kick(queue);
        }
        driver.check_serves_without_control(1);
        driver.reset();
    }
    driver.clear(0);
    driver.check_serves(0);
}

/// DEV-26: memory that goes away under running queues, buffers first, then the rings.
#[test]
fn memory_that_goes_away() {
    let (host, mut driver) = host();
    driver.send(0, b"abc");
    let lost = part(RAM_END - 4096, 100, true);
    driver.share_memory_of(RAM_START, RAM_LEN / 2);
    driver.add(RX, &[lost]);
    driver.kick(RX);
    assert_eq!(driver.wait_used(RX).1, 0);
    assert_eq!(host.refused(0, Refusal::InvalidAddress), 1);
    driver.check_serves(1);
    let without_rings = |driver: &mut Driver| {
        driver.share_memory_of(RAM_START + RAM_LEN / 2, RAM_LEN / 2);
    };
    without_rings(&mut driver);
    for queue in [CONTROL_QUEUE, EVENT_QUEUE, RX, TX] {
        driver.kick(queue);
    }
    // As `barrier` does it.
    without_rings(&mut driver);
    without_rings(&mut driver);
    driver.share_memory();
    // Both queues of FIFO 0; control; and event, on which the failure was to be told.
    assert_eq!(host.refused(0, Refusal::CorruptQueue), 2);
    assert_eq!(host.device.refused(Refusal::CorruptQueue), 2);
    driver.reset();
    assert_eq!(driver.read_some(0, 10), b"abc");
    driver.check_serves(0);
    driver.check_serves(1);
}
