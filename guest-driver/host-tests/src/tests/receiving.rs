// SPDX-License-Identifier: GPL-2.0-only

//! The receiving half of a FIFO by itself: [`RxSide`].

use super::parts::told;
use crate::driver::buffers::{Rx, RxBuffer};
use crate::driver::chain::Chain;
use crate::driver::fifo::rx::RxSide;
use crate::driver::tunables::BUDGET;
use crate::kapi::virtio::Ring;
use crate::prelude::*;
use crate::virtio_fifo::{RxHeader, State, MAX_POSITION};
use crate::world;

struct Receiver {
    rx: RxSide,
    ring: Ring<Rx>,
}

impl Receiver {
    fn new() -> Self {
        world::reset();
        let mut this = Self {
            rx: RxSide::new(&told()),
            ring: Ring::new(256),
        };
        this.attach();
        this
    }

    fn attach(&mut self) {
        let mut buffers = Chain::new();
        let (size, count) = RxSide::buffers_for(100);
        (0..self.rx.missing(count))
            .for_each(|_| buffers.push_back(RxBuffer::for_rx(size).unwrap()));
        self.rx.attach(self.ring.queue(), buffers);
    }

    /// Takes the queue away, with the posted buffers.
    fn detach(&mut self) {
        let mut queue = self.rx.detach().unwrap();
        let posted = std::iter::from_fn(|| queue.take_unused()).count();
        self.rx.forget_posted(posted);
    }

    /// The device sends bytes whose values are their positions.
    fn send(&mut self, offset: u64, n: usize, rx_floor: u64) {
        let mut packet = self.ring.take().expect("a buffer");
        let room = packet.device_writes();
        let header = RxHeader {
            offset,
            rx_floor,
            tx_limit: 0,
        };
        room[..RxHeader::LEN].copy_from_slice(&header.to_bytes());
        (0..n).for_each(|i| room[RxHeader::LEN + i] = offset.wrapping_add(i as u64) as u8);
        self.ring.give(packet, RxHeader::LEN + n);
    }

    fn receive(&mut self) -> Result<u64, &'static str> {
        self.rx
            .receive(false)
            .map(|received| received.bytes)
            .map_err(|broken| broken.0)
    }

    fn read(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(buffer) = self.rx.take() {
            all.extend_from_slice(buffer.unread());
            let n = buffer.unread().len();
            self.rx.give_back(buffer, n);
        }
        self.rx.consume_given();
        all
    }
}

#[test]
fn small_pieces_are_joined_in_order_and_their_buffers_posted_again() {
    let mut receiver = Receiver::new();
    let before = receiver.ring.available();
    for offset in 0..BUDGET as u64 - 4 {
        receiver.send(offset, 1, 0);
        assert_eq!(receiver.receive(), Ok(1));
    }
    assert_eq!(receiver.ring.available(), before - 1);
    assert_eq!(receiver.read(), (0..BUDGET as u8 - 4).collect::<Vec<_>>());
    assert_eq!(receiver.ring.available(), before);
}

/// DRV-10, DRV-15.
#[test]
fn message_from_before_a_clear_that_overtook_it_is_dropped() {
    let mut receiver = Receiver::new();
    receiver.send(0, 10, 0);
    receiver.rx.discard(10);
    assert_eq!(receiver.receive(), Ok(0));
    receiver.send(10, 5, 10);
    assert_eq!(receiver.receive(), Ok(5));
    assert_eq!(receiver.read(), (10..15).collect::<Vec<_>>());
}

#[test]
fn clear_while_a_reader_has_a_buffer_drops_what_it_did_not_read() {
    let mut receiver = Receiver::new();
    receiver.send(0, 10, 0);
    receiver.receive().unwrap();
    let buffer = receiver.rx.take().unwrap();
    receiver.rx.discard(6);
    receiver.rx.give_back(buffer, 2);
    assert_eq!(receiver.read(), (6..10).collect::<Vec<_>>());
}

