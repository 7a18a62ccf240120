// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Control requests and events: sections 6.4 and 6.5 of the specification.

use rstest::rstest;
use virtio_fifo_protocol::virtio_fifo::CTRL_BAD_COUNTER;
use virtio_fifo_protocol::virtio_fifo::CTRL_BAD_FIFO;
use virtio_fifo_protocol::virtio_fifo::CTRL_CLEAR;
use virtio_fifo_protocol::virtio_fifo::CTRL_GET_STATE;
use virtio_fifo_protocol::virtio_fifo::CTRL_OK;
use virtio_fifo_protocol::virtio_fifo::CTRL_UNSUPPORTED;
use virtio_fifo_protocol::virtio_fifo::CtrlResponse;
use virtio_fifo_protocol::virtio_fifo::STATE_ERROR;
use virtio_fifo_protocol::virtio_fifo::STATE_LOOPBACK;
use virtio_fifo_protocol::virtio_fifo::State;
use virtio_fifo_protocol::virtio_fifo::TxHeader;

use crate::common::Host;

/// Section 6.5: the state is that of the named FIFO, and asking changes nothing.
#[test]
fn get_state_tells_and_changes_nothing() {
    let host = Host::new(&["null,capacity=7", "loopback,capacity=9"]);
    let mut driver = host.driver();
    driver.send(1, b"abc");
    let expected = State {
        fifo: 1,
        flags: STATE_LOOPBACK,
        capacity: 9,
        rx_floor: 0,
        rx_end: 3,
        tx_accepted: 3,
        tx_limit: 9,
    };
    assert_eq!(driver.state(1), expected);
    // It ignores `tx_sent`.
    let response = driver.control(CTRL_GET_STATE, 1, u64::MAX);
    assert_eq!(
        response,
        CtrlResponse {
            status: CTRL_OK,
            state: expected,
        }
    );
    assert_eq!(driver.read_some(1, 10), b"abc");
}

/// DEV-24
#[rstest]
#[case(0, 0, CTRL_UNSUPPORTED)]
#[case(3, 0, CTRL_UNSUPPORTED)]
#[case(u32::MAX, u32::MAX, CTRL_UNSUPPORTED)]
#[case(CTRL_GET_STATE, 2, CTRL_BAD_FIFO)]
#[case(CTRL_CLEAR, 2, CTRL_BAD_FIFO)]
#[case(CTRL_CLEAR, 0x1_0000, CTRL_BAD_FIFO)]
#[case(CTRL_GET_STATE, u32::MAX, CTRL_BAD_FIFO)]
fn what_is_not_there_is_answered(#[case] kind: u32, #[case] fifo: u32, #[case] status: u32) {
    let host = Host::new(&["loopback", "loopback"]);
    let mut driver = host.driver();
    driver.send(0, b"kept");
    let response = driver.control(kind, fifo, 0);
    let state = State::default();
    assert_eq!(response, CtrlResponse { status, state });
    assert_eq!(driver.read_some(0, 10), b"kept");
}

/// DEV-8, DEV-14, DEV-23: received and waiting bytes go; the counters run on; what comes next
/// starts above the gap, and credit is whole again.
#[test]
fn clear_discards_everything() {
    let host = Host::new(&["loopback,capacity=8"]);
    let mut driver = host.driver();
    driver.send(0, b"abcdefgh");
    assert_eq!(driver.read_some(0, 3), b"abc");
    let state = driver.clear(0);
    assert_eq!((state.rx_floor, state.rx_end), (8, 8));
    assert_eq!((state.tx_accepted, state.tx_limit), (8, 16));
    driver.post_rx(0, 100);
    driver.send(0, b"12345678");
    let (header, bytes) = driver.receive(0);
    // DRV-10: the message itself says what is gone, whether the response was seen or not.
    assert_eq!(header.rx_floor, 8);
    assert_eq!((header.offset, bytes.as_slice()), (8, &b"12345678"[..]));
    assert_eq!(host.all_refused(), 0);
}

/// DEV-22: messages that are available and not announced count as sent before the request.
#[test]
fn clear_takes_available_messages_first() {
    let host = Host::new(&["loopback,capacity=100"]);
    let mut driver = host.driver();
    for _ in 0..3 {
        let header = driver.tx_header(0);
        driver.post_tx(0, header, b"0123456789");
        driver.streams[0].sent += 10;
    }
    let state = driver.clear(0);
    assert_eq!((state.rx_floor, state.tx_accepted), (30, 30));
    driver.post_rx(0, 100);
    driver.barrier();
    assert!(driver.try_receive(0).is_none());
    assert_eq!(host.all_refused(), 0);
}

/// DEV-22: bytes that the device never got cannot be cleared, and nothing else is.
#[test]
fn clear_of_what_was_not_received_is_refused() {
    let host = Host::new(&["loopback"]);
    let mut driver = host.driver();
    driver.send(0, b"kept");
    let response = driver.control(CTRL_CLEAR, 0, 5);
    assert_eq!(response.status, CTRL_BAD_COUNTER);
    assert_eq!(response.state, State::default());
    assert_eq!(driver.read_some(0, 10), b"kept");
}

/// DEV-9, DEV-23: a message that was on its way reports less than the device knows by now.
#[test]
fn a_message_that_crosses_clear_is_accepted() {
    let host = Host::new(&["loopback,capacity=8"]);
    let mut driver = host.driver();
    driver.send(0, b"abcdefgh");
    driver.clear(0);
    let late = TxHeader {
        offset: 8,
        rx_consumed: 0,
    };
    driver.send_raw(0, late, b"ijklmnop");
    assert_eq!(driver.state(0).tx_accepted, 16);
    assert_eq!(host.all_refused(), 0);
}

/// DEV-23 on an endpoint that has more at once: the response shows the FIFO empty.
#[test]
fn clear_of_zero_is_empty_for_a_moment() {
    let host = Host::new(&["zero,capacity=10"]);
    let mut driver = host.driver();
    assert_eq!(driver.read_some(0, 4), [0; 4]);
    let state = driver.clear(0);
    assert_eq!((state.rx_floor, state.rx_end), (10, 10));
    assert_eq!(driver.read_some(0, 100), [0; 10]);
}

/// DEV-11, DEV-16, DEV-18: several changes with no buffer to tell them in become one event, with
/// the state of the time when it is sent.
#[test]
fn changes_without_a_buffer_become_one_event() {
    let host = Host::new(&["loopback", "null,capacity=10"]);
    let mut driver = host.driver();
    // FIFO 1 has more credit to give; nobody can be told.
    driver.send(1, &[1; 10]);
    // FIFO 0 fails, many times over.
    let wrong = TxHeader {
        offset: 99,
        rx_consumed: 0,
    };
    driver.send_raw(0, wrong, b"x");
    driver.send_raw(0, wrong, b"y");
    driver.post_event();
    driver.post_event();
    driver.post_event();
    let mut states = [driver.wait_event(), driver.wait_event()];
    states.sort_by_key(|state| state.fifo);
    assert_eq!(states[0].flags, STATE_LOOPBACK | STATE_ERROR);
    assert_eq!((states[1].tx_accepted, states[1].tx_limit), (10, 20));
    driver.barrier();
    assert!(driver.try_event().is_none());
}

/// DEV-16: CTRL_CLEAR needs no event.
#[test]
fn clear_sends_no_event() {
    let host = Host::new(&["loopback"]);
    let mut driver = host.driver();
    driver.post_event();
    driver.send(0, b"abc");
    driver.clear(0);
    driver.barrier();
    assert!(driver.try_event().is_none());
}
