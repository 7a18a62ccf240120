// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause OR GPL-2.0-only

//! The byte layouts of docs/virtio-fifo.md, section 6, written out by hand: a change of the wire
//! format cannot pass unnoticed.

use virtio_fifo_protocol::virtio_fifo::{
    num_queues, rx_queue, tx_queue, Config, CtrlRequest, CtrlResponse, RxHeader, State, TxHeader,
};

const STATE: State = State {
    fifo: 0x0403_0201,
    flags: 5,
    capacity: 0x1000,
    rx_floor: 0x11,
    rx_end: 0x22,
    tx_accepted: 0x33,
    tx_limit: 0x4400_0000_0000_0000,
};

#[test]
fn queues_alternate_after_control_and_event() {
    assert_eq!((rx_queue(0), tx_queue(0)), (2, 3));
    assert_eq!((rx_queue(5), tx_queue(5)), (12, 13));
    assert_eq!(num_queues(1), 4);
    assert_eq!(num_queues(31), 64);
}

#[test]
fn config_is_one_le32() {
    let config = Config { num_fifos: 0x0102 };
    assert_eq!(config.to_bytes(), [2, 1, 0, 0]);
    assert_eq!(Config::from_bytes([2, 1, 0, 0]), config);
}

#[test]
fn headers_are_le64s() {
    let tx = TxHeader {
        offset: 1,
        rx_consumed: 0x0203,
    };
    assert_eq!(
        tx.to_bytes(),
        [1, 0, 0, 0, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(TxHeader::from_bytes(tx.to_bytes()), tx);
    let rx = RxHeader {
        offset: 1,
        rx_floor: 0x0203,
        tx_limit: 4,
    };
    assert_eq!(rx.to_bytes()[..16], tx.to_bytes());
    assert_eq!(rx.to_bytes()[16..], [4, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(RxHeader::from_bytes(rx.to_bytes()), rx);
}

#[test]
fn state_has_a_reserved_word_after_capacity() {
    let bytes = STATE.to_bytes();
    assert_eq!(
        bytes[..16],
        [1, 2, 3, 4, 5, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(
        (bytes[16], bytes[24], bytes[32], bytes[47]),
        (0x11, 0x22, 0x33, 0x44)
    );
    assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 10);
    assert_eq!(State::from_bytes(bytes), STATE);
}

#[test]
fn control_messages_carry_type_fifo_and_state() {
    let request = CtrlRequest {
        kind: 2,
        fifo: 3,
        tx_sent: 4,
    };
    assert_eq!(
        request.to_bytes(),
        [2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(CtrlRequest::from_bytes(request.to_bytes()), request);
    let response = CtrlResponse {
        status: 9,
        state: STATE,
    };
    assert_eq!(response.to_bytes()[..8], [9, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(response.to_bytes()[8..], STATE.to_bytes());
    assert_eq!(CtrlResponse::from_bytes(response.to_bytes()), response);
}
