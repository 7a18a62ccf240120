// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Faults on demand, as a driver sees them in its rings.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::time::Instant;

use rstest::rstest;
use vhost_device_fifo::backend::FEATURES;
use virtio_fifo_protocol::virtio_fifo::CONTROL_QUEUE;
use virtio_fifo_protocol::virtio_fifo::CTRL_CLEAR;
use virtio_fifo_protocol::virtio_fifo::CTRL_GET_STATE;
use virtio_fifo_protocol::virtio_fifo::Config;
use virtio_fifo_protocol::virtio_fifo::CtrlRequest;
use virtio_fifo_protocol::virtio_fifo::CtrlResponse;
use virtio_fifo_protocol::virtio_fifo::EVENT_QUEUE;
use virtio_fifo_protocol::virtio_fifo::RxHeader;
use virtio_fifo_protocol::virtio_fifo::STATE_ERROR;
use virtio_fifo_protocol::virtio_fifo::STATE_HANGUP;
use virtio_fifo_protocol::virtio_fifo::STATE_LOOPBACK;
use virtio_fifo_protocol::virtio_fifo::State;
use virtio_fifo_protocol::virtio_fifo::rx_queue;
use virtio_fifo_protocol::virtio_fifo::tx_queue;

use crate::common::Driver;
use crate::common::EVENT_IDX;
use crate::common::Host;
use crate::common::wait_readable;

const TX: u16 = tx_queue(0);
const RX: u16 = rx_queue(0);

/// A driver that is interrupted for each pass; nothing is left to be interrupted for.
fn driver(host: &Host) -> Driver {
    let driver = host.driver_with(FEATURES & !EVENT_IDX);
    driver.interrupts(TX);
    driver.interrupts(RX);
    driver
}

/// Sends messages of one byte each without waiting; the device has seen them when this returns.
fn send_burst(driver: &mut Driver, count: u8) -> Vec<u16> {
    let mut heads = Vec::new();
    for byte in 0..count {
        let header = driver.tx_header(0);
        heads.push(driver.post_tx(0, header, &[byte]));
        driver.streams[0].sent += 1;
    }
    driver.kick(TX);
    driver.barrier();
    heads
}

fn entries(driver: &mut Driver, queue: u16) -> Vec<(u32, u32)> {
    std::iter::from_fn(|| driver.used_entry(queue)).collect()
}

/// Each pass uses buffers; some of the interrupts for it are missing, the same ones again.
#[test]
fn dropped_interrupts() {
    let run = || {
        let host = Host::new(&["loopback"]);
        let mut driver = driver(&host);
        host.fault("drop-interrupt,fifo=0,on=tx,p=0.5,seed=3");
        let came: Vec<_> = (0..40)
            .map(|_| {
                send_burst(&mut driver, 1);
                assert_eq!(entries(&mut driver, TX).len(), 1);
                driver.interrupts(TX)
            })
            .collect();
        let missing = came.iter().filter(|count| **count == 0).count();
        assert_eq!(host.strikes(), missing as u64);
        assert!(missing > 5 && missing < 35, "{missing} of 40 with p=0.5");
        came
    };
    assert_eq!(run(), run());
}

#[test]
fn a_dropped_interrupt_is_not_made_up_for() {
    let host = Host::new(&["loopback"]);
    let mut driver = driver(&host);
    host.fault("drop-interrupt,fifo=0,count=1");
    send_burst(&mut driver, 2);
    assert_eq!((driver.used_count(TX), driver.interrupts(TX)), (2, 0));
    send_burst(&mut driver, 1);
    assert_eq!((driver.used_count(TX), driver.interrupts(TX)), (3, 1));
}

