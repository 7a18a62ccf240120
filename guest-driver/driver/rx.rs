// SPDX-License-Identifier: GPL-2.0-only

//! The receiving half of a FIFO: what came from the device and has not been read.
//!
//! Plain state; [`super::fifo`] locks it, wakes for it, and copies out of it. Positions are those of
//! the rx stream (specification, section 6.1).

use super::buffers::{
    Chain,
    Rx,
    RxBuffer, //
};
use crate::{
    kapi::virtio::{
        Look,
        Queue,
        Refused, //
    },
    virtio_fifo::{
        RxHeader,
        State,
        MAX_POSITION, //
    },
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// The device broke the specification, or the queue broke; says how.
pub(crate) struct Broken(pub(crate) &'static str);

/// Messages to take at a time, and pages to copy while doing so: the rest is left for later, so that
/// a device which uses buffers as fast as they are posted does not keep a CPU for itself.
pub(crate) const BUDGET: usize = 64;

/// What an interrupt brought.
#[derive(Default)]
pub(crate) struct Received {
    /// New bytes.
    pub(crate) bytes: u64,
    /// Messages, whether their bytes counted or not.
    pub(crate) messages: u64,
    /// The highest limit told for the tx stream.
    pub(crate) tx_limit: u64,
    /// There may be more, and no interrupt will tell of it.
    pub(crate) more: bool,
}

/// See the module.
///
/// # Invariants
///
/// `consumed` ≤ `given` ≤ `next` < [`MAX_POSITION`], but for what a reader has out; so no sum of a
/// position and a length overflows.
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
            hangup: false,
            ended: false,
            end: state.rx_end,
        }
    }

    /// How large a receive buffer should be, and how many it takes so that all of a full FIFO fits,
    /// however small the pieces in which it came: no two neighbours fit into one buffer.
    pub(crate) fn buffers_for(capacity: u32) -> (usize, usize) {
        let capacity = capacity as usize;
        // Few large pieces for what streams, and never more than a queue of 256 takes.
        let size = (capacity / 4).next_power_of_two().clamp(4096, 65536);
        let size = size.max((capacity / 100).next_power_of_two());
        (size, 2 * capacity / (size - RxHeader::LEN) + 4)
    }

    /// Starts to receive with `queue`.
    pub(crate) fn attach(&mut self, queue: Queue<Rx>) {
        self.queue = Some(queue);
    }

    /// Gives the queue back, and with it what is in it.
    pub(crate) fn detach(&mut self) -> Option<Queue<Rx>> {
        self.queue.take()
    }

    /// Posts one more buffer; false when the queue takes no more.
    pub(crate) fn post(&mut self, buffer: KBox<RxBuffer>) -> bool {
        match self.queue.as_mut().map(|queue| queue.add(buffer)) {
            Some(Ok(())) => true,
            // Its memory goes: the others have to do. (Only at start: later there is always room.)
            Some(Err(Refused::Full(_) | Refused::Broken(_))) | None => false,
        }
    }

    /// Tells the device of posted buffers.
    pub(crate) fn kick(&mut self) {
        if let Some(queue) = self.queue.as_mut() {
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

    /// Looks for used buffers that no interrupt told of.
    pub(crate) fn look(&mut self) -> Look {
        self.queue.as_mut().map_or(Look::Quiet, Queue::look)
    }

    /// Asks the device not to interrupt: nobody wants what it sends.
    pub(crate) fn silence(&mut self) {
        if let Some(queue) = self.queue.as_mut() {
            queue.disable_interrupts();
        }
    }

    /// Takes what the device sent, as far as [`BUDGET`] goes. Until all is taken, there are no
    /// interrupts; then they are asked for, unless somebody is `looking` who calls again soon.
    pub(crate) fn receive(&mut self, looking: bool) -> Result<Received, Broken> {
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
            if budget == 0 {
                received.more = true;
                break;
            }
            // False when something came after the last look.
            if looking || self.queue.as_mut().is_none_or(Queue::enable_interrupts) {
                break;
            }
        }
        if self.queue.as_ref().is_some_and(Queue::is_broken) {
            return Err(Broken("what broke its rx queue"));
        }
        self.kick();
        Ok(received)
    }

    /// Checks one message (DRV-10, DRV-11, DRV-15) and keeps its bytes; how many were copied for that.
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
        if header.offset < self.next {
            // From before a clear, on its way while the answer to that overtook it.
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
            // Above what is consumed after a clear whose answer has not been looked at yet.
            header.rx_floor
        };
        if floor > self.consumed {
            self.discard_below(floor);
        }
        if end - self.consumed > self.capacity {
            return Err(Broken("more bytes than the FIFO holds"));
        }
        received.bytes += end - header.offset;
        self.next = end;
        // Small pieces go together, so that however many there are, the buffers suffice.
        let length = buffer.unread().len();
        if self
            .filled
            .newest()
            .is_some_and(|last| last.extend(buffer.unread()))
        {
            self.post(buffer);
            Ok(length)
        } else {
            self.filled.push_back(buffer);
            Ok(0)
        }
    }

    /// Drops all bytes below `position`, which the device discarded. Posts their buffers again.
    pub(crate) fn discard_below(&mut self, position: u64) {
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
    /// makes is that of a whole read.
    pub(crate) fn consume_given(&mut self) {
        self.consumed = self.given;
    }
}
