// SPDX-License-Identifier: GPL-2.0-only

//! The fast edition's numbers: value, unit, reason, and measured gain where there is one.

use super::tunables::MESSAGE;
use crate::virtio_fifo::TxHeader;
use core::ops::RangeInclusive;

/// Time that a small write may be held for others to join it, in microseconds: as long as two
/// notifications take.
pub(crate) const HOLD_MICROSECONDS: u32 = 100;

/// The same in a stream of small writes that fill one message after another, whose messages are
/// larger. Most of these are posted when they are full, and the timer is only for the last; the
/// more often it expires the more it costs. 64 B writes: 43 to 56 MB/s.
pub(crate) const STREAM_MICROSECONDS: u32 = 400;

/// Bytes of a write that may be added to a message that is held, at most: copied by way of the
/// stack.
pub(crate) const JOINED: usize = 512;

/// Delay before `rx_consumed` is sent by itself, in microseconds. Longer than a reply takes, which
/// carries it, and than a tick: an earlier timer would reprogram the clock event, which is dear
/// where it is emulated.
pub(crate) const ACK_MICROSECONDS: u32 = 10_000;

/// Payload in one piece of memory with the header, in bytes, at most: the pieces that the allocator
/// has at hand are no larger.
pub(crate) const INLINE_MAX: usize = MESSAGE.1 - TxHeader::LEN;

/// Payload of messages, in bytes, and how many of a size are kept for the next writes: as many as a
/// full FIFO consists of, within these bounds. The second is that of a stream, as many times as
/// large as it may be held longer. 64 KiB writes: 0.34 to 0.88 of virtio-serial.
pub(crate) const SPARES: [(usize, RangeInclusive<usize>); 4] = [
    (4096 - TxHeader::LEN, 64..=256),
    (4 * 4096 - TxHeader::LEN, 16..=64),
    (INLINE_MAX, 8..=32),
    (65536, 4..=16),
];

/// Messages of a stream that a FIFO is to hold, so that neither side waits for the other.
pub(crate) const STREAM_MESSAGES: usize = 8;

/// Least descriptors of a queue for messages of two.
pub(crate) const SPLIT_MIN_QUEUE: u32 = 8;

/// Bytes of a write that the device reads where they are, at least: to pin pages and to wait for
/// the device costs more than to copy few of them, for which nobody waits.
pub(crate) const DIRECT: usize = 128 << 10;

/// Pages of a direct message, at least and at most.
pub(crate) const DIRECT_PAGES: (usize, usize) = (8, 32);

/// Time that a large write polls for acceptance or for credit before it sleeps, in microseconds:
/// longer than a wake-up takes.
pub(crate) const POLL_MICROSECONDS: i64 = 200;

/// Time that a reader polls for data before it sleeps, in microseconds, at most: to sleep and to be
/// woken costs less than more.
pub(crate) const BUSY_POLL_MICROSECONDS: i64 = 300;

/// A wait that took no longer, sleep and interrupt included, in microseconds, may be found by
/// polling.
pub(crate) const BUSY_POLL_PERHAPS: i64 = 2 * BUSY_POLL_MICROSECONDS;

/// After this many failures in a row, polling is tried one time in two to the power of it.
pub(crate) const BUSY_POLL_FAILURES: u32 = 8;

/// Waiting reads of a FIFO whose memory is pinned, at most. A read may wait for ever, and the
/// memory is pinned for as long.
pub(crate) const PINNED: usize = 8;

/// Pinned reads to serve in one interrupt.
pub(crate) const PINNED_PER_INTERRUPT: usize = 8;
