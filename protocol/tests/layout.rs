// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause OR GPL-2.0-only

//! The byte layouts of docs/virtio-fifo.md, section 6, written out by hand: a change of the wire
//! format cannot pass unnoticed.

use virtio_fifo_protocol::virtio_fifo::{
    num_queues, rx_queue, tx_queue, Config, CtrlRequest, CtrlResponse, RxHeader, State, TxHeader,
    Unusable, CONFIG_MAGIC, MAX_FIFOS,
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
fn config_is_magic_version_and_number() {
    let bytes = *b"FIFO\x01\0\0\0\x03\0\0\0";
    let config = Config::new(3);
    assert_eq!(config.to_bytes(), bytes);
    assert_eq!(Config::from_bytes(bytes), config);
    let offsets = [
        (Config::MAGIC_AT, config.magic),
        (Config::VERSION_AT, config.version),
        (Config::NUM_FIFOS_AT, config.num_fifos),
    ];
    for (at, value) in offsets {
        assert_eq!(word(&bytes, at), Some(value.to_le_bytes()));
    }
}

/// The 4 bytes at an offset, and those beyond the end as QEMU has them.
fn word(bytes: &[u8], at: u32) -> Option<[u8; 4]> {
    let at = at as usize;
    Some(std::array::from_fn(|index| {
        *bytes.get(at + index).unwrap_or(&0xff)
    }))
}

fn recognise(bytes: &[u8]) -> Result<u16, Unusable> {
    Config::recognise(|at| word(bytes, at))
}

/// DRV-2, DRV-19, DRV-20
#[test]
fn a_device_is_recognised_by_magic_version_and_number() {
    for count in 1..=MAX_FIFOS {
        assert_eq!(recognise(&Config::new(count).to_bytes()), Ok(count));
    }
    let right = Config::new(1);
    for num_fifos in [0, 32, 0x1_0001, u32::MAX - 1] {
        let bytes = Config { num_fifos, ..right }.to_bytes();
        assert_eq!(recognise(&bytes), Err(Unusable::NumFifos(num_fifos)));
    }
    for version in [0, 2, u32::MAX - 1] {
        let bytes = Config { version, ..right }.to_bytes();
        assert_eq!(recognise(&bytes), Err(Unusable::Version(version)));
    }
    for magic in [0, 32, CONFIG_MAGIC.swap_bytes(), u32::MAX] {
        let bytes = Config { magic, ..right }.to_bytes();
        assert_eq!(recognise(&bytes), Err(Unusable::Foreign));
    }
}

/// DRV-19, DRV-22: configuration space of version 0.x was the number of FIFOs alone.
#[test]
fn a_device_from_before_version_1_is_told_from_a_foreign_one() {
    for count in 1..=u32::from(MAX_FIFOS) {
        let unversioned = Err(Unusable::Unversioned(count));
        assert_eq!(recognise(&count.to_le_bytes()), unversioned);
        // A VMM that was told a longer configuration space.
        let bytes = Config {
            magic: count,
            ..Config::new(1)
        };
        assert_eq!(recognise(&bytes.to_bytes()), unversioned);
    }
}

/// DRV-20: a VMM that was told another size than the device has.
#[test]
fn a_configuration_space_that_ends_early_is_not_used() {
    let whole = Config::new(1).to_bytes();
    for (len, expected) in [
        (0, Err(Unusable::Foreign)),
        (4, Err(Unusable::Short)),
        (8, Err(Unusable::Short)),
        (12, Ok(1)),
        (64, Ok(1)),
    ] {
        let mut bytes = whole.to_vec();
        bytes.resize(len, 0);
        assert_eq!(recognise(&bytes), expected, "{len} bytes");
    }
    assert_eq!(Config::recognise(|_| None), Err(Unusable::Foreign));
}

/// DRV-19
#[test]
fn of_a_device_without_the_magic_only_the_first_word_is_read() {
    for (first, expected) in [(0, Unusable::Foreign), (1, Unusable::Unversioned(1))] {
        let mut read = Vec::new();
        let outcome = Config::recognise(|at| {
            read.push(at);
            Some(u32::to_le_bytes(first))
        });
        assert_eq!((outcome, read), (Err(expected), vec![0]));
    }
}

/// Drivers from before version 1.0 read the number of FIFOs where the magic is, and refuse one above 31.
#[test]
fn a_driver_that_knows_no_magic_refuses_the_device() {
    assert!(CONFIG_MAGIC > u32::from(MAX_FIFOS));
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
