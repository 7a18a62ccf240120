// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The FIFO core: a byte ring with three cursors, `consumed <= sent <= written`.
//!
//! Bytes enter at `written`, are handed out at `sent` and leave at `consumed`; until then they can
//! be handed out again. The ring reads from and writes to anything that is `Read` or `Write`, so
//! each byte is copied once on its way in and once on its way out. It must not know virtio,
//! sockets or threads.

#![forbid(unsafe_code)]

use std::io;
use std::io::Read;
use std::io::Write;

/// Bytes that are made at a time. Not fewer: the same 8 to 48 KiB, copied again and again, take two to three times as
/// long in one process of five, by where their pages happen to be (`rep movsb` of a Zen 5); 64 KiB never did.
const PIECE: usize = 65_536;

/// What a caller did wrong with a [`Ring`], or what its peer did.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// More bytes offered than there is room for.
    #[error("{len} bytes do not fit, {free} are free")]
    Full {
        /// Bytes offered.
        len: usize,
        /// Bytes that fit.
        free: usize,
    },
    /// A position was acknowledged that has not been handed out yet.
    #[error("position {position} is beyond the {sent} bytes sent")]
    NotSent {
        /// Position acknowledged.
        position: u64,
        /// Bytes handed out.
        sent: u64,
    },
    /// The source or the sink failed; the cursors did not move.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A byte queue of fixed capacity whose positions are free-running byte counters.
///
/// # Invariants
///
/// - `consumed <= sent <= written`
/// - `written - consumed <= capacity`, which is not 0
/// - `bytes` has `capacity` bytes, or none: then only counters are kept
/// - `origin <= consumed`
#[derive(Debug)]
pub struct Ring {
    bytes: Box<[u8]>,
    capacity: usize,
    /// What was made last, where bytes are made.
    piece: Box<[u8]>,
    /// The position of the first byte of the storage. An empty ring begins there anew, so that what
    /// passes through in small portions stays in the processor's caches, however large the ring is.
    origin: u64,
    consumed: u64,
    sent: u64,
    written: u64,
}

