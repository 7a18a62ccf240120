// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the specification says of one FIFO, held against it without queues.

use std::io;
use std::io::Read;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use rstest::rstest;
use vm_memory::VolatileSlice;

use super::outside::LEAVE_FROM;
use super::*;
use crate::outlet::Outlet;
use crate::pattern::Pattern;
use crate::wake::Remembered;

/// A FIFO with an outside, and the bell by which it calls for the event loop.
fn outside(capacity: usize) -> (Fifo, Arc<Remembered>) {
    let rung = Arc::new(Remembered::default());
    let mut fifo = Fifo::with_outside(0, capacity, ResetPolicy::Keep);
    fifo.set_bell(rung.clone());
    fifo.tell_state();
    (fifo, rung)
}

/// What the host takes.
fn take(fifo: &mut Fifo, most: usize) -> Vec<u8> {
    let mut bytes = vec![0; most];
    let (position, len) = fifo.peek(&mut bytes);
    fifo.taken(position + len as u64);
    bytes.truncate(len);
    bytes
}

fn send(fifo: &mut Fifo, payload: &[u8]) -> Result<(), Refusal> {
    let header = TxHeader {
        offset: fifo.tx_accepted(),
        rx_consumed: fifo.rx.sent(),
    };
    let mut source = payload;
    fifo.accept(header, &mut source, payload.len())
}

fn receive(fifo: &mut Fifo) -> Vec<u8> {
    let mut message = Vec::new();
    fifo.deliver(&mut message, 1000).unwrap();
    message.split_off(RxHeader::LEN)
}

/// DEV-10, DEV-20: a host that takes little holds nothing up; credit is what it took.
#[test]
fn a_slow_host_limits_credit() {
    let (mut fifo, _) = outside(8);
    send(&mut fifo, b"12345678").unwrap();
    assert_eq!(take(&mut fifo, 3), b"123");
    // DEV-16: the limit told is reached, and a higher one can be given.
    assert!(fifo.event_due());
    assert_eq!(send(&mut fifo, b"9"), Err(Refusal::OverLimit));
    assert_eq!(fifo.tell_state().tx_limit, 11);
    assert!(!fifo.event_due());
    send(&mut fifo, b"9ab").unwrap();
    assert!(!fifo.event_due());
    assert_eq!(take(&mut fifo, 99), b"456789ab");
}

/// DEV-16: each change of the host side is an event, if the driver can see it.
#[rstest]
#[case(Connection::Lasting, 0)]
#[case(Connection::Awaited, 0)]
#[case(Connection::Connected, 0)]
#[case(Connection::HalfClosed, STATE_RX_END)]
#[case(Connection::Gone, STATE_HANGUP)]
fn the_driver_is_told_of_the_host_side(#[case] connection: Connection, #[case] flags: u32) {
    let (mut fifo, _) = outside(8);
    fifo.put(b"last");
    fifo.set_connection(connection);
    assert_eq!(fifo.event_due(), flags != 0);
    let state = fifo.tell_state();
    assert_eq!((state.flags, state.rx_end), (flags, 4));
    fifo.event_told();
    assert_eq!(receive(&mut fifo), b"last");
    fifo.set_connection(Connection::Connected);
    assert_eq!(fifo.event_due(), flags != 0);
    assert_eq!(fifo.tell_state().flags, 0);
}

#[test]
fn peers_are_counted() {
    let (mut fifo, _) = outside(8);
    for connection in [
        Connection::Awaited,
        Connection::Connected,
        Connection::HalfClosed,
        Connection::Connected,
        Connection::Gone,
        Connection::Connected,
    ] {
        fifo.set_connection(connection);
    }
    assert_eq!(fifo.status().peers, 2);
}

/// A hang-up on demand, of any kind of FIFO.
#[test]
fn hang_up_on_demand() {
    let mut fifo = Fifo::loopback(0, 8, ResetPolicy::Keep);
    fifo.hang_up(true);
    assert!(fifo.event_due());
    assert_eq!(fifo.tell_state().flags, STATE_LOOPBACK | STATE_HANGUP);
    fifo.hang_up(false);
    assert_eq!(fifo.tell_state().flags, STATE_LOOPBACK);
}