#[test]
fn bytes_that_come_again_after_a_reset_are_dropped() {
    let mut receiver = Receiver::new();
    receiver.send(0, 10, 0);
    receiver.receive().unwrap();
    receiver.detach();
    receiver.attach();
    let state = State {
        rx_end: 15,
        ..told()
    };
    assert!(receiver.rx.resume(&state).is_ok());
    receiver.send(0, 4, 0);
    receiver.send(4, 11, 0);
    assert_eq!(receiver.receive(), Ok(5));
    assert_eq!(receiver.read(), (0..15).collect::<Vec<_>>());
}

#[test]
fn device_that_stands_before_what_it_sent_is_not_resumed() {
    let mut receiver = Receiver::new();
    receiver.send(0, 10, 0);
    receiver.receive().unwrap();
    assert!(receiver
        .rx
        .resume(&State {
            rx_end: 9,
            ..told()
        })
        .is_err());
}

/// DRV-11, and DEV-31 as the driver sees it.
#[test]
fn impossible_messages_break_the_receiver() {
    for (offset, n, floor, written) in [
        (u64::MAX, 2, 0, None),
        (MAX_POSITION - 1, 1, 0, None),
        (0, 1, 1, None),
        (0, 101, 0, None),
        (0, 0, 0, None),
        (0, 1, 0, Some(1_000_000)),
        (0, 1, 0, Some(0)),
    ] {
        let mut receiver = Receiver::new();
        receiver.send(offset, n, floor);
        if let Some(written) = written {
            let mut packet = receiver.ring.take().unwrap();
            packet.device_writes().fill(0);
            receiver.ring.give(packet, written);
        }
        assert!(
            receiver.receive().is_err(),
            "{offset} {n} {floor} {written:?}"
        );
    }
}

#[test]
fn bytes_that_came_before_break_the_receiver_without_a_reset() {
    let mut receiver = Receiver::new();
    receiver.send(0, 10, 0);
    receiver.send(5, 10, 0);
    assert!(receiver.receive().is_err());
}

/// DRV-17.
#[test]
fn receiver_stops_after_its_budget() {
    let mut receiver = Receiver::new();
    let mut offset = 0;
    for _ in 0..2 {
        while receiver.ring.available() > 0 && offset < 100 {
            receiver.send(offset, 1, 0);
            offset += 1;
        }
        if offset > BUDGET as u64 {
            break;
        }
        receiver.receive().unwrap();
    }
    let mut rx = RxSide::new(&State {
        capacity: 1000,
        ..told()
    });
    let ring = Ring::new(256);
    let mut buffers = Chain::new();
    (0..BUDGET + 10).for_each(|_| buffers.push_back(RxBuffer::for_rx(4096).unwrap()));
    rx.attach(ring.queue(), buffers);
    let mut receiver = Receiver { rx, ring };
    (0..BUDGET as u64 + 10).for_each(|offset| receiver.send(offset, 1, 0));
    let received = receiver
        .rx
        .receive(false)
        .map_err(|broken| broken.0)
        .unwrap();
    assert_eq!((received.bytes, received.more), (BUDGET as u64, true));
}

#[test]
fn broken_rx_queue_is_told() {
    let mut receiver = Receiver::new();
    receiver.ring.break_it();
    assert!(receiver.receive().is_err());
}

#[test]
fn buffer_emptied_without_a_queue_is_posted_to_the_next() {
    let mut receiver = Receiver::new();
    let all = receiver.ring.available();
    receiver.send(0, 10, 0);
    receiver.receive().unwrap();
    receiver.detach();
    // What is missing is counted, and then a reader empties the one that was filled.
    let (size, count) = RxSide::buffers_for(100);
    let missing = receiver.rx.missing(count);
    assert_eq!(receiver.read(), (0..10).collect::<Vec<_>>());
    let mut buffers = Chain::new();
    (0..missing).for_each(|_| buffers.push_back(RxBuffer::for_rx(size).unwrap()));
    receiver.ring = Ring::new(256);
    receiver.rx.attach(receiver.ring.queue(), buffers);
    assert_eq!(receiver.ring.available(), all);
}
