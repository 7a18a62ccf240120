// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Events of the data path, with their times, for clients that ask for them.
//!
//! Owns the buffer of events and who reads it. While nobody does, an event costs one relaxed load of
//! an atomic. It must not know who reads, or how events are written down.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use nix::time::ClockId;
use nix::time::clock_gettime;
use serde::Serialize;

use crate::refusal::Refusal;

/// Events in the buffer, at most: about a second of the fastest stream of small messages, in 12 MB. The
/// oldest are dropped first.
pub const CAPACITY: usize = 1 << 18;

/// What happened. Positions are those of a stream, counted from the device's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "trace", rename_all = "kebab-case")]
pub enum What {
    /// The queue worker was woken for a virtqueue: by the driver's kick, or by the queue's start.
    Kick {
        /// Number of the virtqueue.
        queue: u16,
    },
    /// A message was taken from the tx queue.
    Pop {
        /// Number of the FIFO.
        fifo: u16,
        /// In the tx stream, of its first byte.
        position: u64,
        /// Payload; 0 in a message that only acknowledges.
        bytes: usize,
    },
    /// A message was put into a buffer of the rx queue.
    Push {
        /// Number of the FIFO.
        fifo: u16,
        /// In the rx stream, of its first byte.
        position: u64,
        /// Payload.
        bytes: usize,
    },
    /// The driver was to be notified of used buffers.
    Notify {
        /// Number of the virtqueue.
        queue: u16,
        /// What came of it.
        result: Notified,
    },
    /// Bytes came in from the endpoint, or by `push`.
    EndpointRead {
        /// Number of the FIFO.
        fifo: u16,
        /// In the rx stream, of the first.
        position: u64,
        /// How many.
        bytes: usize,
    },
    /// Bytes went out to the endpoint, or by `pull`; the time is that before the call.
    EndpointWrite {
        /// Number of the FIFO.
        fifo: u16,
        /// In the tx stream, of the first.
        position: u64,
        /// How many.
        bytes: usize,
    },
    /// All bytes of both directions were discarded.
    Clear {
        /// Number of the FIFO.
        fifo: u16,
        /// How many there were.
        bytes: usize,
    },
    /// The flags of the FIFO's `virtio_fifo_state` have changed.
    State {
        /// Number of the FIFO.
        fifo: u16,
        /// Flags before, as in the specification.
        from: u32,
        /// Flags now.
        to: u32,
    },
    /// The device was reset, as far as this FIFO has to do with it.
    Reset {
        /// Number of the FIFO.
        fifo: u16,
    },
    /// Something of the driver's was refused.
    Refused {
        /// Number of the FIFO.
        fifo: u16,
        /// Why.
        #[serde(serialize_with = "by_name")]
        reason: Refusal,
    },
    /// A fault struck.
    Fault {
        /// Its number.
        fault: u32,
        /// Its kind, as in its SPEC.
        kind: &'static str,
        /// How often it has struck so far.
        strikes: u64,
    },
    /// A VMM has come, or gone.
    Vmm {
        /// It is there.
        connected: bool,
    },
    /// The VMM asked for the device's configuration space, as a read of the guest makes it.
    Config,
}

fn by_name<S: serde::Serializer>(reason: &Refusal, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(reason.name())
}

/// What came of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notified {
    /// The VMM was signalled.
    Sent,
    /// The driver has asked for none.
    Suppressed,
    /// A fault holds it back.
    Withheld,
    /// The VMM could not be signalled.
    Failed,
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub ns: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

#[derive(Debug, Default)]
struct Buffer {
    records: VecDeque<Record>,
    /// Number of the first of `records`, counted since the device was made.
    first: u64,
    readers: usize,
}

impl Buffer {
    /// Number of the next event.
    fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }
}

/// Where events are recorded. See the module.
#[derive(Debug, Default)]
pub struct Tracer {
    on: AtomicBool,
    buffer: Mutex<Buffer>,
}

impl Tracer {
    /// Records what `what` says, at this moment, if anybody reads.
    pub fn record(&self, what: impl FnOnce() -> What) {
        if self.is_on() {
            self.add(now(), what());
        }
    }

    /// The time at which something begins that [`Tracer::record_at`] records when it is done; `None`
    /// while nobody reads.
    pub fn begin(&self) -> Option<u64> {
        self.is_on().then(now)
    }

    /// Records something that began at a time of [`Tracer::begin`].
    pub fn record_at(&self, begun: Option<u64>, what: impl FnOnce() -> What) {
        if let Some(ns) = begun {
            self.add(ns, what());
        }
    }

    /// Whether anybody reads.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Reads what is recorded from now on.
    pub fn subscribe(self: &Arc<Self>) -> Subscription {
        let mut buffer = self.lock();
        buffer.readers += 1;
        self.on.store(true, Ordering::Relaxed);
        Subscription {
            tracer: Arc::clone(self),
            next: buffer.end(),
            end: None,
        }
    }