/// DEV-4: no more is taken from the host than there is room, and the bell tells of more room
/// and of bytes, each once, and only to a loop that found none.
#[test]
fn the_bell_rings_for_who_waits() {
    let (mut fifo, rung) = outside(4);
    send(&mut fifo, b"x").unwrap();
    assert!(!rung.take());
    assert_eq!(take(&mut fifo, 9), b"x");
    assert_eq!(fifo.has_work(), (false, true));
    send(&mut fifo, b"").unwrap();
    assert!(!rung.take());
    send(&mut fifo, b"y").unwrap();
    send(&mut fifo, b"z").unwrap();
    assert!(rung.take());
    assert_eq!(fifo.put(b"abcdef"), 4);
    assert_eq!(fifo.put(b"ef"), 0);
    assert_eq!(fifo.has_work(), (true, false));
    assert_eq!(receive(&mut fifo), b"abcd");
    assert!(fifo.is_full());
    // The report makes room.
    send(&mut fifo, b"").unwrap();
    assert!(rung.take());
    assert_eq!(fifo.room(), 4);
}

/// A way out that takes `most` bytes at a time.
#[derive(Debug)]
struct Gate {
    most: AtomicUsize,
    taken: Mutex<Vec<u8>>,
    /// Those of them from where a guest has them.
    in_pieces: AtomicUsize,
}

impl Gate {
    fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most: AtomicUsize::new(most),
            taken: Mutex::default(),
            in_pieces: AtomicUsize::new(0),
        })
    }

    fn open(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    fn taken(&self) -> Vec<u8> {
        std::mem::take(&mut *self.taken.lock().unwrap())
    }
}

impl Outlet for Gate {
    fn offer_pieces(&self, pieces: &[VolatileSlice<'_>]) -> io::Result<usize> {
        let mut bytes = Vec::new();
        for piece in pieces {
            let mut copy = vec![0; piece.len()];
            piece.copy_to(&mut copy);
            bytes.extend(copy);
        }
        let len = self.offer(&bytes, &[])?;
        self.in_pieces.fetch_add(len, Ordering::Relaxed);
        Ok(len)
    }

    fn offer(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        let bytes = [first, second].concat();
        let len = bytes.len().min(self.most.load(Ordering::Relaxed));
        if len == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.taken.lock().unwrap().extend_from_slice(&bytes[..len]);
        Ok(len)
    }
}

/// Bytes leave when the pass is over, and the loop does not hear of it.
#[test]
fn bytes_leave_by_the_outlet() {
    let (mut fifo, rung) = outside(8);
    let gate = Gate::new(usize::MAX);
    fifo.set_outlet(Some(gate.clone()));
    fifo.has_work();
    for _ in 0..3 {
        send(&mut fifo, b"12345").unwrap();
        send(&mut fifo, b"678").unwrap();
        assert_eq!(gate.taken(), b"");
        fifo.pass_over();
        assert_eq!(gate.taken(), b"12345678");
        assert_eq!(fifo.untaken(), 0);
        fifo.tell_state();
    }
    assert!(!rung.take());
    fifo.set_outlet(None);
    send(&mut fifo, b"x").unwrap();
    assert!(rung.take());
    fifo.pass_over();
    assert_eq!(take(&mut fifo, 9), b"x");
}

/// A payload in two pieces of a guest's memory.
struct Shown {
    bytes: Vec<u8>,
    at: usize,
}

impl Read for Shown {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let len = (&self.bytes[self.at..]).read(bytes)?;
        self.at += len;
        Ok(len)
    }
}

