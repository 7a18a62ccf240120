// SPDX-License-Identifier: GPL-2.0-only

//! The sending half of a FIFO: credit, messages on their way, acknowledgements.
//!
//! Plain state; [`super::fifo`] locks it and wakes for it. Positions are those of the tx stream
//! (specification, section 6.2).

use super::{
    buffers::{
        Chain,
        Tx,
        TxBuffer,
        TOGETHER, //
    },
    rx::{
        Broken,
        BUDGET, //
    },
};
use crate::{
    kapi::{
        iter::UserBytes,
        virtio::{
            Look,
            Queue,
            Refused, //
        },
    },
    virtio_fifo::{
        State,
        TxHeader,
        STATE_LOOPBACK, //
    },
};
use core::ops::RangeInclusive;
use kernel::{
    prelude::*,
    time::{
        Instant,
        Monotonic, //
    },
};

/// Least bytes of a write that the device reads from where they are. To pin pages and to wait for the
/// device costs more than to copy few of them, for which nobody waits.
pub(crate) const DIRECT: usize = 128 << 10;

/// Most pages of one such message, and the least for which it is done.
const DIRECT_PAGES: (usize, usize) = (32, 8);

/// How long what may be done together can wait for more.
const LOOK_MICROSECONDS: u32 = 100;

/// The same in a stream of small writes that fill one message after another, which are larger then: most of
/// these are posted when they are full, and the timer is only for the last. The more often it expires the more
/// it costs.
const STREAM_MICROSECONDS: u32 = 400;

/// How long the device may not know what was read: longer than an answer takes to be written, as that tells,
/// too; and longer than a tick, for it is the next timer to expire that the CPU's has to be set for, and
/// where that is emulated it takes longer than a message.
pub(crate) const ACK_MICROSECONDS: u32 = 10_000;

/// What messages have room for, and how many of a size are kept for the next writes: as many as a full FIFO
/// consists of, within these bounds. New ones are dear, as the kernel fills them with zeros.
///
/// The second size is that of a stream of writes that would fit into the first: as many times as large as it
/// may wait longer.
const SIZES: [(usize, RangeInclusive<usize>); 4] = [
    (4096 - TxHeader::LEN, 64..=256),
    (4 * 4096 - TxHeader::LEN, 16..=64),
    (TOGETHER, 8..=32),
    (65536, 4..=16),
];

/// A FIFO is to hold so many messages of a stream, so that neither side waits for the other.
const STREAM_MESSAGES: usize = 8;

/// The least queue for messages of two descriptors.
const APART: u32 = 8;

/// See the module.
///
/// # Invariants
///
/// `accepted` ≤ `posted` ≤ `sent`, and the credit is never above `capacity` beyond what is posted:
/// so however the device grants it, what waits here is bounded, and positions stay far from overflow.
pub(crate) struct TxSide {
    /// Until the device is taken away. Holds the posted messages.
    queue: Option<Queue<Tx>>,
    /// Messages that are not in the queue yet, oldest first: it has no room, or more may join them.
    pending: Chain<TxBuffer>,
    /// Messages to be used again, of each of [`SIZES`]: writing allocates nothing while there are some.
    spares: [Spares; SIZES.len()],
    /// The largest of them can be used.
    apart: bool,
    /// The message that carries nothing but `rx_consumed`, while it is not in the queue.
    spare_ack: Option<KBox<TxBuffer>>,
    /// `rx_consumed` should be told even if there is nothing else to send.
    ack_due: bool,
    /// As `ack_due`, but that can wait for a write, or the timer.
    ack_later: bool,
    /// That timer runs.
    ack_timer: bool,
    /// The `rx_consumed` that was last told.
    reported: u64,
    loopback: bool,
    capacity: u64,
    /// Position of the next byte to be written by user space.
    sent: u64,
    /// Position of the next byte to be posted.
    posted: u64,
    /// All below is with the device: the FIFO has it.
    accepted: u64,
    /// Messages in the queue, and those of them with a payload.
    in_flight: u32,
    carrying: u32,
    /// When the last of those was put there, and whether data has come from the device since.
    last_post: Option<Instant<Monotonic>>,
    answered: bool,
    /// The message that waits, if there is one, was held back.
    held_back: bool,
    /// The last message was, until it was full, and nobody waited for it.
    streaming: bool,
    /// The device takes bytes up to here; in a loopback FIFO it follows from `rx_consumed`.
    limit: u64,
    /// Bytes that have joined the message that waits, since it was pumped.
    joined: u64,
    /// How many tasks wait for messages to be used.
    waiting: u32,
    /// The timer will pump, or has just expired.
    timer: bool,
    /// It is the one of a stream.
    long_timer: bool,
    expired: bool,
    /// Nothing is to be held back any longer.
    hurry: bool,
    /// The device gets nothing more, and is not listened to.
    abandoned: bool,
}

