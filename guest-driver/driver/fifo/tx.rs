// SPDX-License-Identifier: GPL-2.0-only

//! The sending half of a FIFO: credit, messages in flight, acknowledgments.
//!
//! Plain state: must not know locks, wake-ups, or user memory. Positions are those of the tx stream
//! (specification, section 6.2). When a message may wait for others, and which interrupts to ask
//! for, is the business of the [`Coalescer`].

use super::rx::Broken;
use crate::{
    driver::{
        buffers::{
            Tx,
            TxBuffer, //
        },
        chain::Chain,
        policy::{
            coalesce::Coalescer,
            spares::Spares,
            Empty, //
        },
        tunables::MESSAGE, //
    },
    kapi::virtio::{
        MissedCheck,
        Queue, //
    },
    virtio_fifo::{
        State,
        TxHeader,
        STATE_LOOPBACK, //
    },
};
use kernel::prelude::*;

/// The sending half of a FIFO.
///
/// # Invariants
///
/// `accepted` ≤ `posted` ≤ `sent`, and the credit is never above `capacity` beyond `posted`:
/// however the device grants it, what is pending is bounded, and positions stay far from overflow.
pub(crate) struct TxSide {
    /// Until the device is taken away. Holds the posted messages.
    pub(super) queue: Option<Queue<Tx>>,
    /// Messages that are not in the queue yet, oldest first.
    pub(super) pending: Chain<TxBuffer>,
    /// The message that carries nothing but `rx_consumed`, while it is not in the queue.
    pub(super) ack: Option<KBox<TxBuffer>>,
    /// `rx_consumed` is to be sent even if there is nothing else to send.
    pub(super) ack_due: bool,
    /// The `rx_consumed` that was last sent.
    pub(super) reported: u64,
    pub(super) loopback: bool,
    pub(super) capacity: u64,
    /// Position of the next byte to be written by user space.
    pub(super) sent: u64,
    /// Position of the next byte to be posted.
    pub(super) posted: u64,
    /// All below is with the device: the FIFO has it.
    pub(super) accepted: u64,
    /// The device takes bytes up to here; in a loopback FIFO it follows from `rx_consumed`.
    pub(super) limit: u64,
    /// Messages in the queue, and those of them with a payload.
    pub(super) in_flight: u32,
    pub(super) carrying: u32,
    /// Tasks that wait for messages to be used.
    pub(super) waiting: u32,
    /// The device gets nothing more, and is not listened to.
    pub(super) abandoned: bool,
    /// When messages wait for others, and which interrupts are asked for.
    pub(crate) coalescer: Coalescer,
    /// Messages to be used again.
    pub(crate) spares: Spares,
}

impl TxSide {
    /// Starts where the device stands.
    pub(crate) fn new(state: &State) -> Result<Self> {
        let loopback = state.flags & STATE_LOOPBACK != 0;
        Ok(Self {
            queue: None,
            pending: Chain::new(),
            ack: Some(TxBuffer::for_tx(0)?),
            ack_due: false,
            reported: state.rx_floor,
            loopback,
            capacity: u64::from(state.capacity),
            sent: state.tx_accepted,
            posted: state.tx_accepted,
            accepted: state.tx_accepted,
            limit: state.tx_limit,
            in_flight: 0,
            carrying: 0,
            waiting: 0,
            abandoned: false,
            coalescer: Coalescer::new(loopback),
            spares: Spares::new(state.capacity as usize),
        })
    }

    /// Starts to send with `queue`.
    pub(crate) fn attach(&mut self, queue: Queue<Tx>) {
        self.spares.queue_has(queue.size());
        self.queue = Some(queue);
    }

    /// Whether there is a queue to send with.
    pub(crate) fn is_attached(&self) -> bool {
        self.queue.is_some()
    }

