// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The rings of the virtqueues: descriptors, the available ring, the used ring, notifications. Knows no message.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::atomic::fence;

use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EFD_NONBLOCK;
use vmm_sys_util::eventfd::EventFd;

use crate::AVAIL_OFFSET;
use crate::BUFFERS;
use crate::Driver;
use crate::EVENT_IDX;
use crate::INDIRECT;
use crate::NEXT;
use crate::Part;
use crate::RAM_LEN;
use crate::RAM_START;
use crate::RINGS_LEN;
use crate::USED_OFFSET;
use crate::WRITE;
use crate::wait_readable;

/// The driver's side of one virtqueue.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) size: u16,
    pub(crate) rings: u64,
    pub(crate) kick: EventFd,
    pub(crate) call: EventFd,
    pub(crate) avail: u16,
    /// What is made available does not show in the ring's index yet.
    pub(crate) held: bool,
    /// `avail` when the device was last told.
    pub(crate) told: u16,
    pub(crate) used: u16,
    pub(crate) free: Vec<u16>,
    pub(crate) chains: HashMap<u16, Vec<u16>>,
}

impl Queue {
    pub(crate) fn new(index: u16, size: u16) -> Self {
        Self {
            size,
            rings: RAM_START + u64::from(index) * RINGS_LEN,
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
            call: EventFd::new(EFD_NONBLOCK).unwrap(),
            avail: 0,
            held: false,
            told: 0,
            used: 0,
            free: (0..size).rev().collect(),
            chains: HashMap::new(),
        }
    }

    pub(crate) fn at(&self, offset: u64) -> GuestAddress {
        GuestAddress(self.rings + offset)
    }
}

impl Driver {
    /// A buffer that nothing else uses for a while.
    pub fn buffer(&mut self, len: u32) -> u64 {
        let len = u64::from(len).next_multiple_of(64);
        if self.next_buffer + len > RAM_START + RAM_LEN {
            self.next_buffer = BUFFERS;
        }
        let at = self.next_buffer;
        self.next_buffer += len;
        at
    }

    /// A buffer holding `bytes`, as a device-readable part.
    pub fn readable(&mut self, bytes: &[u8]) -> Part {
        let at = self.buffer(bytes.len() as u32);
        self.write(at, bytes);
        Part {
            at,
            len: bytes.len() as u32,
            write: false,
        }
    }

    /// A device-writable part.
    pub fn writable(&mut self, len: u32) -> Part {
        Part {
            at: self.buffer(len),
            len,
            write: true,
        }
    }