#[test]
fn a_delayed_interrupt_comes_late() {
    let host = Host::new(&["loopback"]);
    let mut driver = driver(&host);
    host.fault("delay-interrupt,fifo=0,on=tx,delay=300ms");
    let start = Instant::now();
    send_burst(&mut driver, 1);
    assert_eq!(driver.used_count(TX), 1);
    driver.wait_interrupt(TX);
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_duplicate_interrupt_comes_twice() {
    let host = Host::new(&["loopback"]);
    let mut driver = driver(&host);
    host.fault("duplicate-interrupt,fifo=0,on=tx,delay=50ms,count=1");
    send_burst(&mut driver, 1);
    let mut interrupts = driver.interrupts(TX);
    while interrupts < 2 {
        wait_readable(driver.call(TX), "the second interrupt");
        interrupts += driver.interrupts(TX);
    }
    assert_eq!((driver.used_count(TX), interrupts), (1, 2));
}

#[rstest]
#[case("fifo=0,on=rx", RX)]
#[case("on=event", EVENT_QUEUE)]
#[case("on=control", CONTROL_QUEUE)]
fn a_spurious_interrupt_comes_for_nothing(#[case] place: &str, #[case] queue: u16) {
    let host = Host::new(&["loopback"]);
    let driver = driver(&host);
    driver.interrupts(queue);
    host.fault(&format!("spurious-interrupt,{place},every=5ms,count=3"));
    // Several may have come by the time this thread looks.
    let mut interrupts = 0;
    while interrupts < 2 {
        wait_readable(driver.call(queue), "a spurious interrupt");
        interrupts += driver.interrupts(queue);
    }
    assert_eq!(driver.used_count(queue), 0);
}

#[test]
fn used_buffers_out_of_order() {
    let host = Host::new(&["loopback"]);
    let mut driver = driver(&host);
    host.fault("reorder-used,fifo=0,on=tx");
    let heads = send_burst(&mut driver, 4);
    let used: Vec<_> = entries(&mut driver, TX)
        .into_iter()
        .map(|(id, _)| u16::try_from(id).unwrap())
        .collect();
    assert_eq!(used, [heads[1], heads[0], heads[3], heads[2]]);
    // One alone has nothing to change places with, and is not kept back.
    let heads = send_burst(&mut driver, 1);
    assert_eq!(entries(&mut driver, TX), [(heads[0].into(), 0)]);
    assert_eq!(driver.state(0).tx_accepted, 5);
}

#[test]
fn a_wrong_used_length() {
    let host = Host::new(&["loopback"]);
    let mut driver = driver(&host);
    let exact = host.fault("wrong-length,fifo=0,on=rx,bytes=77");
    driver.send(0, b"hello");
    driver.post_rx(0, 10);
    driver.barrier();
    assert_eq!(driver.used_entry(RX).unwrap().1, 77);
    host.device.faults().remove(exact);
    host.fault("wrong-length,on=control");
    let request = CtrlRequest {
        kind: CTRL_GET_STATE,
        fifo: 0,
        tx_sent: 0,
    };
    let request = driver.readable(&request.to_bytes());
    let response = driver.writable(56);
    driver.add(CONTROL_QUEUE, &[request, response]);
    driver.kick(CONTROL_QUEUE);
    driver.barrier();
    assert_ne!(driver.used_entry(CONTROL_QUEUE).unwrap().1, 56);
}

/// With EVENT_IDX too, the interrupt comes: what the used ring says is no reason to be silent.
#[rstest]
fn a_wrong_id_or_index(
    #[values("wrong-id", "wrong-index")] kind: &str,
    #[values(FEATURES, FEATURES & !EVENT_IDX)] features: u64,
    #[values(1, 2, 3, 4)] seed: u64,
) {
    let host = Host::new(&["loopback"]);
    let mut driver = host.driver_with(features);
    driver.interrupts(TX);
    driver.set_used_event(TX, driver.seen(TX));
    host.fault(&format!("{kind},fifo=0,on=tx,seed={seed}"));
    let head = send_burst(&mut driver, 1)[0];
    driver.wait_interrupt(TX);
    if kind == "wrong-id" {
        assert_eq!(driver.used_count(TX), 1);
        assert_ne!(driver.used_entry(TX).unwrap().0, u32::from(head));
    } else {
        assert_ne!(driver.used_count(TX), 1);
    }
}

/// What is missing from a short message comes in the next one: nothing is lost.
#[test]
fn short_messages_carry_everything() {
    let host = Host::new(&["loopback"]);
    let mut driver = host.driver();
    host.fault("short-transfer,seed=1");
    let sent: Vec<u8> = (0..200).collect();
    driver.send(0, &sent);
    let mut received = Vec::new();
    let mut messages = 0;
    while received.len() < sent.len() {
        received.extend(driver.read_some(0, 1000));
        messages += 1;
    }
    assert_eq!(received, sent);
    assert!(messages > 3, "{messages} messages");
    let host = Host::new(&["loopback"]);
    let mut driver = host.driver();
    host.fault("short-transfer,bytes=7,count=1");
    driver.send(0, &sent);
    assert_eq!(driver.read_some(0, 1000), sent[..7]);
    assert_eq!(driver.read_some(0, 1000), sent[7..]);
}

/// DEV-4 broken: more than the FIFO holds, in one piece of the stream.
#[test]
fn more_bytes_than_the_fifo_holds() {
    let host = Host::new(&["loopback,capacity=100"]);
    let mut driver = host.driver();
    driver.check_serves(0);
    let consumed = driver.streams[0].consumed;
    host.fault("credit-overrun,on=rx,count=1,bytes=5");
    for _ in 0..6 {
        driver.post_rx(0, 30);
    }
    driver.send(0, b"x");
    let mut end = consumed;
    for part in [30, 30, 30, 15] {
        let (header, bytes) = driver.receive(0);
        assert_eq!((header.offset, bytes.len()), (end, part));
        end += part as u64;
    }
    assert_eq!(end, consumed + 105);
}

/// DEV-20 broken: credit that is none, by messages and by events.
#[rstest]
fn a_limit_above_the_capacity(#[values("zero", "null")] kind: &str) {
    let host = Host::new(&[&format!("{kind},capacity=100")]);
    let mut driver = host.driver();
    host.fault("credit-overrun,on=tx,bytes=1000");
    driver.post_event();
    driver.post_rx(0, 10);
    driver.send(0, &[0; 100]);
    let limit = if kind == "zero" {
        driver.receive(0).0.tx_limit
    } else {
        driver.wait_event().tx_limit
    };
    assert!(limit > driver.streams[0].sent + 100, "{limit}");
}

/// A queue that stalls is served when that is over, without another kick.
#[test]
fn a_stall_for_a_time() {
    let host = Host::new(&["loopback"]);
    let mut driver = driver(&host);
    let start = Instant::now();
    host.fault("stall,fifo=0,on=tx,for=300ms");
    let header = driver.tx_header(0);
    driver.post_tx(0, header, b"late");
    driver.streams[0].sent += 4;
    driver.kick(TX);
    driver.wait_used(TX);
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(driver.read_some(0, 10), b"late");
}

/// A stall for good ends with a reset; what was in the queue is processed by then (DEV-7).
#[test]
fn a_stall_for_good() {
    let host = Host::new(&["loopback", "loopback"]);
    let mut driver = driver(&host);
    host.fault("stall,fifo=0,on=tx,count=1");
    send_burst(&mut driver, 3);
    driver.check_serves(1);
    assert_eq!(driver.used_count(TX), 0);
    driver.reset();
    assert_eq!(driver.read_some(0, 10), [0, 1, 2]);
    driver.check_serves(0);
}

/// The device as a whole is deaf, and hears again when the fault is taken away.
#[test]
fn a_stall_taken_away() {
    let host = Host::new(&["loopback"]);
    let mut driver = driver(&host);
    host.fault("stall,on=control");
    let request = CtrlRequest {
        kind: CTRL_CLEAR,
        fifo: 0,
        tx_sent: 0,
    };
    let request = driver.readable(&request.to_bytes());
    let response = driver.writable(56);
    driver.add(CONTROL_QUEUE, &[request, response]);
    driver.kick(CONTROL_QUEUE);
    driver.barrier();
    assert_eq!(driver.used_count(CONTROL_QUEUE), 0);
    assert_eq!(host.device.faults().clear(), 1);
    assert_eq!(
        driver.wait_used(CONTROL_QUEUE).1 as usize,
        CtrlResponse::LEN
    );
}

/// A slow loopback accepts at once and gives back late.
#[test]
fn a_slow_loopback() {
    let host = Host::new(&["loopback"]);
    let mut driver = driver(&host);
    let start = Instant::now();
    host.fault("slow,fifo=0,delay=300ms,count=1");
    driver.send(0, b"late");
    assert_eq!(driver.state(0).rx_end, 4);
    assert_eq!(driver.read_some(0, 10), b"late");
    assert!(start.elapsed() >= Duration::from_millis(300));
    driver.check_serves(0);
    assert_eq!(host.strikes(), 1);
}

/// A slow host takes late what the device accepts at once.
#[test]
fn a_slow_host() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("end");
    let host = Host::new(&[&format!("unix={}", path.display())]);
    let mut driver = driver(&host);
    let mut peer = UnixStream::connect(&path).unwrap();
    host.fault("slow,fifo=0,delay=300ms,count=1");
    let start = Instant::now();
    driver.send(0, b"late");
    assert_eq!(driver.state(0).tx_limit, 4096);
    let mut bytes = [0; 4];
    peer.read_exact(&mut bytes).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(300));
    driver.wait_state(0, |state| state.tx_limit == 4100);
}

