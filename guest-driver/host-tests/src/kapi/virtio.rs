// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for virtqueues: a ring in memory, and the device's side of it ([`Ring`]).
//!
//! Interrupts are as with the event index: the device interrupts once after they were enabled, and not again until
//! they are enabled anew.

#[cfg(GLOBALFIFO_FAST)]
use super::pages::{UserBytes, UserPages};
use super::source::Source;
use crate::prelude::*;
use crate::world;
use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::rc::Rc;

/// As in `kapi`.
pub(crate) struct Packet<M> {
    memory: Vec<u8>,
    readable: usize,
    writable: usize,
    behind: Behind,
    pub(crate) meta: M,
}

enum Behind {
    Nothing,
    #[cfg(GLOBALFIFO_FAST)]
    Buffer(KVec<u8>),
    #[cfg(GLOBALFIFO_FAST)]
    Pages(UserPages),
}

impl<M> Packet<M> {
    pub(crate) fn new(size: usize, meta: M) -> Result<KBox<Self>> {
        Self::with_memory(vec![0; size], meta)
    }

    pub(crate) fn with_capacity(size: usize, meta: M) -> Result<KBox<Self>> {
        Self::with_memory(Vec::with_capacity(size), meta)
    }

    fn with_memory(memory: Vec<u8>, meta: M) -> Result<KBox<Self>> {
        let packet = Self {
            memory,
            readable: 0,
            writable: 0,
            behind: Behind::Nothing,
            meta,
        };
        Ok(KBox::new(packet, GFP_KERNEL)?)
    }

    fn tail(&mut self) -> &mut Vec<u8> {
        match &mut self.behind {
            #[cfg(GLOBALFIFO_FAST)]
            Behind::Buffer(buffer) => buffer,
            _ => &mut self.memory,
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> bool {
        let tail = self.tail();
        let fits = bytes.len() <= tail.capacity() - tail.len();
        if fits {
            tail.extend_from_slice(bytes);
        }
        fits
    }

    pub(crate) fn append_from(&mut self, source: &mut Source<'_, '_>, n: usize) -> usize {
        let tail = self.tail();
        let room = tail.spare_capacity_mut();
        let n = n.min(room.len());
        let copied = source.copy(&mut room[..n]);
        let length = tail.len() + copied;
        // SAFETY: So many bytes of the room were written.
        unsafe { tail.set_len(length) };
        copied
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.tail().truncate(len);
        self.readable = self.readable.min(self.memory.len());
        self.writable = 0;
    }

    pub(crate) fn expose(&mut self, readable: usize, writable: usize) {
        self.readable = readable.min(self.memory.len());
        self.writable = writable.min(self.memory.len() - self.readable);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory
    }

    pub(crate) fn snapshot<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.memory.get(at..)?.first_chunk::<N>().copied()
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    fn descriptors(&self) -> u32 {
        match self.behind {
            Behind::Nothing => 1,
            #[cfg(GLOBALFIFO_FAST)]
            _ => 2,
        }
    }

    /// What the device reads.
    pub(crate) fn device_reads(&self) -> Vec<u8> {
        let behind: &[u8] = match &self.behind {
            Behind::Nothing => &[],
            #[cfg(GLOBALFIFO_FAST)]
            Behind::Buffer(buffer) => buffer,
            #[cfg(GLOBALFIFO_FAST)]
            Behind::Pages(pages) => pages.bytes(),
        };
        [&self.memory[..self.readable], behind].concat()
    }

    /// Where the device writes.
    pub(crate) fn device_writes(&mut self) -> &mut [u8] {
        &mut self.memory[self.readable..self.readable + self.writable]
    }
}

#[cfg(GLOBALFIFO_FAST)]
impl<M> Packet<M> {
    pub(crate) fn extend_apart(&mut self, size: usize) -> Result {
        self.behind = Behind::Buffer(KVec::with_capacity(size, GFP_KERNEL)?);
        Ok(())
    }

    pub(crate) fn buffer(&self) -> Option<&KVec<u8>> {
        match &self.behind {
            Behind::Buffer(buffer) => Some(buffer),
            Behind::Nothing | Behind::Pages(_) => None,
        }
    }

    pub(crate) fn append_at_hand(&mut self, bytes: &UserBytes) -> bool {
        self.append(&bytes.0)
    }

    pub(crate) fn attach(&mut self, pages: UserPages) {
        self.behind = Behind::Pages(pages);
    }

    pub(crate) fn pages(&self) -> Option<&UserPages> {
        match &self.behind {
            Behind::Pages(pages) => Some(pages),
            Behind::Nothing | Behind::Buffer(_) => None,
        }
    }
}

/// The content of a ring.
pub(crate) struct Inner<M> {
    size: u32,
    available: VecDeque<KBox<Packet<M>>>,
    used: VecDeque<(KBox<Packet<M>>, usize)>,
    /// Used buffers since interrupts were enabled after which to interrupt; none while they are not, or after it.
    interrupt_after: Option<usize>,
    interrupt: bool,
    kicked: bool,
    broken: bool,
}

/// The device's side of a queue.
pub(crate) struct Ring<M>(Rc<RefCell<Inner<M>>>);

impl<M> Clone for Ring<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M> Ring<M> {
    /// With so many descriptors.
    pub(crate) fn new(size: u32) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            size,
            available: VecDeque::new(),
            used: VecDeque::new(),
            interrupt_after: Some(0),
            interrupt: false,
            kicked: false,
            broken: false,
        })))
    }

    /// The driver's side.
    pub(crate) fn queue(&self) -> Queue<M> {
        Queue {
            ring: self.clone(),
            interrupts: true,
            taken: 0,
            suspected: None,
        }
    }

    fn inner(&self) -> RefMut<'_, Inner<M>> {
        self.0.borrow_mut()
    }

    /// Buffers that the device may take.
    pub(crate) fn available(&self) -> usize {
        self.inner().available.len()
    }

    /// Takes the oldest.
    pub(crate) fn take(&self) -> Option<KBox<Packet<M>>> {
        self.inner().available.pop_front()
    }

    /// Uses it.
    pub(crate) fn give(&self, packet: KBox<Packet<M>>, written: usize) {
        let mut inner = self.inner();
        inner.used.push_back((packet, written));
        if inner
            .interrupt_after
            .is_some_and(|after| inner.used.len() > after)
        {
            inner.interrupt_after = None;
            inner.interrupt = true;
        }
    }

    /// Whether the device interrupts; not any more after this.
    pub(crate) fn take_interrupt(&self) -> bool {
        std::mem::take(&mut self.inner().interrupt)
    }

    /// Whether the driver has notified the device; not any more after this.
    pub(crate) fn take_kick(&self) -> bool {
        std::mem::take(&mut self.inner().kicked)
    }

    /// Loses an interrupt that is on its way.
    pub(crate) fn lose_interrupt(&self) {
        self.inner().interrupt = false;
    }

    /// Breaks it, as the virtio core does when it finds an invalid used ring.
    pub(crate) fn break_it(&self) {
        self.inner().broken = true;
    }
}