    /// Writes guest memory.
    pub fn write(&self, at: u64, bytes: &[u8]) {
        self.ram.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    /// Reads guest memory.
    pub fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    /// Writes one descriptor, at `index` of the table at `table`.
    pub fn put_descriptor(&mut self, table: u64, index: u16, part: Part, flags: u16, next: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&part.at.to_le_bytes());
        bytes[8..12].copy_from_slice(&part.len.to_le_bytes());
        let write = if part.write { WRITE } else { 0 };
        bytes[12..14].copy_from_slice(&(flags | write).to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        let at = GuestAddress(table + 16 * u64::from(index));
        self.ram.write_slice(&bytes, at).unwrap();
    }

    /// The descriptor table of a queue.
    pub fn table(&self, queue: u16) -> u64 {
        self.queues[usize::from(queue)].rings
    }

    /// Takes `count` descriptors out of use, for a chain made by hand; the first is its head.
    pub fn take_descriptors(&mut self, queue: u16, count: usize) -> Vec<u16> {
        let queue = &mut self.queues[usize::from(queue)];
        let at = queue.free.len() - count;
        let taken = queue.free.split_off(at);
        queue.chains.insert(taken[0], taken.clone());
        taken
    }

    /// Makes a chain of `parts` and makes it available; the device is not told.
    pub fn add(&mut self, queue: u16, parts: &[Part]) -> u16 {
        let taken = self.take_descriptors(queue, parts.len());
        let table = self.table(queue);
        for (at, part) in parts.iter().enumerate() {
            let next = taken.get(at + 1).copied();
            let flags = if next.is_some() { NEXT } else { 0 };
            self.put_descriptor(table, taken[at], *part, flags, next.unwrap_or_default());
        }
        self.make_available(queue, taken[0]);
        taken[0]
    }

    /// As [`Driver::add`], by way of an indirect table.
    pub fn add_indirect(&mut self, queue: u16, parts: &[Part]) -> u16 {
        let len = 16 * parts.len() as u32;
        let at = self.buffer(len);
        for (index, part) in (0..).zip(parts) {
            let last = usize::from(index) + 1 == parts.len();
            let flags = if last { 0 } else { NEXT };
            self.put_descriptor(at, index, *part, flags, index + 1);
        }
        let table = Part {
            at,
            len,
            write: false,
        };
        let head = self.take_descriptors(queue, 1)[0];
        self.put_descriptor(self.table(queue), head, table, INDIRECT, 0);
        self.make_available(queue, head);
        head
    }

    /// Puts `head` into the available ring.
    pub fn make_available(&mut self, number: u16, head: u16) {
        let queue = &mut self.queues[usize::from(number)];
        let slot = u64::from(queue.avail % queue.size);
        let entry = queue.at(AVAIL_OFFSET + 4 + 2 * slot);
        self.ram.write_obj(head.to_le(), entry).unwrap();
        queue.avail = queue.avail.wrapping_add(1);
        let (held, index) = (queue.held, queue.avail);
        if !held {
            self.set_avail_index(number, index);
        }
    }

    /// Makes available in one step what `post` makes available: a device that looks at the queue
    /// unasked, as it may at any time, finds all of it or nothing.
    pub fn at_once(&mut self, queue: u16, post: impl FnOnce(&mut Self)) {
        self.queues[usize::from(queue)].held = true;
        post(self);
        self.queues[usize::from(queue)].held = false;
        self.set_avail_index(queue, self.avail_index(queue));
    }

    /// Moves the available index by force.
    pub fn set_avail_index(&mut self, queue: u16, index: u16) {
        let queue = &self.queues[usize::from(queue)];
        let at = queue.at(AVAIL_OFFSET + 2);
        self.ram
            .store(index.to_le(), at, Ordering::Release)
            .unwrap();
    }

    /// The available index.
    pub fn avail_index(&self, queue: u16) -> u16 {
        self.queues[usize::from(queue)].avail
    }

    /// Tells the device that buffers are available, if it wants to know.
    pub fn notify(&mut self, queue: u16) -> bool {
        fence(Ordering::SeqCst);
        let event_idx = self.features & EVENT_IDX != 0;
        let queue = &mut self.queues[usize::from(queue)];
        let (old, new) = (queue.told, queue.avail);
        queue.told = new;
        let wanted = if event_idx {
            let at = queue.at(USED_OFFSET + 4 + 8 * u64::from(queue.size));
            let event = u16::from_le(self.ram.load(at, Ordering::SeqCst).unwrap());
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            let flags: u16 = self
                .ram
                .load(queue.at(USED_OFFSET), Ordering::SeqCst)
                .unwrap();
            u16::from_le(flags) & 1 == 0
        };
        if wanted {
            queue.kick.write(1).unwrap();
        }
        wanted
    }

    /// Tells the device even if it does not want to know.
    pub fn kick(&mut self, queue: u16) {
        self.queues[usize::from(queue)].kick.write(1).unwrap();
    }

    /// The next used buffer, if there is one: head and used length.
    pub fn used(&mut self, queue: u16) -> Option<(u16, u32)> {
        let (id, len) = self.used_entry(queue)?;
        let queue = &mut self.queues[usize::from(queue)];
        let head = u16::try_from(id).expect("no such descriptor");
        let chain = queue.chains.remove(&head).expect("used, but not in use");
        queue.free.extend(chain);
        Some((head, len))
    }

    /// The next entry of the used ring, whatever it says.
    pub fn used_entry(&mut self, queue: u16) -> Option<(u32, u32)> {
        let queue = &mut self.queues[usize::from(queue)];
        let index: u16 = self
            .ram
            .load(queue.at(USED_OFFSET + 2), Ordering::Acquire)
            .unwrap();
        if u16::from_le(index) == queue.used {
            return None;
        }
        let slot = u64::from(queue.used % queue.size);
        let entry: [u32; 2] = self
            .ram
            .read_obj(queue.at(USED_OFFSET + 4 + 8 * slot))
            .unwrap();
        queue.used = queue.used.wrapping_add(1);
        Some((u32::from_le(entry[0]), u32::from_le(entry[1])))
    }

    /// How many buffers of a queue have been used and not been looked at.
    pub fn used_count(&self, queue: u16) -> u16 {
        let queue = &self.queues[usize::from(queue)];
        let index: u16 = self
            .ram
            .load(queue.at(USED_OFFSET + 2), Ordering::Acquire)
            .unwrap();
        u16::from_le(index).wrapping_sub(queue.used)
    }

    /// Sets the used index at which the device shall interrupt (EVENT_IDX).
    pub fn set_used_event(&mut self, queue: u16, index: u16) {
        let queue = &self.queues[usize::from(queue)];
        let at = queue.at(AVAIL_OFFSET + 4 + 2 * u64::from(queue.size));
        self.ram.store(index.to_le(), at, Ordering::SeqCst).unwrap();
        fence(Ordering::SeqCst);
    }

    /// Sets the flags of the available ring: 1 asks for no interrupts.
    pub fn set_avail_flags(&mut self, queue: u16, flags: u16) {
        let queue = &self.queues[usize::from(queue)];
        let at = queue.at(AVAIL_OFFSET);
        self.ram.store(flags.to_le(), at, Ordering::SeqCst).unwrap();
        fence(Ordering::SeqCst);
    }

    /// The used index up to which this driver has looked.
    pub fn seen(&self, queue: u16) -> u16 {
        self.queues[usize::from(queue)].used
    }

    /// How many interrupts of a queue came since the last call.
    pub fn interrupts(&self, queue: u16) -> u64 {
        self.queues[usize::from(queue)].call.read().unwrap_or(0)
    }

    /// What an interrupt of a queue comes by.
    pub fn call(&self, queue: u16) -> &EventFd {
        &self.queues[usize::from(queue)].call
    }

    /// Waits for the next used buffer, asleep until the interrupt.
    pub fn wait_used(&mut self, queue: u16) -> (u16, u32) {
        loop {
            if let Some(used) = self.used(queue) {
                return used;
            }
            self.set_used_event(queue, self.seen(queue));
            if let Some(used) = self.used(queue) {
                return used;
            }
            self.wait_interrupt(queue);
        }
    }

    /// Waits for an interrupt.
    pub fn wait_interrupt(&self, queue: u16) {
        let call = &self.queues[usize::from(queue)].call;
        wait_readable(call, &format!("interrupt of queue {queue}"));
        call.read().unwrap();
    }
}