/// An event though nothing has changed, and even that is not what it says.
#[test]
fn a_garbage_event() {
    let host = Host::new(&["loopback"]);
    let mut driver = driver(&host);
    driver.post_event();
    let truth = driver.state(0);
    host.fault("garbage-event,fifo=0,count=1,seed=5");
    let event = driver.wait_event();
    assert_ne!(event, truth);
    // The next is the truth again.
    driver.post_event();
    host.device.fifo(0).unwrap().break_down();
    host.device.serve_fifo(0);
    let flags = STATE_LOOPBACK | STATE_ERROR;
    assert_eq!(driver.wait_event(), State { flags, ..truth });
}

/// DEV-16: the hang-up is told by an event at its time, and so is its end; nothing is lost.
#[test]
fn a_hang_up_and_its_end() {
    let host = Host::new(&["zero,capacity=100"]);
    let mut driver = host.driver();
    driver.post_event();
    let start = Instant::now();
    host.fault("hang-up,fifo=0,after=100ms,for=200ms");
    let state = driver.wait_event();
    assert_eq!(state.flags, STATE_HANGUP);
    assert!(start.elapsed() >= Duration::from_millis(100));
    // What is in the FIFO can be received, and no more comes.
    let end = state.rx_end;
    assert_eq!(driver.read_exact(0, 100), [0; 100]);
    driver.send(0, &[]);
    assert_eq!(driver.state(0).rx_end, end);
    driver.post_event();
    assert_eq!(driver.wait_event().flags, 0);
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(driver.read_exact(0, 100), [0; 100]);
}