impl Payload for Shown {
    fn show(&mut self, len: usize, take: impl FnOnce(&[VolatileSlice<'_>]) -> usize) -> usize {
        let (first, second) = self.bytes[self.at..][..len].split_at_mut(len / 3);
        let taken = take(&[VolatileSlice::from(first), VolatileSlice::from(second)]);
        self.at += taken;
        taken
    }
}

/// Large payloads leave from where they are, unless others are before them; what the outlet does not take
/// stays, and what follows waits behind it.
#[rstest]
#[case(LEAVE_FROM, b"", usize::MAX, (0, LEAVE_FROM))]
#[case(LEAVE_FROM, b"before", usize::MAX, (6, LEAVE_FROM))]
#[case(LEAVE_FROM, b"before", LEAVE_FROM - 1, (6, LEAVE_FROM - 1))]
#[case(LEAVE_FROM, b"before", 3, (3, 0))]
#[case(LEAVE_FROM, b"", 0, (0, 0))]
#[case(LEAVE_FROM - 1, b"", usize::MAX, (LEAVE_FROM - 1, 0))]
fn large_payloads_leave_from_where_they_are(
    #[case] len: usize,
    #[case] before: &[u8],
    #[case] most: usize,
    #[case] (copied, in_pieces): (usize, usize),
) {
    let (mut fifo, rung) = outside(2 * LEAVE_FROM);
    let gate = Gate::new(most);
    fifo.set_outlet(Some(gate.clone()));
    fifo.has_work();
    send(&mut fifo, before).unwrap();
    let mut bytes = vec![0; len];
    Pattern::new(3).fill(0, &mut bytes);
    let mut payload = Shown {
        bytes: bytes.clone(),
        at: 0,
    };
    let header = TxHeader {
        offset: fifo.tx_accepted(),
        rx_consumed: 0,
    };
    fifo.accept(header, &mut payload, len).unwrap();
    assert_eq!(payload.at, len);
    let mut taken = gate.taken();
    assert_eq!(taken.len(), copied + in_pieces);
    assert_eq!(gate.in_pieces.load(Ordering::Relaxed), in_pieces);
    let status = fifo.status().tx;
    assert_eq!(status.entered, (before.len() + len) as u64);
    assert_eq!(status.level, before.len() + len - copied - in_pieces);
    send(&mut fifo, b"after").unwrap();
    fifo.pass_over();
    taken.extend(gate.taken());
    let (at_end, all) = (taken.len(), [before, &bytes, b"after"].concat());
    assert_eq!(rung.take(), at_end < all.len());
    taken.extend(take(&mut fifo, usize::from(u16::MAX) * 3));
    assert_eq!(taken, all);
}

/// What the outlet does not take stays, in order, and the loop is called.
#[test]
fn what_does_not_fit_through_the_outlet_is_for_the_loop() {
    let (mut fifo, rung) = outside(8);
    let gate = Gate::new(3);
    fifo.set_outlet(Some(gate.clone()));
    fifo.has_work();
    send(&mut fifo, b"12345").unwrap();
    fifo.pass_over();
    assert_eq!(gate.taken(), b"123");
    assert!(rung.take());
    gate.open(0);
    send(&mut fifo, b"6").unwrap();
    fifo.pass_over();
    assert_eq!(take(&mut fifo, 9), b"456");
}

/// Nothing overtakes what the loop has in hand, a clear or not.
#[rstest]
#[case(false)]
#[case(true)]
fn the_outlet_waits_for_what_the_loop_takes_out(#[case] clear: bool) {
    let (mut fifo, rung) = outside(8);
    let gate = Gate::new(0);
    fifo.set_outlet(Some(gate.clone()));
    send(&mut fifo, b"1234").unwrap();
    fifo.pass_over();
    let (position, len) = fifo.peek(&mut [0; 2]);
    assert_eq!((position, len), (0, 2));
    gate.open(usize::MAX);
    if clear {
        fifo.clear();
    }
    send(&mut fifo, b"56").unwrap();
    fifo.pass_over();
    assert_eq!(gate.taken(), b"");
    fifo.taken(2);
    // The loop is at it, and sees that there is more.
    assert_eq!(fifo.has_work(), (true, true));
    assert!(!rung.take());
    fifo.pass_over();
    let expected: &[u8] = if clear { b"56" } else { b"3456" };
    assert_eq!(gate.taken(), expected);
}

/// A FIFO that stands still lets nothing out; then the loop is called.
#[test]
fn nothing_leaves_a_fifo_that_is_held_up() {
    let (mut fifo, rung) = outside(8);
    let gate = Gate::new(usize::MAX);
    fifo.set_outlet(Some(gate.clone()));
    fifo.has_work();
    fifo.hold_up(true);
    send(&mut fifo, b"12").unwrap();
    fifo.pass_over();
    assert_eq!(gate.taken(), b"");
    assert!(!rung.take());
    fifo.hold_up(false);
    assert!(rung.take());
    assert_eq!(take(&mut fifo, 9), b"12");
}

/// A FIFO that has failed stands still: its bytes stay, and the reset tells the loop.
#[test]
fn a_failed_fifo_keeps_its_bytes_until_the_reset() {
    let (mut fifo, rung) = outside(8);
    send(&mut fifo, b"kept").unwrap();
    fifo.fail("host side of fifo", Refusal::Endpoint);
    assert_eq!(fifo.tell_state().flags, STATE_ERROR);
    assert_eq!(fifo.has_work(), (false, false));
    assert!(!rung.take());
    fifo.reset();
    assert!(rung.take());
    assert_eq!(fifo.tell_state().flags, 0);
    assert_eq!(take(&mut fifo, 9), b"kept");
}

/// DEV-23: clear discards what the host has not taken, too, and gives its room back; news of
/// bytes that were on their way meanwhile change nothing.
#[test]
fn clear_discards_both_directions() {
    let (mut fifo, rung) = outside(4);
    fifo.put(b"abcd");
    fifo.room();
    send(&mut fifo, b"wxyz").unwrap();
    let (position, len) = fifo.peek(&mut [0; 2]);
    fifo.clear();
    assert!(rung.take());
    fifo.taken(position + len as u64);
    let state = fifo.tell_state();
    assert_eq!((state.rx_floor, state.rx_end), (4, 4));
    assert_eq!((state.tx_accepted, state.tx_limit), (4, 8));
    assert_eq!(take(&mut fifo, 9), b"");
}

/// Reads are the pattern from its start, writes must be, and the first that is not fails the
/// FIFO; after the reset it goes on where it is.
#[test]
fn a_pattern_is_given_and_demanded() {
    let pattern = Pattern::new(5);
    let endpoint = Endpoint::Pattern(pattern);
    let mut fifo = Fifo::with_endpoint(0, 100, ResetPolicy::Keep, endpoint);
    fifo.tell_state();
    let mut expected = [0; 300];
    pattern.fill(0, &mut expected);
    let mut received = Vec::new();
    for chunk in expected.chunks(75) {
        fifo.exchange();
        received.extend(receive(&mut fifo));
        send(&mut fifo, chunk).unwrap();
        fifo.exchange();
        assert_eq!(fifo.tell_state().flags, 0);
    }
    assert_eq!(received[..300], expected);
    send(&mut fifo, b"no").unwrap();
    fifo.exchange();
    assert_eq!(fifo.tell_state().flags, STATE_ERROR);
    assert_eq!(fifo.refusals().count(Refusal::Mismatch), 1);
    assert_eq!(send(&mut fifo, b"x"), Err(Refusal::Failed));
    fifo.reset();
    let mut rest = [0; 10];
    pattern.fill(302, &mut rest);
    send(&mut fifo, &rest).unwrap();
    fifo.exchange();
    assert_eq!(fifo.tell_state().flags, 0);
}

/// Levels and counters, of both streams and of a loopback's one.
#[test]
fn status_counts_what_enters_and_leaves() {
    let (mut fifo, _) = outside(8);
    fifo.put(b"abc");
    send(&mut fifo, b"wxyz").unwrap();
    send(&mut fifo, b"").unwrap();
    take(&mut fifo, 1);
    receive(&mut fifo);
    let status = fifo.status();
    let rx = Traffic {
        entered: 3,
        left: 0,
        level: 3,
        messages: 1,
    };
    let tx = Traffic {
        entered: 4,
        left: 1,
        level: 3,
        messages: 1,
    };
    assert_eq!((status.rx, status.tx), (rx, tx));
    assert_eq!((status.capacity, status.flags), (8, 0));
    let mut fifo = Fifo::loopback(3, 8, ResetPolicy::Keep);
    send(&mut fifo, b"ab").unwrap();
    let status = fifo.status();
    assert_eq!((status.index, status.flags), (3, STATE_LOOPBACK));
    assert_eq!((status.rx.level, status.tx.level), (2, 0));
    assert_eq!((status.tx.entered, status.tx.left), (2, 2));
}

/// DEV-11: a payload that ends early is refused as a whole.
#[test]
fn a_payload_that_ends_early_is_refused() {
    let mut fifo = Fifo::loopback(0, 8, ResetPolicy::Keep);
    let header = TxHeader {
        offset: 0,
        rx_consumed: 0,
    };
    let mut short: &[u8] = b"ab";
    let refused = fifo.accept(header, &mut short, 3);
    assert_eq!(refused, Err(Refusal::InvalidChain));
    assert_eq!(fifo.tx_accepted(), 0);
}