    fn add(&self, ns: u64, what: What) {
        let mut buffer = self.lock();
        if buffer.readers == 0 {
            return;
        }
        if buffer.records.len() == CAPACITY {
            buffer.records.pop_front();
            buffer.first += 1;
        }
        buffer.records.push_back(Record { ns, what });
    }

    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who reads. The last to go switches recording off and frees the buffer.
#[derive(Debug)]
pub struct Subscription {
    tracer: Arc<Tracer>,
    next: u64,
    /// Nothing from here on is wanted.
    end: Option<u64>,
}

impl Subscription {
    /// At most `most` events that were not read before, and how many were dropped before the first of
    /// them.
    pub fn take(&mut self, most: usize) -> (u64, Vec<Record>) {
        let mut buffer = self.tracer.lock();
        let end = self.end.unwrap_or_else(|| buffer.end());
        let from = self.next.max(buffer.first).min(end.max(self.next));
        let lost = from - self.next;
        let skip = index(from - buffer.first.min(from));
        let wanted = index(end.saturating_sub(from)).min(most);
        let records: Vec<_> = buffer
            .records
            .iter()
            .skip(skip)
            .take(wanted)
            .copied()
            .collect();
        self.next = from + records.len() as u64;
        // What the only reader has read is nobody's any more.
        if buffer.readers == 1 {
            let read = index(self.next.saturating_sub(buffer.first)).min(buffer.records.len());
            buffer.records.drain(..read);
            buffer.first += read as u64;
        }
        (lost, records)
    }

    /// How many events there are to read.
    pub fn left(&self) -> u64 {
        let end = self.end.unwrap_or_else(|| self.tracer.lock().end());
        end.saturating_sub(self.next)
    }

    /// Nothing that is recorded from now on is wanted.
    pub fn end(&mut self) {
        let end = self.tracer.lock().end();
        self.end.get_or_insert(end);
    }

    /// Whether [`Subscription::end`] was called.
    pub fn is_ending(&self) -> bool {
        self.end.is_some()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut buffer = self.tracer.lock();
        buffer.readers -= 1;
        if buffer.readers == 0 {
            self.tracer.on.store(false, Ordering::Relaxed);
            buffer.first = buffer.end();
            buffer.records = VecDeque::new();
        }
    }
}

fn index(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Nanoseconds of CLOCK_MONOTONIC.
fn now() -> u64 {
    // Every Linux has this clock.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
        let seconds = u64::try_from(now.tv_sec()).unwrap_or_default();
        seconds * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kick(tracer: &Tracer, queue: u16) {
        tracer.record(|| What::Kick { queue });
    }

    fn queues(records: &[Record]) -> Vec<u16> {
        let queue = |record: &Record| match record.what {
            What::Kick { queue } => queue,
            other => panic!("{other:?}"),
        };
        records.iter().map(queue).collect()
    }

    #[test]
    fn nothing_is_recorded_while_nobody_reads() {
        let tracer = Arc::new(Tracer::default());
        tracer.record(|| panic!("asked for an event that nobody reads"));
        assert_eq!(tracer.begin(), None);
        let mut reader = tracer.subscribe();
        kick(&tracer, 1);
        assert_eq!(queues(&reader.take(10).1), [1]);
        drop(reader);
        tracer.record(|| panic!("asked for an event that nobody reads"));
        assert_eq!(tracer.lock().records.capacity(), 0);
    }

    #[test]
    fn each_reader_gets_every_event_once_and_in_order() {
        let tracer = Arc::new(Tracer::default());
        let mut first = tracer.subscribe();
        kick(&tracer, 1);
        let mut second = tracer.subscribe();
        kick(&tracer, 2);
        assert_eq!(queues(&first.take(1).1), [1]);
        assert_eq!(first.left(), 1);
        assert_eq!(queues(&second.take(10).1), [2]);
        drop(second);
        kick(&tracer, 3);
        let (lost, records) = first.take(10);
        assert_eq!((lost, queues(&records)), (0, vec![2, 3]));
        assert!(records.is_sorted_by_key(|record| record.ns));
    }

    #[test]
    fn events_beyond_the_capacity_drop_the_oldest_and_are_counted() {
        let tracer = Arc::new(Tracer::default());
        let mut reader = tracer.subscribe();
        for queue in (0..7).cycle().take(CAPACITY + 5) {
            kick(&tracer, queue);
        }
        assert_eq!(tracer.lock().records.len(), CAPACITY);
        let (lost, records) = reader.take(2);
        assert_eq!((lost, queues(&records)), (5, vec![5, 6]));
        assert_eq!(reader.take(1).0, 0);
        assert_eq!(reader.left(), CAPACITY as u64 - 3);
    }

    #[test]
    fn a_reader_that_ends_gets_what_was_there_by_then() {
        let tracer = Arc::new(Tracer::default());
        let mut reader = tracer.subscribe();
        let _other = tracer.subscribe();
        kick(&tracer, 1);
        reader.end();
        kick(&tracer, 2);
        assert_eq!(reader.left(), 1);
        assert_eq!(queues(&reader.take(10).1), [1]);
        assert_eq!((reader.left(), reader.take(10).1.len()), (0, 0));
    }
}