/// DEV-29, DEV-21: STATE_ERROR until the device is reset, and no other FIFO notices.
#[test]
fn a_device_error() {
    let host = Host::new(&["loopback", "loopback"]);
    let mut driver = driver(&host);
    driver.send(0, b"kept");
    driver.post_event();
    host.fault("device-error,fifo=0,count=1");
    assert_eq!(driver.wait_event().flags, STATE_LOOPBACK | STATE_ERROR);
    driver.check_serves(1);
    driver.reset();
    assert_eq!(driver.state(0).flags, STATE_LOOPBACK);
    assert_eq!(driver.read_some(0, 10), b"kept");
    driver.check_serves(0);
}

/// A liar in one FIFO is none in another, and an honest device again when it is told to.
#[rstest]
fn a_liar(#[values(1, 2, 3, 4, 5, 6, 7, 8)] seed: u64) {
    let host = Host::new(&["loopback", "loopback"]);
    let mut driver = driver(&host);
    host.fault(&format!("liar,fifo=0,p=0.5,seed={seed}"));
    for _ in 0..30 {
        let part = driver.writable(100);
        driver.add(RX, &[part]);
        driver.kick(RX);
        send_burst(&mut driver, 1);
        driver.check_serves(1);
    }
    assert!(host.strikes() > 10);
    host.device.faults().clear();
    driver.reset();
    driver.clear(0);
    driver.check_serves(0);
}