/// Some messages of one size, to be used again.
struct Spares {
    /// Room for so much payload.
    room: usize,
    messages: Chain<TxBuffer>,
    count: usize,
    most: usize,
}

impl Spares {
    /// None yet, for a FIFO of this capacity.
    fn new((room, bounds): (usize, RangeInclusive<usize>), capacity: usize) -> Self {
        Self {
            room: room.min(capacity),
            messages: Chain::new(),
            count: 0,
            most: (capacity / room).clamp(*bounds.start(), *bounds.end()),
        }
    }

    fn take(&mut self) -> Option<KBox<TxBuffer>> {
        let message = self.messages.pop_front()?;
        self.count -= 1;
        Some(message)
    }

    /// Gives it back if there are enough.
    fn keep(&mut self, mut message: KBox<TxBuffer>) -> Option<KBox<TxBuffer>> {
        if self.count >= self.most {
            return Some(message);
        }
        message.empty();
        self.messages.push_front(message);
        self.count += 1;
        None
    }
}

/// Who wants to know that messages were used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Await {
    /// Nobody.
    None,
    /// Somebody who waits for it: an interrupt is to tell.
    Interrupt,
    /// Several: it may take a little longer, so that one look tells all of them.
    Together,
}

/// What [`TxSide::pump`] did.
#[derive(Default)]
pub(crate) struct Pumped {
    /// Messages given to the device.
    pub(crate) messages: u64,
    /// Bytes that have joined a message since the last time.
    pub(crate) joined: u64,
    /// Messages came back, so somebody may wait for that.
    pub(crate) progress: bool,
    /// Messages went there or came back since interrupts were last asked for.
    moved: bool,
    /// There is more to be moved, and no interrupt will tell of it.
    pub(crate) more: bool,
    /// It should be pumped again after so many microseconds, by the timer.
    pub(crate) timer: Option<u32>,
    /// The device should be told what was read after [`ACK_MICROSECONDS`], by the other timer.
    pub(crate) ack_timer: bool,
}

impl TxSide {
    /// Starts where the device stands.
    pub(crate) fn new(state: &State) -> Result<Self> {
        let capacity = state.capacity as usize;
        let mut spares = SIZES.map(|size| Spares::new(size, capacity));
        let [small, stream, ..] = &mut spares;
        let share = (capacity / STREAM_MESSAGES).saturating_sub(TxHeader::LEN);
        stream.room = stream.room.min(share.max(small.room));
        Ok(Self {
            queue: None,
            pending: Chain::new(),
            spares,
            apart: false,
            spare_ack: Some(TxBuffer::for_tx(0)?),
            ack_due: false,
            ack_later: false,
            ack_timer: false,
            reported: state.rx_floor,
            loopback: state.flags & STATE_LOOPBACK != 0,
            capacity: u64::from(state.capacity),
            sent: state.tx_accepted,
            posted: state.tx_accepted,
            accepted: state.tx_accepted,
            in_flight: 0,
            carrying: 0,
            last_post: None,
            answered: false,
            held_back: false,
            streaming: false,
            limit: state.tx_limit,
            joined: 0,
            waiting: 0,
            timer: false,
            long_timer: false,
            expired: false,
            hurry: false,
            abandoned: false,
        })
    }

    /// Starts to send with `queue`.
    pub(crate) fn attach(&mut self, queue: Queue<Tx>) {
        self.apart = queue.size() >= APART;
        self.queue = Some(queue);
    }

    /// Whether there is a queue to send with.
    pub(crate) fn is_attached(&self) -> bool {
        self.queue.is_some()
    }

