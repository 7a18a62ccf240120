// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause OR GPL-2.0-only

//! The C header says what the Rust source says: the same constants with the same values, and messages
//! of the same fields at the same places.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::collections::BTreeMap;

use virtio_fifo_protocol::virtio_fifo::{
    rx_queue, tx_queue, Config, CtrlRequest, CtrlResponse, RxHeader, State, TxHeader,
};

const HEADER: &str = include_str!("../include/virtio_fifo.h");
const SOURCE: &str = include_str!("../src/virtio_fifo.rs");
const PREFIX: &str = "VIRTIO_FIFO_";

/// `#define VIRTIO_FIFO_NAME NUMBER`s.
fn defined() -> BTreeMap<String, u64> {
    HEADER
        .lines()
        .filter_map(|line| line.strip_prefix("#define ")?.strip_prefix(PREFIX))
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), number(value)?)))
        .collect()
}

/// A decimal or hexadecimal literal.
fn number(literal: &str) -> Option<u64> {
    let digits = literal.trim().replace('_', "");
    match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => digits.parse().ok(),
    }
}

/// `pub const NAME: TYPE = NUMBER;`s outside of types.
fn declared() -> BTreeMap<String, u64> {
    SOURCE
        .lines()
        .filter_map(|line| line.strip_prefix("pub const "))
        .filter(|line| !line.starts_with("fn "))
        .map(|line| {
            let (name, rest) = line.split_once(':').unwrap();
            let value = rest.split_once("= ").unwrap().1.trim_end_matches(';');
            let number = |text| number(text).unwrap();
            let value = match value.split_once("<<") {
                Some((one, shift)) => number(one) << number(shift),
                None => number(value),
            };
            (name.to_owned(), value)
        })
        .collect()
}

/// The fields of a struct of the header: name, offset and length of each.
fn fields(name: &str) -> Vec<(String, usize, usize)> {
    let (_, rest) = HEADER.split_once(&format!("struct {name} {{")).unwrap();
    let (body, _) = rest.split_once("};").unwrap();
    let mut at = 0;
    body.split(';')
        .filter_map(|field| field.trim().rsplit_once(' '))
        .map(|(kind, field)| {
            let len = match kind {
                "VIRTIO_FIFO_LE32" => 4,
                "VIRTIO_FIFO_LE64" => 8,
                "struct virtio_fifo_state" => State::LEN,
                other => panic!("{other}"),
            };
            at += len;
            (field.to_owned(), at - len, len)
        })
        .collect()
}

/// Where `bytes` differ from zero has to be exactly the field `name`.
fn is_at(message: &str, name: &str, bytes: &[u8]) {
    let fields = fields(message);
    let (_, at, len) = fields.iter().find(|(field, ..)| field == name).unwrap();
    for (index, byte) in bytes.iter().enumerate() {
        let inside = (*at..at + len).contains(&index);
        assert_eq!(*byte == 0xff, inside, "{message}.{name}, byte {index}");
    }
    let (_, last, last_len) = fields.last().unwrap();
    assert_eq!(last + last_len, bytes.len(), "length of {message}");
}

#[test]
fn constants_of_header_and_source_are_the_same() {
    assert_eq!(defined(), declared());
    assert!(defined().len() > 15, "{:?}", defined());
}

#[test]
fn queues_are_numbered_alike() {
    assert_eq!((rx_queue(0), tx_queue(0)), (2, 3));
    assert!(HEADER.contains("#define VIRTIO_FIFO_RX_QUEUE(fifo) (2 + 2 * (fifo))"));
    assert!(HEADER.contains("#define VIRTIO_FIFO_TX_QUEUE(fifo) (3 + 2 * (fifo))"));
}

#[test]
fn fields_are_where_the_source_has_them() {
    let (all, most) = (u32::MAX, u64::MAX);
    for (index, name) in ["magic", "version", "num_fifos"].into_iter().enumerate() {
        let word = |place| if place == index { all } else { 0 };
        let config = Config {
            magic: word(0),
            version: word(1),
            num_fifos: word(2),
        };
        is_at("virtio_fifo_config", name, &config.to_bytes());
    }
    for (name, offset, rx_consumed) in [("offset", most, 0), ("rx_consumed", 0, most)] {
        let header = TxHeader {
            offset,
            rx_consumed,
        };
        is_at("virtio_fifo_tx_hdr", name, &header.to_bytes());
    }
    for (index, name) in ["offset", "rx_floor", "tx_limit"].into_iter().enumerate() {
        let value = |place| if place == index { most } else { 0 };
        let header = RxHeader {
            offset: value(0),
            rx_floor: value(1),
            tx_limit: value(2),
        };
        is_at("virtio_fifo_rx_hdr", name, &header.to_bytes());
    }
    let names = [
        "fifo",
        "flags",
        "capacity",
        "rx_floor",
        "rx_end",
        "tx_accepted",
        "tx_limit",
    ];
    for (index, name) in names.into_iter().enumerate() {
        let word = |place| if place == index { all } else { 0 };
        let long = |place| if place == index { most } else { 0 };
        let state = State {
            fifo: word(0),
            flags: word(1),
            capacity: word(2),
            rx_floor: long(3),
            rx_end: long(4),
            tx_accepted: long(5),
            tx_limit: long(6),
        };
        is_at("virtio_fifo_state", name, &state.to_bytes());
    }
    for (index, name) in ["type", "fifo", "tx_sent"].into_iter().enumerate() {
        let word = |place| if place == index { all } else { 0 };
        let request = CtrlRequest {
            kind: word(0),
            fifo: word(1),
            tx_sent: if index == 2 { most } else { 0 },
        };
        is_at("virtio_fifo_ctrl_req", name, &request.to_bytes());
    }
    let response = CtrlResponse {
        status: all,
        state: State::default(),
    };
    is_at("virtio_fifo_ctrl_resp", "status", &response.to_bytes());
}