/// As in `kapi`.
pub(crate) struct Queue<M> {
    ring: Ring<M>,
    interrupts: bool,
    taken: u64,
    suspected: Option<u64>,
}

/// As in `kapi`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MissedCheck {
    Quiet,
    Pending,
    Missed,
}

/// As in `kapi`.
pub(crate) enum Refused<M> {
    Full(KBox<Packet<M>>),
    Broken(KBox<Packet<M>>),
}

impl<M> Queue<M> {
    pub(crate) fn size(&self) -> u32 {
        self.ring.inner().size
    }

    pub(crate) fn add(&mut self, packet: KBox<Packet<M>>) -> Result<(), Refused<M>> {
        world::step();
        let mut inner = self.ring.inner();
        if inner.broken {
            return Err(Refused::Broken(packet));
        }
        let used = inner
            .used
            .iter()
            .map(|(packet, _)| packet.descriptors())
            .sum::<u32>();
        let available = inner
            .available
            .iter()
            .map(|packet| packet.descriptors())
            .sum::<u32>();
        if used + available + packet.descriptors() > inner.size {
            return Err(Refused::Full(packet));
        }
        inner.available.push_back(packet);
        Ok(())
    }

    pub(crate) fn get(&mut self) -> Option<(KBox<Packet<M>>, usize)> {
        world::step();
        let mut inner = self.ring.inner();
        if inner.broken {
            return None;
        }
        let got = inner.used.pop_front()?;
        if let Some(after) = inner.interrupt_after.as_mut() {
            *after = after.saturating_sub(1);
        }
        self.taken += 1;
        Some(got)
    }

    pub(crate) fn check_missed(&mut self) -> MissedCheck {
        if !self.interrupts || self.enable_interrupts() {
            self.suspected = None;
            return MissedCheck::Quiet;
        }
        if self.suspected.replace(self.taken) == Some(self.taken) {
            MissedCheck::Missed
        } else {
            MissedCheck::Pending
        }
    }

    /// The newest first: there is no order to rely on.
    pub(crate) fn take_unused(&mut self) -> Option<KBox<Packet<M>>> {
        let mut inner = self.ring.inner();
        let used = inner.used.pop_back().map(|(packet, _)| packet);
        used.or_else(|| inner.available.pop_back())
    }

    pub(crate) fn kick(&mut self) -> bool {
        self.ring.inner().kicked = true;
        !self.ring.inner().broken
    }

    pub(crate) fn disable_interrupts(&mut self) {
        self.interrupts = false;
        self.ring.inner().interrupt_after = None;
    }

    pub(crate) fn enable_interrupts(&mut self) -> bool {
        self.interrupts = true;
        let mut inner = self.ring.inner();
        inner.interrupt_after = Some(inner.used.len());
        inner.used.is_empty()
    }

    #[cfg(GLOBALFIFO_FAST)]
    pub(crate) fn enable_interrupts_late(&mut self) -> bool {
        self.interrupts = true;
        let mut inner = self.ring.inner();
        let most = (inner.available.len() + inner.used.len()) * 3 / 4;
        inner.interrupt_after = Some(most.max(inner.used.len()));
        inner.used.len() <= most
    }

    pub(crate) fn interrupts(&self) -> bool {
        self.interrupts
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.ring.inner().broken
    }
}

impl<M> Drop for Queue<M> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            world::assert_unlocked("a reset of the device, as a queue is dropped");
        }
        while self.take_unused().is_some() {}
    }
}
