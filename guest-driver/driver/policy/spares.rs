// SPDX-License-Identifier: GPL-2.0-only

//! Messages that are used again: writing allocates nothing while there are some.
//!
//! One hook: the FIFO takes messages here for a write, and gives them back when they were used. New
//! ones are dear, as the allocator charges and fills them. The largest consist of two pieces,
//! header and payload: with the header in front, 64 KiB of payload would take memory for 128.
//!
//! Gain (docs/performance.md): 64 KiB guest to host 0.34 to 0.88 of virtio-serial.

use crate::{
    driver::{
        buffers::TxBuffer,
        chain::Chain,
        fast_tunables::{
            INLINE_MAX,
            SPARES,
            SPLIT_MIN_QUEUE,
            STREAM_MESSAGES, //
        },
    },
    virtio_fifo::TxHeader,
};
use core::ops::RangeInclusive;
use kernel::prelude::*;

/// Messages of one size.
struct OneSize {
    /// Room for so much payload.
    room: usize,
    messages: Chain<TxBuffer>,
    count: usize,
    most: usize,
}

impl OneSize {
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

/// See the module.
pub(crate) struct Spares {
    sizes: [OneSize; SPARES.len()],
    /// The queue takes messages of two descriptors.
    can_split: bool,
}

impl Spares {
    /// None yet, for a FIFO of this capacity.
    pub(crate) fn new(capacity: usize) -> Self {
        let mut sizes = SPARES.map(|size| OneSize::new(size, capacity));
        let [small, stream, ..] = &mut sizes;
        let share = (capacity / STREAM_MESSAGES).saturating_sub(TxHeader::LEN);
        stream.room = stream.room.min(share.max(small.room));
        Self {
            sizes,
            can_split: false,
        }
    }

    /// The queue has so many descriptors.
    pub(crate) fn queue_has(&mut self, descriptors: u32) {
        self.can_split = descriptors >= SPLIT_MIN_QUEUE;
    }

    fn room_for(&self, n: usize, is_stream: bool) -> usize {
        let [small, stream, inline, apart] = &self.sizes;
        let size = if n <= small.room {
            if is_stream {
                stream
            } else {
                small
            }
        } else if n <= inline.room || !self.can_split {
            inline
        } else {
            apart
        };
        size.room
    }

    /// Those with that room. Those of a small FIFO may all have the same: then the first are used.
    fn of_room(&mut self, room: usize) -> Option<&mut OneSize> {
        self.sizes.iter_mut().find(|size| size.room == room)
    }

    /// Messages for `n` bytes, or as many as there are, and the payload that new ones should have
    /// room for.
    pub(crate) fn take(&mut self, n: usize, is_stream: bool) -> (Chain<TxBuffer>, usize) {
        let mut taken = Chain::new();
        let room = self.room_for(n, is_stream);
        if let Some(size) = self.of_room(room) {
            let mut bytes = 0;
            while bytes < n {
                let Some(message) = size.take() else {
                    break;
                };
                taken.push_back(message);
                bytes += room;
            }
        }
        (taken, room)
    }

    /// Keeps those of `messages` that will be useful; the rest stays.
    pub(crate) fn keep(&mut self, messages: &mut Chain<TxBuffer>) {
        let mut rest = Chain::new();
        while let Some(message) = messages.pop_front() {
            let unwanted = if message.is_direct() {
                Some(message)
            } else {
                match self.of_room(message.room()) {
                    Some(size) => size.keep(message),
                    None => Some(message),
                }
            };
            if let Some(message) = unwanted {
                rest.push_back(message);
            }
        }
        *messages = rest;
    }

    /// A new message with `room`, or with less if there is no memory at hand.
    pub(crate) fn allocate(room: usize) -> Result<KBox<TxBuffer>> {
        if room > INLINE_MAX {
            if let Ok(message) = TxBuffer::apart(room) {
                return Ok(message);
            }
        }
        TxBuffer::for_tx(room.min(INLINE_MAX))
    }
}