/// A liar everywhere: configuration space is wrong now and then, and right again afterwards.
#[test]
fn a_liar_about_configuration_space() {
    let host = Host::new(&["loopback"]);
    let mut driver = driver(&host);
    host.fault("liar,p=0.5,seed=1");
    let len = u32::try_from(Config::LEN).unwrap();
    let truth = Config::new(1).to_bytes();
    let answers: Vec<_> = (0..20).map(|_| driver.config(0, len)).collect();
    assert!(answers.iter().any(|answer| *answer == truth));
    assert!(answers.iter().any(|answer| *answer != truth));
    host.device.faults().clear();
    assert_eq!(driver.config(0, len), truth);
}

/// One word of configuration space says what the fault has it say, before a driver is there too.
#[rstest]
#[case("wrong-config,value=7", b"\x07\0\0\0\x01\0\0\0\x02\0\0\0")]
#[case("wrong-config,word=1,value=2", b"FIFO\x02\0\0\0\x02\0\0\0")]
#[case("wrong-config,word=2,value=32", b"FIFO\x01\0\0\0\x20\0\0\0")]
#[case("wrong-config,word=3,value=1", b"FIFO\x01\0\0\0\x02\0\0\0")]
fn a_word_of_configuration_space_can_be_wrong(#[case] fault: &str, #[case] expected: &[u8]) {
    let host = Host::new(&["loopback", "null"]);
    host.fault(fault);
    let mut driver = driver(&host);
    let len = u32::try_from(Config::LEN).unwrap();
    assert_eq!(driver.config(0, len), expected);
    host.device.faults().clear();
    assert_eq!(driver.config(0, len), Config::new(2).to_bytes());
}

/// Whatever went wrong in a FIFO: without the fault and after a reset it serves, its bytes in order.
#[rstest]
fn after_a_fault_and_a_reset_it_serves(
    #[values(
        "drop-interrupt",
        "reorder-used",
        "wrong-length",
        "wrong-id",
        "wrong-index",
        "short-transfer",
        "credit-overrun",
        "stall",
        "slow",
        "garbage-event",
        "hang-up"
    )]
    kind: &str,
) {
    let host = Host::new(&["loopback"]);
    let mut driver = driver(&host);
    let event = driver.writable(u32::try_from(State::LEN).unwrap());
    driver.add(EVENT_QUEUE, &[event]);
    for _ in 0..2 {
        let buffer = driver.writable(u32::try_from(RxHeader::LEN).unwrap() + 100);
        driver.add(RX, &[buffer]);
    }
    host.fault(&format!("{kind},fifo=0"));
    send_burst(&mut driver, 4);
    assert!(host.strikes() > 0);
    host.device.faults().clear();
    driver.reset();
    assert_eq!(driver.read_exact(0, 4), [0, 1, 2, 3]);
    driver.check_serves(0);
}

#[test]
fn a_fault_for_a_fifo_that_is_not_there() {
    let host = Host::new(&["loopback"]);
    let stray = "stall,fifo=1".parse().unwrap();
    let error = host.device.faults().add(&stray).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no FIFO 1: the device has 1, numbered from 0"
    );
}
