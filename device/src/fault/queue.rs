// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Faults of a used ring: buffers that are given back otherwise than they were used. A decorator of what
//! [`crate::virtqueue`] does with a queue; it must not know what the bytes mean.
//!
//! Whether there are faults is asked of each buffer, not once a pass: a pass may have begun before a fault was added,
//! and a buffer that the driver makes available after that has the fault all the same.

use std::sync::atomic::Ordering;

use virtio_queue::Error;
use virtio_queue::Queue;
use virtio_queue::QueueT;
use vm_memory::Address;
use vm_memory::Bytes;
use vm_memory::GuestAddress;

use super::Faults;
use super::Place;
use super::Tap;
use super::Used;
use crate::virtqueue::GuestRam;

/// The used ring of a queue that may have faults, during one pass.
#[derive(Debug)]
pub struct FaultyRing<'a> {
    faults: &'a Faults,
    place: Place,
    /// A used buffer that is to be given back after the next one.
    held_back: Option<Used>,
    /// The used ring holds what virtio-queue has not put there and does not count.
    forged: bool,
}

impl<'a> FaultyRing<'a> {
    /// The one at `place`; nothing is held back yet.
    pub fn new(faults: &'a Faults, place: Place) -> Self {
        Self {
            faults,
            place,
            held_back: None,
            forged: false,
        }
    }

    /// What to ask; `None` while no fault is set.
    pub fn tap(&self) -> Option<Tap<'a>> {
        self.faults.tap(self.place)
    }

    /// Gives the buffer `head` back as the faults of `tap` want it. Returns whether anything was given back.
    ///
    /// # Errors
    ///
    /// When the used ring is not in guest memory.
    pub fn finish(
        &mut self,
        tap: Tap<'a>,
        queue: &mut Queue,
        ram: &GuestRam,
        head: u16,
        len: u32,
    ) -> Result<bool, Error> {
        let used = tap.used(head, len, queue.size());
        if used.later && self.held_back.is_none() {
            self.held_back = Some(used);
            return Ok(false);
        }
        self.give_back(queue, ram, used)?;
        self.give_held_back(queue, ram)?;
        Ok(true)
    }

    /// Gives back what was held back. Returns whether there was anything.
    ///
    /// # Errors
    ///
    /// When the used ring is not in guest memory.
    pub fn give_held_back(&mut self, queue: &mut Queue, ram: &GuestRam) -> Result<bool, Error> {
        let Some(used) = self.held_back.take() else {
            return Ok(false);
        };
        self.give_back(queue, ram, used)?;
        Ok(true)
    }

    /// Puts into the used ring what virtio-queue may refuse to.
    fn give_back(&mut self, queue: &mut Queue, ram: &GuestRam, used: Used) -> Result<(), Error> {
        let size = queue.size();
        let at = queue.next_used().wrapping_add(used.ahead);
        queue.set_next_used(at);
        let id = u16::try_from(used.id).ok().filter(|id| *id < size);
        if let Some(id) = id {
            queue.add_used(ram, id, used.len)?;
        } else {
            let ring = GuestAddress(queue.used_ring());
            let entry = ring.unchecked_add(4 + 8 * u64::from(at % size));
            let memory = Error::GuestMemory;
            ram.write_obj([used.id.to_le(), used.len.to_le()], entry)
                .map_err(memory)?;
            queue.set_next_used(at.wrapping_add(1));
            let index = ring.unchecked_add(2);
            ram.store(at.wrapping_add(1).to_le(), index, Ordering::Release)
                .map_err(memory)?;
        }
        self.forged |= used.ahead > 0 || id.is_none();
        Ok(())
    }

    /// Whether the used ring holds what virtio-queue does not count, since the last call.
    pub fn take_forged(&mut self) -> bool {
        std::mem::take(&mut self.forged)
    }

    /// Replaces what the driver was told of notifications.
    ///
    /// # Errors
    ///
    /// When the used ring is not in guest memory.
    pub fn suppress(&self, queue: &Queue, ram: &GuestRam) -> Result<(), Error> {
        let Some(word) = self.tap().and_then(Tap::suppression) else {
            return Ok(());
        };
        let avail_event = 4 + 8 * u64::from(queue.size());
        let offset = if queue.event_idx_enabled() {
            avail_event
        } else {
            0
        };
        let at = GuestAddress(queue.used_ring()).unchecked_add(offset);
        ram.store(word.to_le(), at, Ordering::Relaxed)
            .map_err(Error::GuestMemory)
    }
}