impl Ring {
    /// An empty ring; a capacity of 0 is raised to 1.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self {
            bytes: vec![0; capacity].into_boxed_slice(),
            ..Self::counting(capacity)
        }
    }

    /// A ring for bytes that follow from their positions: it stores none. They come in by
    /// [`Ring::claim`] and are made when they are handed out, by [`Ring::make_to`].
    pub fn of_made_bytes(capacity: usize) -> Self {
        Self {
            piece: vec![0; PIECE].into_boxed_slice(),
            ..Self::counting(capacity.max(1))
        }
    }

    fn counting(capacity: usize) -> Self {
        Self {
            bytes: Box::default(),
            capacity,
            piece: Box::default(),
            origin: 0,
            consumed: 0,
            sent: 0,
            written: 0,
        }
    }

    /// Most bytes the ring holds.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Position below which every byte has been consumed or discarded.
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Position of the next byte to hand out.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Position of the next byte to come in.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes in the ring, handed out or not.
    pub fn len(&self) -> usize {
        distance(self.consumed, self.written)
    }

    /// Whether there is nothing in the ring.
    pub fn is_empty(&self) -> bool {
        self.consumed == self.written
    }

    /// Bytes that can come in.
    pub fn free(&self) -> usize {
        self.capacity() - self.len()
    }

    /// Bytes that can be handed out.
    pub fn unsent(&self) -> usize {
        distance(self.sent, self.written)
    }

    /// Takes exactly `len` bytes from `source`, or none.
    ///
    /// # Errors
    ///
    /// [`RingError::Full`] if they do not fit, [`RingError::Io`] if `source` has fewer.
    pub fn push_from(&mut self, source: &mut impl Read, len: usize) -> Result<(), RingError> {
        let free = self.free().min(self.bytes.len());
        if len > free {
            return Err(RingError::Full { len, free });
        }
        self.begin_anew();
        let (first, second) = self.span_mut(self.written, len);
        source.read_exact(first)?;
        source.read_exact(second)?;
        // INVARIANT: `len <= free()`, so `written - consumed` stays within the capacity.
        self.written += as_count(len);
        Ok(())
    }

    /// Counts `len` bytes that came in and left without being stored. Only for an empty ring: else they would
    /// have overtaken others, and nothing is counted.
    pub fn pass_through(&mut self, len: usize) {
        if self.is_empty() {
            // INVARIANT: all three are equal.
            self.written += as_count(len);
            self.drop_to(self.written);
        }
    }

    /// Counts all that is free as come in: bytes to be made; returns how many that is.
    pub fn claim(&mut self) -> usize {
        let free = self.free();
        // INVARIANT: as much as is free.
        self.written += as_count(free);
        free
    }

    /// As [`Ring::send_to`], with bytes made by `make`, a piece at a time: it gets the position of the first,
    /// and the piece that it made last, at first of zeros.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn make_to(
        &mut self,
        sink: &mut impl Write,
        len: usize,
        mut make: impl FnMut(u64, &mut [u8]),
    ) -> Result<(), RingError> {
        let most = self.piece.len();
        if len > self.unsent() || len > 0 && most == 0 {
            return Err(RingError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut made = 0;
        while made < len {
            let (piece, _) = self.piece.split_at_mut(most.min(len - made));
            make(self.sent + as_count(made), piece);
            sink.write_all(piece)?;
            made += piece.len();
        }
        // INVARIANT: `len <= unsent()`, so `sent <= written`.
        self.sent += as_count(len);
        Ok(())
    }

    /// Hands out exactly `len` bytes to `sink`, or none.
    ///
    /// # Errors
    ///
    /// [`RingError::Io`] if `sink` fails or fewer bytes are unsent.
    pub fn send_to(&mut self, sink: &mut impl Write, len: usize) -> Result<(), RingError> {
        if len > self.unsent().min(self.bytes.len()) {
            return Err(RingError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        let (first, second) = self.span(self.sent, len);
        sink.write_all(first)?;
        sink.write_all(second)?;
        // INVARIANT: `len <= unsent()`, so `sent <= written`.
        self.sent += as_count(len);
        Ok(())
    }

    /// The unsent bytes, where they are: the rest follows in the second part.
    pub fn unsent_parts(&self) -> (&[u8], &[u8]) {
        self.span(self.sent, self.unsent())
    }

    /// Copies unsent bytes without handing them out: the position of the first, and how many.
    pub fn peek(&self, bytes: &mut [u8]) -> (u64, usize) {
        let len = self.unsent().min(bytes.len());
        let (first, second) = self.span(self.sent, len);
        let (to_first, rest) = bytes.split_at_mut(first.len());
        let (to_second, _) = rest.split_at_mut(second.len());
        to_first.copy_from_slice(first);
        to_second.copy_from_slice(second);
        (self.sent, len)
    }

    /// Hands out every byte below `position` and forgets it: for those who never give anything
    /// back. What is gone already stays so.
    pub fn drop_to(&mut self, position: u64) {
        // INVARIANT: the cursors only grow, and not beyond `written`.
        self.sent = self.sent.max(position.min(self.written));
        self.consumed = self.sent;
    }

    /// Shows every unsent byte to `take`, with the position of the first, and forgets it.
    pub fn drain_with(&mut self, mut take: impl FnMut(u64, &[u8])) {
        let (first, second) = self.span(self.sent, self.unsent());
        take(self.sent, first);
        if !second.is_empty() {
            take(self.sent + as_count(first.len()), second);
        }
        self.drop_to(self.written);
    }

    /// Forgets every byte below `position`; returns how many that were. A position that is already
    /// consumed changes nothing.
    ///
    /// # Errors
    ///
    /// [`RingError::NotSent`] if bytes below `position` were never handed out.
    pub fn consume_to(&mut self, position: u64) -> Result<usize, RingError> {
        if position > self.sent {
            return Err(RingError::NotSent {
                position,
                sent: self.sent,
            });
        }
        let count = distance(self.consumed, position.max(self.consumed));
        // INVARIANT: `consumed` only grows, and not beyond `sent`.
        self.consumed = self.consumed.max(position);
        Ok(count)
    }

    /// Makes every byte that was not consumed be handed out again.
    pub fn rewind(&mut self) {
        // INVARIANT: `sent` may be anything from `consumed` to `written`.
        self.sent = self.consumed;
    }

    /// Discards every byte, handed out or not; returns how many that were. The counters run on.
    pub fn clear(&mut self) -> usize {
        let count = self.len();
        // INVARIANT: all three are equal.
        self.sent = self.written;
        self.consumed = self.written;
        count
    }

    /// If nothing is inside, what comes next is put at the beginning of the storage.
    fn begin_anew(&mut self) {
        if self.is_empty() {
            // INVARIANT: `consumed` is `written`.
            self.origin = self.written;
        }
    }

    /// The storage of `len <= capacity()` bytes from `position`: it wraps at most once. Empty where
    /// nothing is stored.
    fn span_mut(&mut self, position: u64, len: usize) -> (&mut [u8], &mut [u8]) {
        let at = self.index(position).min(self.bytes.len());
        let len = len.min(self.bytes.len());
        let first = len.min(self.bytes.len() - at);
        let (head, tail) = self.bytes.split_at_mut(at);
        let (first_part, _) = tail.split_at_mut(first);
        let (second_part, _) = head.split_at_mut(len - first);
        (first_part, second_part)
    }

    /// As [`Ring::span_mut`].
    fn span(&self, position: u64, len: usize) -> (&[u8], &[u8]) {
        let at = self.index(position).min(self.bytes.len());
        let len = len.min(self.bytes.len());
        let first = len.min(self.bytes.len() - at);
        let (head, tail) = self.bytes.split_at(at);
        let (first_part, _) = tail.split_at(first);
        let (second_part, _) = head.split_at(len - first);
        (first_part, second_part)
    }

    fn index(&self, position: u64) -> usize {
        let offset = position.saturating_sub(self.origin);
        usize::try_from(offset % as_count(self.capacity)).unwrap_or_default()
    }
}

/// Bytes from `low` to `high`, which both belong to one ring and so are at most its capacity apart.
fn distance(low: u64, high: u64) -> usize {
    usize::try_from(high.saturating_sub(low)).unwrap_or(usize::MAX)
}

/// A length as a stream counter.
fn as_count(len: usize) -> u64 {
    len as u64
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn push(ring: &mut Ring, bytes: &[u8]) -> Result<(), RingError> {
        let mut source = bytes;
        ring.push_from(&mut source, bytes.len())
    }

    fn send(ring: &mut Ring, len: usize) -> Vec<u8> {
        let mut sink = Vec::new();
        ring.send_to(&mut sink, len).unwrap();
        sink
    }

    /// DEV-4: what was handed out and not consumed still counts.
    #[test]
    fn capacity_is_exact_and_counts_sent_bytes() {
        let mut ring = Ring::new(4);
        push(&mut ring, b"abcd").unwrap();
        assert_eq!(send(&mut ring, 4), b"abcd");
        assert!(matches!(
            push(&mut ring, b"e"),
            Err(RingError::Full { len: 1, free: 0 })
        ));
        assert_eq!(ring.consume_to(1).unwrap(), 1);
        push(&mut ring, b"e").unwrap();
        assert!(push(&mut ring, b"f").is_err());
    }

    /// DEV-6: unconsumed bytes come again.
    #[test]
    fn rewind_hands_out_unconsumed_bytes_again() {
        let mut ring = Ring::new(8);
        push(&mut ring, b"abcdef").unwrap();
        send(&mut ring, 5);
        ring.consume_to(2).unwrap();
        ring.rewind();
        assert_eq!(ring.sent(), 2);
        assert_eq!(send(&mut ring, 4), b"cdef");
    }

    #[test]
    fn positions_not_sent_cannot_be_consumed() {
        let mut ring = Ring::new(8);
        push(&mut ring, b"abc").unwrap();
        send(&mut ring, 2);
        assert!(matches!(
            ring.consume_to(3),
            Err(RingError::NotSent {
                position: 3,
                sent: 2
            })
        ));
        assert_eq!(ring.consume_to(2).unwrap(), 2);
        // DEV-9: a lower position than known changes nothing.
        assert_eq!(ring.consume_to(0).unwrap(), 0);
        assert_eq!(ring.consumed(), 2);
    }

    #[test]
    fn a_source_that_ends_early_leaves_nothing_behind() {
        let mut ring = Ring::new(4);
        push(&mut ring, b"ab").unwrap();
        send(&mut ring, 2);
        ring.consume_to(2).unwrap();
        let mut short: &[u8] = b"xyz";
        assert!(matches!(
            ring.push_from(&mut short, 4),
            Err(RingError::Io(_))
        ));
        assert_eq!((ring.written(), ring.len()), (2, 0));
    }

    /// Made bytes count like others, are made for where they are, and again after a rewind.
    #[test]
    fn made_bytes_are_made_when_they_are_handed_out() {
        let byte = |position: u64| (position % 251) as u8;
        let mut ring = Ring::of_made_bytes(3 * PIECE);
        let take = |ring: &mut Ring, len| {
            let mut out = Vec::new();
            ring.make_to(&mut out, len, |position, bytes| {
                for (at, to) in (position..).zip(bytes) {
                    *to = byte(at);
                }
            })
            .map(|()| out)
        };
        assert!(take(&mut ring, 1).is_err());
        ring.claim();
        assert_eq!((ring.free(), ring.unsent()), (0, 3 * PIECE));
        let all: Vec<u8> = (0..3 * PIECE as u64).map(byte).collect();
        assert_eq!(take(&mut ring, 3 * PIECE).unwrap(), all);
        assert!(take(&mut ring, 1).is_err());
        ring.consume_to(10).unwrap();
        ring.rewind();
        assert_eq!(take(&mut ring, PIECE).unwrap(), all[10..10 + PIECE]);
        ring.claim();
        assert_eq!(ring.written(), 3 * PIECE as u64 + 10);
        // There is no place for others.
        assert!(push(&mut ring, b"x").is_err());
        ring.clear();
        assert!(push(&mut ring, b"x").is_err());
        assert_eq!(ring.peek(&mut [0; 4]).1, 0);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Send(usize),
        Peek(usize),
        Drain,
        Consume(u64),
        Rewind,
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..40usize).prop_map(Step::Push),
            4 => (0..40usize).prop_map(Step::Send),
            2 => (0..40usize).prop_map(Step::Peek),
            1 => Just(Step::Drain),
            4 => (0..60u64).prop_map(Step::Consume),
            1 => Just(Step::Rewind),
            1 => Just(Step::Clear),
        ]
    }

    /// What a ring means: the bytes that are in it, and how many of them were handed out.
    #[derive(Default)]
    struct Model {
        inside: VecDeque<u8>,
        sent: usize,
        consumed: u64,
        next: u8,
    }

    impl Model {
        fn make(&mut self, len: usize) -> Vec<u8> {
            (0..len)
                .map(|_| {
                    self.next = self.next.wrapping_add(1);
                    self.next
                })
                .collect()
        }

        fn unsent(&self, len: usize) -> Vec<u8> {
            self.inside
                .iter()
                .skip(self.sent)
                .take(len)
                .copied()
                .collect()
        }

        fn drop_front(&mut self, count: usize) {
            self.inside.drain(..count);
            self.consumed += count as u64;
            self.sent = self.sent.saturating_sub(count);
        }
    }

    fn check(ring: &mut Ring, model: &mut Model, step: &Step) {
        let free = ring.capacity() - model.inside.len();
        match *step {
            Step::Push(len) => {
                let bytes = model.make(len);
                let pushed = push(ring, &bytes);
                assert_eq!(pushed.is_ok(), len <= free);
                if pushed.is_ok() {
                    model.inside.extend(bytes);
                }
            }
            Step::Send(len) => {
                let mut out = Vec::new();
                let sent = ring.send_to(&mut out, len);
                assert_eq!(sent.is_ok(), len <= model.inside.len() - model.sent);
                if sent.is_ok() {
                    assert_eq!(out, model.unsent(len));
                    model.sent += len;
                }
            }
            Step::Peek(len) => {
                let mut bytes = vec![0; len];
                let (position, count) = ring.peek(&mut bytes);
                assert_eq!(position, model.consumed + model.sent as u64);
                assert_eq!(count, len.min(model.inside.len() - model.sent));
                assert_eq!(&bytes[..count], model.unsent(count));
                ring.drop_to(position + count as u64);
                model.drop_front(model.sent + count);
                // Late news of it change nothing.
                ring.drop_to(position);
            }
            Step::Drain => {
                let mut out = Vec::new();
                let start = ring.sent();
                ring.drain_with(|position, bytes| {
                    assert_eq!(position, start + out.len() as u64);
                    out.extend_from_slice(bytes);
                });
                assert_eq!(out, model.unsent(out.len()));
                model.drop_front(model.inside.len());
            }
            Step::Consume(ahead) => {
                let position = (model.consumed + ahead).saturating_sub(5);
                let consumed = ring.consume_to(position);
                assert_eq!(
                    consumed.is_ok(),
                    position <= model.consumed + model.sent as u64
                );
                if let Ok(count) = consumed {
                    assert_eq!(count as u64, position.saturating_sub(model.consumed));
                    model.drop_front(count);
                }
            }
            Step::Rewind => {
                ring.rewind();
                model.sent = 0;
            }
            Step::Clear => {
                assert_eq!(ring.clear(), model.inside.len());
                model.sent = model.inside.len();
                model.drop_front(model.sent);
            }
        }
        assert_eq!(ring.consumed(), model.consumed);
        assert_eq!(ring.sent(), model.consumed + model.sent as u64);
        assert_eq!(ring.written(), model.consumed + model.inside.len() as u64);
        assert_eq!(ring.len(), model.inside.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// DEV-4, DEV-5, DEV-6, DEV-8: whatever is done in whatever order, the ring is a queue.
        #[test]
        fn behaves_like_a_queue(
            capacity in 1..33usize,
            steps in proptest::collection::vec(step(), 0..200),
        ) {
            let (mut ring, mut model) = (Ring::new(capacity), Model::default());
            for step in &steps {
                check(&mut ring, &mut model, step);
            }
        }
    }
}