    /// Number of descriptors of the queue; 0 without one.
    #[cfg(GLOBALFIFO_FAST)]
    pub(crate) fn descriptors(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.size() as usize)
    }

    /// Gives the queue back, and with it the messages in flight.
    pub(crate) fn detach(&mut self) -> Option<Queue<Tx>> {
        self.coalescer.stop();
        self.queue.take()
    }

    /// Takes back what was in the queue, which has been detached and its device reset: `unused`,
    /// in the order of positions.
    pub(crate) fn take_back(&mut self, mut unused: Chain<TxBuffer>) {
        (self.in_flight, self.carrying) = (0, 0);
        let mut messages = Chain::new();
        while let Some(message) = unused.pop_front() {
            if message.payload_len() == 0 {
                self.ack = Some(message);
            } else {
                messages.push_back(message);
            }
        }
        messages.append(self.pending.take());
        self.pending = messages;
        // Turns the chain round: nothing joins a message that the device may have accepted.
        self.pending.oldest();
        self.posted = self.accepted;
    }

    /// Goes on where a device stands that has been reset: messages that it accepted before go to
    /// `done`, the others are sent again.
    ///
    /// # Errors
    ///
    /// A device that stands elsewhere.
    pub(crate) fn resume(
        &mut self,
        state: &State,
        done: &mut Chain<TxBuffer>,
    ) -> Result<(), Broken> {
        let accepted = state.tx_accepted;
        while let Some(message) = self.pending.oldest() {
            if message.tx_end() > accepted {
                break;
            }
            if let Some(message) = self.pending.pop_front() {
                done.push_back(message);
            }
        }
        let next = self
            .pending
            .oldest()
            .map_or(self.sent, |message| message.tx_position());
        if next != accepted {
            return Err(Broken("another position after its reset"));
        }
        (self.accepted, self.posted) = (accepted, accepted);
        self.reported = state.rx_floor;
        self.limit = self.limit.max(state.tx_limit);
        Ok(())
    }

    /// Takes what was never posted; its bytes were not sent.
    pub(crate) fn unsend_pending(&mut self) -> Chain<TxBuffer> {
        self.sent = self.posted;
        self.pending.take()
    }

    /// Gives up on the device: takes what was never posted, to be dropped outside the lock.
    pub(crate) fn abandon(&mut self) -> Chain<TxBuffer> {
        self.abandoned = true;
        if let Some(queue) = self.queue.as_mut() {
            queue.disable_interrupts();
        }
        self.pending.take()
    }

    /// Checks for used messages whose interrupt is lost, though something waits for them.
    pub(crate) fn check_missed(&mut self) -> MissedCheck {
        self.queue
            .as_mut()
            .map_or(MissedCheck::Quiet, Queue::check_missed)
    }

    /// Whether a loopback device cannot have this `position` of the rx stream yet.
    pub(crate) fn is_beyond(&self, position: u64) -> bool {
        self.loopback && position > self.posted
    }

    /// Bytes that may be written now. `rx_consumed` is that of the rx side.
    pub(crate) fn credit(&self, rx_consumed: u64) -> u64 {
        let limit = if self.loopback {
            rx_consumed + self.capacity
        } else {
            self.limit
        };
        limit.saturating_sub(self.sent)
    }

    /// Learns a limit (DRV-12).
    pub(crate) fn raise_limit(&mut self, limit: u64) -> Result<bool, Broken> {
        if self.loopback || limit <= self.limit {
            return Ok(false);
        }
        // Not `sent`: else a device that accepts nothing could have us hold ever more.
        if limit > self.posted + self.capacity {
            return Err(Broken("more credit than the FIFO holds"));
        }
        self.limit = limit;
        Ok(true)
    }

    /// Whether messages wait to be posted.
    pub(crate) fn is_congested(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether such messages have neither a timer nor an interrupt to wait for. That can only be
    /// when the virtio core had no memory to post them.
    pub(crate) fn is_left_behind(&self) -> bool {
        let is_idle = !self.coalescer.has_timer() && self.in_flight == 0;
        self.is_congested() && self.is_attached() && is_idle
    }

    /// Keeps those of `messages` that will be useful; the rest stays, to be dropped outside the
    /// lock.
    pub(crate) fn keep(&mut self, messages: &mut Chain<TxBuffer>) {
        if !self.abandoned {
            self.spares.keep(messages);
        }
    }

    /// Messages for `n` bytes, as many as there are, and the payload that new ones should have room
    /// for.
    pub(super) fn empty(&mut self, n: usize) -> Empty {
        self.spares.take(n, self.coalescer.wants_large_messages())
    }

    /// Bytes written so far, and of these the ones that were posted.
    pub(crate) fn positions(&self) -> (u64, u64) {
        (self.sent, self.posted)
    }

    /// All below is with the device.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Whether the device has everything below `position`, or it will never get there.
    pub(crate) fn has_accepted(&self, position: u64) -> bool {
        self.accepted >= position.min(self.sent)
    }

    /// Whether nothing is left to be sent or to come back.
    pub(crate) fn is_drained(&self) -> bool {
        self.pending.is_empty() && self.in_flight == 0 && !self.ack_due
            || self.abandoned
            || self.queue.as_ref().is_none_or(Queue::is_broken)
    }

    /// Counts a task that waits for messages to be used: while there is one, each use interrupts.
    pub(crate) fn begin_wait(&mut self) {
        self.waiting += 1;
    }

    /// The opposite of [`TxSide::begin_wait`].
    pub(crate) fn end_wait(&mut self) {
        self.waiting -= 1;
    }

    /// Notes that all below `rx_consumed` is read; `empty` when nothing is left to read. Decides
    /// whether and when the device is told (DRV-8): at once if it may wait for room.
    pub(crate) fn note_consumed(&mut self, rx_consumed: u64, empty: bool) {
        let unreported = rx_consumed - self.reported;
        if unreported >= self.capacity.div_ceil(2) {
            self.ack_due = true;
        } else if unreported > 0 && empty {
            self.ack_due |= self.coalescer.must_ack_now();
        }
    }

    /// Demands that the device is told `rx_consumed` unless it knows.
    pub(crate) fn demand_ack(&mut self, rx_consumed: u64) {
        self.ack_due |= rx_consumed > self.reported;
    }

    /// The delay of an acknowledgment is over.
    #[cfg(GLOBALFIFO_FAST)]
    pub(crate) fn ack_expired(&mut self) {
        self.ack_due |= self.coalescer.ack_expired();
    }

    /// Takes `n` bytes from the front of `messages`, whose total is at least that, or as many as
    /// come before a direct message that would be more; how many. The rest stays, and so do
    /// messages whose payload joined another.
    pub(crate) fn enqueue(&mut self, messages: &mut Chain<TxBuffer>, n: usize) -> usize {
        let mut joined_others = Chain::new();
        let mut left = n;
        while left > 0 {
            let Some(mut message) = messages.pop_front() else {
                break;
            };
            if message.is_direct() && message.payload_len() > left {
                messages.push_front(message);
                break;
            }
            message.cut(left);
            let length = message.payload_len();
            left -= length;
            message.place(self.sent);
            self.sent += length as u64;
            // Not what is large: it is copied once more, with interrupts off.
            let joined = length <= MESSAGE.1 - TxHeader::LEN
                && !message.is_direct()
                && self.pending.newest().is_some_and(|last| {
                    last.join(message.payload()) //
                });
            if joined {
                joined_others.push_back(message);
            } else {
                self.pending.push_back(message);
            }
        }
        messages.append(joined_others);
        n - left
    }

    /// Adds `bytes` to the message that is held, if it stays held and nothing else is to be pumped;
    /// the position after them.
    #[cfg(GLOBALFIFO_FAST)]
    pub(super) fn join(&mut self, bytes: &[u8]) -> Option<u64> {
        if self.waiting > 0 || self.ack_due || self.pending.only().is_none() {
            return None;
        }
        let held = self.pending.newest()?;
        if !self.coalescer.goes_on_holding(held) || !held.join(bytes) {
            return None;
        }
        self.sent += bytes.len() as u64;
        Some(self.sent)
    }

    /// Somebody waits for data, which may be an answer: nothing is held back any longer. True if
    /// something was, which is then to be pumped.
    pub(crate) fn stop_holding(&mut self) -> bool {
        self.coalescer.stop_holding(self.pending.only().is_some())
    }
}
