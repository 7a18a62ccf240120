// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One FIFO between a driver that does as it pleases and a host side that comes and goes. The byte at a position
//! of a stream is a function of the position, so that each byte that comes out tells whether it is
//! the right one (DEV-5).

use std::io;
use std::io::Write;

use vhost_device_fifo::fifo::Connection;
use vhost_device_fifo::fifo::Fifo;
use vhost_device_fifo::fifo::ResetPolicy;
use virtio_fifo_protocol::virtio_fifo::RxHeader;
use virtio_fifo_protocol::virtio_fifo::STATE_ERROR;
use virtio_fifo_protocol::virtio_fifo::TxHeader;

use crate::guest::check_levels;
use crate::input::Input;

/// A byte for the kind of FIFO, one for its capacity, then steps.
pub fn fifo(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.u8();
    let capacity = usize::from(input.u8() % 64) + 1;
    let reset = if kind & 2 == 0 {
        ResetPolicy::Keep
    } else {
        ResetPolicy::Clear
    };
    let outside = kind & 1 == 1;
    let mut fifo = if outside {
        Fifo::with_outside(0, capacity, reset)
    } else {
        Fifo::loopback(0, capacity, reset)
    };
    while !input.is_empty() {
        step(&mut fifo, outside, &mut input);
        check_levels(&fifo);
    }
}

fn step(fifo: &mut Fifo, outside: bool, input: &mut Input<'_>) {
    match input.u8() % 12 {
        0..=2 => send(fifo, input),
        3..=4 => receive(fifo, input),
        5 if outside => put(fifo, input),
        6 => {
            fifo.clear();
            assert_eq!(fifo.status().rx.level + fifo.status().tx.level, 0);
        }
        7 => {
            fifo.reset();
            assert_eq!(fifo.tell_state().flags & STATE_ERROR, 0);
        }
        8 => {
            let state = fifo.tell_state();
            assert!(state.tx_limit - state.tx_accepted <= u64::from(state.capacity));
            assert!(state.rx_end - state.rx_floor <= u64::from(state.capacity));
        }
        9 if outside => take(fifo, input),
        10 => connection(fifo, input),
        _ => fifo.event_told(),
    }
}

fn send(fifo: &mut Fifo, input: &mut Input<'_>) {
    let before = fifo.status();
    let header = TxHeader {
        offset: input.near(fifo.tx_accepted()),
        rx_consumed: input.near(before.rx.entered - fifo.pending() as u64),
    };
    let len = usize::from(input.u8());
    let there = len.saturating_sub(usize::from(input.u8() == 0xff));
    let payload: Vec<u8> = (0..there as u64)
        .map(|at| byte(header.offset.wrapping_add(at)))
        .collect();
    match fifo.accept(header, &mut payload.as_slice(), len) {
        // DEV-10, DEV-11: all of it or nothing.
        Ok(()) => {
            assert_eq!(there, len);
            assert_eq!(fifo.tx_accepted(), header.offset + len as u64);
        }
        Err(reason) => {
            assert_eq!(fifo.status().tx.entered, before.tx.entered);
            if input.u8() & 1 == 1 {
                fifo.fail("tx", reason);
                assert_eq!(fifo.pending(), 0);
            }
        }
    }
}

fn receive(fifo: &mut Fifo, input: &mut Input<'_>) {
    let space = usize::from(input.u8());
    let mut sink = Sink {
        bytes: Vec::new(),
        most: usize::from(input.u8()),
    };
    let pending = fifo.pending();
    match fifo.deliver(&mut sink, space) {
        Ok(len) => {
            assert!(len > RxHeader::LEN && len <= space);
            assert_eq!(len, sink.bytes.len());
            assert_eq!(fifo.pending(), pending - (len - RxHeader::LEN));
            let (head, payload) = sink.bytes.split_at(RxHeader::LEN);
            let header = RxHeader::from_bytes(head.try_into().expect("split there"));
            let expected = (header.offset..).map(byte);
            assert!(payload.iter().copied().eq(expected.take(payload.len())));
        }
        // DEV-15: nothing of the stream is lost.
        Err(_) => assert_eq!(fifo.pending(), pending),
    }
}

/// The host side sends something.
fn put(fifo: &mut Fifo, input: &mut Input<'_>) {
    let room = fifo.room();
    let before = fifo.status();
    let offered: Vec<u8> = (before.rx.entered..)
        .map(byte)
        .take(input.u8().into())
        .collect();
    let len = fifo.put(&offered);
    let free = before.capacity - before.rx.level;
    assert_eq!(len, offered.len().min(free));
    assert!(room == free || room == 0);
    assert_eq!(fifo.status().rx.entered, before.rx.entered + len as u64);
}

/// The host side takes something, and perhaps forgets to say so or says too much.
fn take(fifo: &mut Fifo, input: &mut Input<'_>) {
    let mut bytes = [0; 100];
    let most = usize::from(input.u8()).min(bytes.len());
    let (position, len) = fifo.peek(&mut bytes[..most]);
    assert!(len <= most.min(fifo.status().tx.level));
    let expected = (position..).map(byte);
    assert!(bytes[..len].iter().copied().eq(expected.take(len)));
    let taken = input.near(position + len as u64);
    if taken <= fifo.tx_accepted() {
        fifo.taken(taken);
    }
    let (waits, space) = fifo.has_work();
    assert!(!waits || fifo.status().tx.level > 0);
    assert!(!space || fifo.room() > 0);
}

fn connection(fifo: &mut Fifo, input: &mut Input<'_>) {
    let connections = [
        Connection::Awaited,
        Connection::Connected,
        Connection::HalfClosed,
        Connection::Gone,
    ];
    match connections.get(usize::from(input.u8() % 6)) {
        Some(connection) => fifo.set_connection(*connection),
        None => fifo.hang_up(input.u8() & 1 == 1),
    }
}

/// The byte at a position of either stream.
fn byte(position: u64) -> u8 {
    (position % 251) as u8
}

/// Takes so many bytes, then fails.
struct Sink {
    bytes: Vec<u8>,
    most: usize,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(self.most - self.bytes.len().min(self.most));
        self.bytes.extend(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
