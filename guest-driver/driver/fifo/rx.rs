// SPDX-License-Identifier: GPL-2.0-only

//! The receiving half of a FIFO: what came from the device and has not been read.
//!
//! Plain state: must not know locks, wake-ups, or user memory. Positions are those of the rx stream
//! (specification, section 6.1).

use crate::{
    driver::{
        buffers::{
            Rx,
            RxBuffer, //
        },
        chain::Chain,
        tunables::BUDGET, //
    },
    kapi::virtio::{
        MissedCheck,
        Queue, //
    },
    virtio_fifo::{
        RxHeader,
        State,
        MAX_POSITION, //
    },
};
use core::mem;
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// The device broke the specification, or the queue broke; says how.
pub(crate) struct Broken(pub(crate) &'static str);

/// Result of [`RxSide::receive`].
#[derive(Default)]
pub(crate) struct Received {
    /// New bytes.
    pub(crate) bytes: u64,
    /// Messages, whether their bytes counted or not.
    pub(crate) messages: u64,
    /// The highest limit told for the tx stream.
    pub(crate) tx_limit: u64,
    /// The budget is used up: there may be more, and no interrupt will tell of it.
    pub(crate) more: bool,
}

/// The receiving half of a FIFO.
///
/// # Invariants
///
/// `consumed` ≤ `given` ≤ `next` < [`MAX_POSITION`], except for the buffer a reader has out.
/// So no sum of a position and a length overflows.
pub(crate) struct RxSide {
    /// Until the device is taken away. Holds the posted buffers.
    queue: Option<Queue<Rx>>,
    /// Buffers with unread bytes, oldest first, without gaps.
    filled: Chain<RxBuffer>,
    /// Bytes in the FIFO may not exceed this.
    capacity: u64,
    /// Position of the byte that the device sends next.
    next: u64,
    /// All below is read or discarded.
    consumed: u64,
    /// All below has been given to the reader whose turn it is; consumed when its turn ends.
    given: u64,
    /// Where the last message ended: the next one cannot begin below, for they come in order.
    arrived: u64,
    /// All below was discarded; messages from before may still be under way.
    cleared: u64,
    /// All below was received before the device was reset: the device sends again what it does not
    /// know to be consumed (DEV-6), and the copies are dropped.
    repeated: u64,
    /// Buffers of the driver's: posted, filled, out with a reader, or spare.
    buffers: usize,
    /// Buffers have been posted since the device was notified last.
    posted: bool,
    /// Those that were emptied while there was no queue.
    spare: Chain<RxBuffer>,
    /// The other side is gone.
    hangup: bool,
    /// Nothing follows `end`.
    ended: bool,
    end: u64,
}

impl RxSide {
    /// Starts where the device stands.
    pub(crate) fn new(state: &State) -> Self {
        Self {
            queue: None,
            filled: Chain::new(),
            capacity: u64::from(state.capacity),
            next: state.rx_floor,
            consumed: state.rx_floor,
            given: state.rx_floor,
            arrived: state.rx_floor,
            cleared: state.rx_floor,
            repeated: state.rx_floor,
            buffers: 0,
            posted: false,
            spare: Chain::new(),
            hangup: false,
            ended: false,
            end: state.rx_end,
        }
    }

    /// Size of a receive buffer, in bytes, and the number of buffers for which all of a full FIFO
    /// fits, however small the pieces in which it came: no two neighbours fit into one buffer.
    pub(crate) fn buffers_for(capacity: u32) -> (usize, usize) {
        let capacity = capacity as usize;
        // Few large pieces for what streams, and never more than a queue of 256 takes.
        let size = (capacity / 4).next_power_of_two().clamp(4096, 65536);
        let size = size.max((capacity / 100).next_power_of_two());
        (size, 2 * capacity / (size - RxHeader::LEN) + 4)
    }

    /// Buffers that are missing from `wanted`.
    pub(crate) fn missing(&self, wanted: usize) -> usize {
        wanted.saturating_sub(self.buffers)
    }

    /// Starts to receive with `queue`, into `buffers` and those that there are.
    pub(crate) fn attach(&mut self, queue: Queue<Rx>, mut buffers: Chain<RxBuffer>) {
        self.queue = Some(queue);
        while let Some(buffer) = self.spare.pop_front() {
            self.post(buffer);
        }
        while let Some(buffer) = buffers.pop_front() {
            self.buffers += 1;
            self.post(buffer);
        }
        self.kick();
    }

    /// Keeps `queue` for the sake of the device's others, and receives nothing.
    pub(crate) fn attach_idle(&mut self, queue: Queue<Rx>) {
        self.queue = Some(queue);
        self.silence();
    }

    /// Gives the queue back, and with it the posted buffers.
    pub(crate) fn detach(&mut self) -> Option<Queue<Rx>> {
        self.queue.take()
    }

    /// The device has been reset, or is about to be: `queue` had `posted` buffers, which are gone.
    pub(crate) fn forget_posted(&mut self, posted: usize) {
        self.buffers -= posted.min(self.buffers);
    }

    /// Goes on where a device stands that has been reset. What is unread stays.
    ///
    /// # Errors
    ///
    /// A device that stands elsewhere.
    pub(crate) fn resume(&mut self, state: &State) -> Result<(), Broken> {
        if state.rx_end < self.next {
            return Err(Broken("another position after its reset"));
        }
        self.discard(state.rx_floor);
        self.arrived = state.rx_floor;
        self.repeated = self.next;
        Ok(())
    }

    /// Posts a buffer, or keeps it for the next queue.
    fn post(&mut self, buffer: KBox<RxBuffer>) {
        let Some(queue) = self.queue.as_mut() else {
            return self.spare.push_back(buffer);
        };
        if queue.add(buffer).is_err() {
            // The queue has room for all buffers; `receive` reports a broken one. (Were
            // ACCESS_PLATFORM offered, bounce buffers could run out here.)
            self.buffers -= 1;
        } else {
            self.posted = true;
        }
    }

    /// Notifies the device of posted buffers (virtio 1.3, section 2.7.13), unless it wants no
    /// notification.
    fn kick(&mut self) {
        let posted = mem::take(&mut self.posted);
        if let Some(queue) = self.queue.as_mut().filter(|_| posted) {
            queue.kick();
        }
    }

    /// Bytes that can be read now.
    pub(crate) fn level(&self) -> u64 {
        self.next - self.consumed
    }

    /// All below this position is read or discarded.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// All below this position is read or discarded, and the device may be told so: not of bytes
    /// from before its reset that it has not sent again (DRV-7).
    pub(crate) fn acknowledged(&self) -> u64 {
        if self.arrived < self.repeated {
            self.consumed.min(self.arrived.max(self.cleared))
        } else {
            self.consumed
        }
    }

    /// All below this position was sent by the device, or discarded.
    pub(crate) fn received(&self) -> u64 {
        self.next
    }

    /// Whether everything is read and nothing will follow (DRV-13).
    pub(crate) fn at_end(&self) -> bool {
        self.ended && self.consumed >= self.end
    }

    /// Whether the other side is gone.
    pub(crate) fn hung_up(&self) -> bool {
        self.hangup
    }

    /// Whether the other side sends nothing more.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Sets whether the other side is gone, or only sends nothing more, and after which byte.
    pub(crate) fn set_end(&mut self, hangup: bool, ended: bool, end: u64) {
        self.hangup = hangup;
        self.ended = hangup || ended;
        self.end = end;
    }

    /// Checks for used buffers whose interrupt is lost.
    pub(crate) fn check_missed(&mut self) -> MissedCheck {
        self.queue
            .as_mut()
            .map_or(MissedCheck::Quiet, Queue::check_missed)
    }

    /// Disables interrupts: nobody wants what the device sends.
    pub(crate) fn silence(&mut self) {
        if let Some(queue) = self.queue.as_mut() {
            queue.disable_interrupts();
        }
    }

    /// Takes what the device sent, as far as [`BUDGET`] goes. Interrupts are disabled until all is
    /// taken, and stay so while a task is `polling`, which calls again soon.
    pub(crate) fn receive(&mut self, polling: bool) -> Result<Received, Broken> {
        let mut received = Received::default();
        let mut budget = BUDGET;
        loop {
            match self.queue.as_mut() {
                Some(queue) => queue.disable_interrupts(),
                None => return Ok(received),
            }
            while budget > 0 {
                let Some((buffer, written)) = self.queue.as_mut().and_then(Queue::get) else {
                    break;
                };
                let copied = self.accept(buffer, written, &mut received)?;
                budget = budget.saturating_sub(1 + copied / PAGE_SIZE);
            }
            // Also bounds a device that takes used buffers back each time.
            budget = budget.saturating_sub(1);
            if budget == 0 {
                received.more = true;
                break;
            }
            // False when something came since.
            if polling || self.queue.as_mut().is_none_or(Queue::enable_interrupts) {
                break;
            }
        }
        if self.queue.as_ref().is_some_and(Queue::is_broken) {
            return Err(Broken("an invalid used ring (rx)"));
        }
        self.kick();
        Ok(received)
    }

    /// Checks one message (DRV-10, DRV-11, DRV-15) and keeps its bytes; how many were copied for
    /// that.
    fn accept(
        &mut self,
        mut buffer: KBox<RxBuffer>,
        written: usize,
        received: &mut Received,
    ) -> Result<usize, Broken> {
        let header = buffer
            .fill(written)
            .ok_or(Broken("an impossible used length"))?;
        let end = buffer.rx_end();
        received.messages += 1;
        received.tx_limit = received.tx_limit.max(header.tx_limit);
        // INVARIANT: `next` becomes `end`, or stays above it.
        if end < header.offset || end >= MAX_POSITION || header.rx_floor > header.offset {
            return Err(Broken("an impossible rx offset"));
        }
        if header.offset < self.arrived {
            return Err(Broken("bytes it had sent before"));
        }
        self.arrived = end;
        if header.offset < self.repeated.min(self.next) && end > self.cleared {
            return self.accept_repeated(buffer, end, received);
        }
        if header.offset < self.next {
            // From before a clear whose answer overtook it.
            let stale = end <= self.cleared;
            self.post(buffer);
            return if stale {
                Ok(0)
            } else {
                Err(Broken("bytes it had sent before"))
            };
        }
        let floor = if header.offset > self.next {
            header.offset
        } else {
            // Above what is consumed after a clear whose answer has not been taken yet.
            header.rx_floor
        };
        if floor > self.consumed {
            self.discard_below(floor);
        }
        if end - self.consumed > self.capacity {
            return Err(Broken("more bytes than the FIFO holds"));
        }
        Ok(self.keep(buffer, end, received))
    }

    /// Takes a message that begins before the device's reset: drops the bytes that came already.
    fn accept_repeated(
        &mut self,
        mut buffer: KBox<RxBuffer>,
        end: u64,
        received: &mut Received,
    ) -> Result<usize, Broken> {
        if end <= self.next {
            self.post(buffer);
            return Ok(0);
        }
        let known = self.next - buffer.rx_position();
        buffer.advance(known as usize);
        if end - self.consumed > self.capacity {
            return Err(Broken("more bytes than the FIFO holds"));
        }
        Ok(self.keep(buffer, end, received))
    }

    /// Keeps the unread bytes of a buffer, which are the next ones; how many were copied for that.
    fn keep(&mut self, buffer: KBox<RxBuffer>, end: u64, received: &mut Received) -> usize {
        received.bytes += end - self.next;
        self.next = end;
        // Small pieces are joined: however many there are, the buffers suffice.
        let length = buffer.unread().len();
        if self
            .filled
            .newest()
            .is_some_and(|last| last.extend(buffer.unread()))
        {
            self.post(buffer);
            length
        } else {
            self.filled.push_back(buffer);
            0
        }
    }

    /// Drops all bytes below `position`, which the device discarded. Posts their buffers again, and
    /// notifies the device: it may wait for one.
    pub(crate) fn discard(&mut self, position: u64) {
        self.discard_below(position);
        self.kick();
    }

    fn discard_below(&mut self, position: u64) {
        self.cleared = self.cleared.max(position);
        self.consumed = self.consumed.max(position);
        self.given = self.given.max(position);
        self.next = self.next.max(position);
        while let Some(mut buffer) = self.filled.pop_front() {
            if buffer.rx_end() <= position {
                self.post(buffer);
                continue;
            }
            let below = position.saturating_sub(buffer.rx_position());
            buffer.advance(below as usize);
            self.filled.push_front(buffer);
            break;
        }
    }

    /// Takes the oldest buffer out, to be read without a lock; at most one is out at a time.
    pub(crate) fn take(&mut self) -> Option<KBox<RxBuffer>> {
        self.filled.pop_front()
    }

    /// Notes what was read from a buffer that was taken, and keeps or posts it.
    pub(crate) fn give_back(&mut self, mut buffer: KBox<RxBuffer>, read: usize) {
        buffer.advance(read);
        self.given = self.given.max(buffer.rx_position());
        if buffer.unread().is_empty() || buffer.rx_end() <= self.cleared {
            self.post(buffer);
        } else {
            // A clear may have hit the middle of it while it was out.
            let below = self.cleared.saturating_sub(buffer.rx_position());
            buffer.advance(below as usize);
            self.filled.push_front(buffer);
        }
    }

    /// Ends a reader's turn: what it was given is consumed. In one step, so that the space that it
    /// makes is that of a whole read. Notifies the device of the buffers that were given back.
    pub(crate) fn consume_given(&mut self) {
        self.consumed = self.given;
        self.kick();
    }
}