    /// Gives the queue back, and with it what is in it.
    pub(crate) fn detach(&mut self) -> Option<Queue<Tx>> {
        self.queue.take()
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

    /// Looks for used messages that no interrupt told of, though something waits for them.
    pub(crate) fn look(&mut self) -> Look {
        self.queue.as_mut().map_or(Look::Quiet, Queue::look)
    }

    /// Whether what is written comes back: then credit follows from what is read here.
    pub(crate) fn is_loopback(&self) -> bool {
        self.loopback
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
    pub(crate) fn raise_limit(&mut self, limit: u64) -> Result<(), Broken> {
        if self.loopback || limit <= self.limit {
            return Ok(());
        }
        // Not `sent`: else a device that accepts nothing could have us hold ever more.
        if limit > self.posted + self.capacity {
            return Err(Broken("more credit than the FIFO holds"));
        }
        self.limit = limit;
        Ok(())
    }

    /// Whether messages wait to be posted.
    pub(crate) fn is_congested(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether such messages have neither a timer nor an interrupt to wait for. That can only be when the
    /// core had no memory to post them.
    pub(crate) fn is_left_behind(&self) -> bool {
        self.is_congested() && !self.timer && self.in_flight == 0
    }

    /// Room that messages of a write of `n` bytes should have.
    fn room_for(&self, n: usize) -> usize {
        let [small, stream, together, apart] = &self.spares;
        let spares = if n <= small.room {
            if self.streaming {
                stream
            } else {
                small
            }
        } else if n <= together.room || !self.apart {
            together
        } else {
            apart
        };
        spares.room
    }

    /// Spares with that room. Those of a small FIFO may all have the same: then the first are used.
    fn spares_of(&mut self, room: usize) -> Option<&mut Spares> {
        self.spares.iter_mut().find(|spares| spares.room == room)
    }

    /// Most pages of the payload of a direct message; `None` when there is to be none: a message and
    /// its header have to fit into the queue's descriptors.
    pub(crate) fn direct_pages(&self) -> Option<usize> {
        let (most, least) = DIRECT_PAGES;
        let size = self.queue.as_ref()?.size() as usize;
        let pages = size.saturating_sub(2).min(most);
        (pages >= least).then_some(pages)
    }

    /// Messages for `n` bytes, or as many as there are, and what new ones should have room for. What is not
    /// sent comes back by [`TxSide::keep`].
    pub(crate) fn take_spares(&mut self, n: usize) -> (Chain<TxBuffer>, usize) {
        let mut taken = Chain::new();
        let room = self.room_for(n);
        if let Some(spares) = self.spares_of(room) {
            for _ in 0..n.div_ceil(room) {
                let Some(message) = spares.take() else {
                    break;
                };
                taken.push_back(message);
            }
        }
        (taken, room)
    }

    /// Keeps those of `messages` that will be useful; the rest stays, to be dropped outside the lock.
    pub(crate) fn keep(&mut self, messages: &mut Chain<TxBuffer>) {
        let mut rest = Chain::new();
        while let Some(message) = messages.pop_front() {
            let room = message.room();
            let unwanted = if self.abandoned || message.is_direct() {
                Some(message)
            } else {
                match self.spares_of(room) {
                    Some(spares) => spares.keep(message),
                    None => Some(message),
                }
            };
            if let Some(message) = unwanted {
                rest.push_back(message);
            }
        }
        *messages = rest;
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

    /// Notes that all below `rx_consumed` is read; `last` when nothing is left to read. Decides
    /// whether and when the device needs to hear of it (DRV-8): at once if it may wait for room.
    pub(crate) fn note_consumed(&mut self, rx_consumed: u64, last: bool) {
        let unreported = rx_consumed - self.reported;
        if unreported >= self.capacity.div_ceil(2) {
            self.ack_due = true;
        } else if unreported > 0 && last {
            self.ack_later = true;
        }
    }

    /// Demands that the device hears of `rx_consumed` unless it knows.
    pub(crate) fn demand_ack(&mut self, rx_consumed: u64) {
        self.ack_due |= rx_consumed > self.reported;
    }

    /// Takes `n` bytes from the front of `messages`, whose total is at least that, or as many as come
    /// before a direct message that would be more; how many. The rest stays, and so do messages whose
    /// payload joined another.
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
            let joined = length <= TOGETHER
                && !message.is_direct()
                && self.pending.newest().is_some_and(|last| {
                    !last.is_direct() && last.append(message.payload()) //
                });
            if joined {
                joined_others.push_back(message);
            } else {
                self.pending.push_back(message);
            }
        }
        while let Some(message) = joined_others.pop_front() {
            messages.push_back(message);
        }
        n - left
    }

    /// Room in the message that waits for more, if there is one.
    pub(crate) fn room_to_join(&mut self) -> usize {
        // Without the timer nobody would post it.
        if !self.timer || self.waiting > 0 || self.abandoned {
            return 0;
        }
        self.pending.only().map_or(0, |message| message.room_left())
    }

    /// Copies all of `from` into the message that waits for more, if the memory is there: whether it should
    /// now be pumped. The caller has looked at [`TxSide::room_to_join`] and the credit.
    #[inline]
    pub(crate) fn join(&mut self, from: &UserBytes) -> Option<bool> {
        let message = self.pending.only()?;
        if !message.append_at_hand(from) {
            return None;
        }
        let length = from.len() as u64;
        self.sent += length;
        self.joined += length;
        Some(message.is_nearly_full())
    }

    /// Data has come from the device. Where that is not what was written here, it may be an answer: then
    /// writes do not just follow each other, and the next one is waited for.
    pub(crate) fn note_answer(&mut self) {
        self.answered = !self.loopback;
    }

    /// Somebody waits for an answer, so nothing more will join the message that waits for that: true if
    /// there is one, which is then to be pumped.
    pub(crate) fn hurry_up(&mut self) -> bool {
        let held_back = self.timer && self.pending.only().is_some();
        self.hurry |= held_back;
        held_back
    }

    /// The timer that [`Pumped::timer`] asked for has expired: what it was for is to be done by the next pump.
    pub(crate) fn look_expired(&mut self) {
        self.timer = false;
        self.expired = true;
    }

    /// The timer that [`Pumped::ack_timer`] asked for has expired: what was read is to be told now,
    /// unless a message has.
    pub(crate) fn ack_expired(&mut self) {
        self.ack_timer = false;
        self.ack_due |= core::mem::take(&mut self.ack_later);
    }

    /// Takes back used messages, posts what waits, and tells the device if it wants to hear; as far
    /// as [`BUDGET`] goes.
    ///
    /// Used messages that are not kept go to `done`, to be dropped outside the lock. The device
    /// interrupts for used messages while something waits for that, here or elsewhere (`others`).
    pub(crate) fn pump(
        &mut self,
        rx_consumed: u64,
        others: Await,
        done: &mut Chain<TxBuffer>,
    ) -> Result<Pumped, Broken> {
        let mut pumped = Pumped {
            joined: core::mem::take(&mut self.joined),
            ..Pumped::default()
        };
        let mut budget = BUDGET;
        // In a stream the message that waits has mostly just begun: then it waits on.
        let is_stream = self.streaming && others == Await::None;
        let expired = core::mem::take(&mut self.expired) && !is_stream;
        let hurry = core::mem::take(&mut self.hurry) || expired;
        while !self.abandoned {
            pumped.moved = false;
            self.reclaim(&mut budget, done, &mut pumped);
            let held_back = self.post(rx_consumed, hurry, others, &mut budget, &mut pumped)?;
            if budget == 0 {
                if let Some(queue) = self.queue.as_mut() {
                    queue.disable_interrupts();
                }
                pumped.more = true;
                break;
            }
            // By the timer as long as it finds something.
            let together = others == Await::Together && (!hurry || pumped.progress);
            let wanted = others != Await::None && !together
                || self.waiting > 0
                || self.ack_due
                || !self.pending.is_empty() && !held_back;
            let due = held_back || together && self.carrying > 0;
            let in_stream = self.streaming && others == Await::None;
            let runs = self.timer && (in_stream || !self.long_timer);
            if due && !runs && self.queue.is_some() {
                self.timer = true;
                self.long_timer = in_stream;
                pumped.timer = Some(if in_stream {
                    STREAM_MICROSECONDS
                } else {
                    LOOK_MICROSECONDS
                });
            }
            if self.ack_later && !self.ack_timer && self.queue.is_some() {
                self.ack_timer = true;
                pumped.ack_timer = true;
            }
            match self.queue.as_mut() {
                // What was asked for before still holds.
                Some(queue) if wanted && queue.interrupts() && !pumped.moved => break,
                Some(queue) if wanted => {
                    // An interrupt for most of what is in the queue, not for each message: the
                    // device takes all of them at once (DEV-10).
                    if queue.enable_interrupts_late() {
                        break;
                    }
                }
                Some(queue) => {
                    queue.disable_interrupts();
                    break;
                }
                None => break,
            }
        }
        if pumped.messages > 0 {
            if let Some(queue) = self.queue.as_mut() {
                queue.kick();
            }
        }
        if !self.abandoned && self.queue.as_ref().is_some_and(Queue::is_broken) {
            return Err(Broken("what broke its tx queue"));
        }
        Ok(pumped)
    }

    fn reclaim(&mut self, budget: &mut usize, done: &mut Chain<TxBuffer>, pumped: &mut Pumped) {
        while *budget > 0 {
            let Some((message, _)) = self.queue.as_mut().and_then(Queue::get) else {
                break;
            };
            *budget -= 1;
            pumped.progress = true;
            pumped.moved = true;
            self.in_flight -= 1;
            if message.payload_len() == 0 {
                self.spare_ack = Some(message);
            } else {
                self.carrying -= 1;
                self.accepted = self.accepted.max(message.tx_end());
                done.push_back(message);
            }
        }
        self.keep(done);
    }

    /// Whether the message that is next to be posted can wait for others to join it: the one before
    /// was posted just now, and not answered. The next write after that time posts it, or the timer, or
    /// who waits for data. So small writes go together the more of them there are, and one alone goes at
    /// once.
    fn may_wait(&mut self, rx_consumed: u64) -> bool {
        self.waiting == 0
            && !self.answered
            // In a loopback FIFO, who has read everything waits for this.
            && !(self.loopback && rx_consumed >= self.posted)
            // Nothing can join when there is no credit, and somebody may wait for more of it.
            && self.credit(rx_consumed) > 0
            && self
                .pending
                .only()
                .is_some_and(|message| !message.is_nearly_full())
            && self
                .last_post
                .is_some_and(|last| last.elapsed().as_micros_ceil() < self.patience().into())
    }

    /// How long small writes may wait for more, in microseconds.
    fn patience(&self) -> u32 {
        if self.streaming {
            STREAM_MICROSECONDS
        } else {
            LOOK_MICROSECONDS
        }
    }

    /// Posts what is to be posted; whether a message is held back for others to join it. That is decided
    /// here and nowhere else: a message that was held back, and in the next moment need not be, would
    /// have neither timer nor interrupt to post it.
    fn post(
        &mut self,
        rx_consumed: u64,
        hurry: bool,
        others: Await,
        budget: &mut usize,
        pumped: &mut Pumped,
    ) -> Result<bool, Broken> {
        let at_once = hurry || others == Await::Interrupt;
        let mut held_back = false;
        while *budget > 0 && !self.pending.is_empty() {
            held_back = !at_once && self.may_wait(rx_consumed);
            if held_back {
                self.held_back = true;
                break;
            }
            let Some(message) = self.pending.pop_front() else {
                break;
            };
            let (end, full) = (message.tx_end(), message.is_nearly_full());
            if let Some(message) = self.add(message, rx_consumed)? {
                self.pending.push_front(message);
                return Ok(false);
            }
            self.posted = end;
            self.carrying += 1;
            self.streaming = core::mem::take(&mut self.held_back) && full && others == Await::None;
            self.last_post = Some(Instant::now());
            self.answered = false;
            *budget -= 1;
            pumped.messages += 1;
            pumped.moved = true;
        }
        if self.ack_due {
            if let Some(mut ack) = self.spare_ack.take() {
                ack.place(self.posted);
                self.spare_ack = self.add(ack, rx_consumed)?;
                pumped.messages += u64::from(self.spare_ack.is_none());
                pumped.moved |= self.spare_ack.is_none();
            }
        }
        Ok(held_back)
    }

    /// Posts one message; gives it back when there is no room.
    fn add(
        &mut self,
        mut message: KBox<TxBuffer>,
        rx_consumed: u64,
    ) -> Result<Option<KBox<TxBuffer>>, Broken> {
        let Some(queue) = self.queue.as_mut() else {
            return Ok(Some(message));
        };
        message.stamp(rx_consumed);
        match queue.add(message) {
            Ok(()) => {
                self.in_flight += 1;
                self.reported = rx_consumed;
                self.ack_due = false;
                self.ack_later = false;
                Ok(None)
            }
            Err(Refused::Full(message)) => Ok(Some(message)),
            Err(Refused::Broken(_)) => Err(Broken("a broken queue")),
        }
    }
}
