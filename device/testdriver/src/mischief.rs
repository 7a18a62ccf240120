// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What no driver does: noise in the rings, descriptors that change, queues that are never empty.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use vm_memory::Bytes;
use vm_memory::GuestAddress;

use crate::AVAIL_OFFSET;
use crate::Driver;
use crate::NEXT;
use crate::USED_OFFSET;

impl Driver {
    /// Fills the rings of a queue with noise; what looks like an index stays in range now and then.
    pub fn fill_with_noise(&mut self, queue: u16, seed: &mut u64) {
        let (at, avail) = {
            let queue = &self.queues[usize::from(queue)];
            (queue.at(0), queue.at(AVAIL_OFFSET + 2))
        };
        let noise: Vec<u8> = (0..USED_OFFSET)
            .map(|_| {
                *seed ^= *seed << 13;
                *seed ^= *seed >> 7;
                *seed ^= *seed << 17;
                // Small numbers make plausible descriptors: in memory, in the table, short.
                if *seed & 0x300 == 0 {
                    (*seed >> 32) as u8
                } else {
                    0
                }
            })
            .collect();
        self.ram.write_slice(&noise, at).unwrap();
        let index = self
            .avail_index(queue)
            .wrapping_add((*seed >> 40) as u16 & 63);
        self.ram.store(index, avail, Ordering::Release).unwrap();
    }

    /// Makes one chain of `len` descriptors of the first ones of `queue`, each of which the device reads: the chain of every
    /// entry of the available ring as long as nothing else was made available.
    pub fn link_long(&mut self, queue: u16, len: u16) {
        let part = self.readable(&[0; 64]);
        let table = self.table(queue);
        for index in 0..len {
            let (flags, next) = if index + 1 < len {
                (NEXT, index + 1)
            } else {
                (0, 0)
            };
            self.put_descriptor(table, index, part, flags, next);
        }
    }

    /// Keeps a queue full from another thread until the result is dropped.
    pub fn flood(&self, queue: u16) -> Mischief {
        self.flood_all(&[queue])
    }

    /// Keeps these queues full from one other thread, in turn, until the result is dropped.
    pub fn flood_all(&self, queues: &[u16]) -> Mischief {
        let floods: Vec<_> = queues
            .iter()
            .map(|queue| {
                let queue = &self.queues[usize::from(*queue)];
                let (used, avail) = (queue.at(USED_OFFSET + 2), queue.at(AVAIL_OFFSET + 2));
                (used, avail, queue.size, queue.kick.try_clone().unwrap())
            })
            .collect();
        let ram = self.ram.clone();
        Mischief::new(move || {
            for (used, avail, size, kick) in &floods {
                let used: u16 = ram.load(*used, Ordering::Acquire).unwrap();
                ram.store(used.wrapping_add(*size), *avail, Ordering::Release)
                    .unwrap();
                kick.write(1).unwrap();
            }
        })
    }

    /// Changes descriptors of a queue from another thread until the result is dropped.
    pub fn scribble(&self, queue: u16) -> Mischief {
        let (ram, table) = (self.ram.clone(), self.table(queue));
        let size = u64::from(self.queues[usize::from(queue)].size);
        let mut step = 0_u64;
        Mischief::new(move || {
            step += 1;
            // Length, flags or next of the descriptors that are handed out first.
            let (offset, value) = match step % 3 {
                0 => (8, (step % 80) as u16),
                1 => (12, (step % 8) as u16),
                _ => (14, (step % size) as u16),
            };
            let at = GuestAddress(table + 16 * (step / 3 % 4) + offset);
            ram.write_obj(value, at).unwrap();
        })
    }
}

/// A thread that does something over and over until this is dropped.
#[derive(Debug)]
pub struct Mischief {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Mischief {
    fn new(mut step: impl FnMut() + Send + 'static) -> Self {
        // The first time is now, so that there is no race for it.
        step();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                step();
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Mischief {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            if !std::thread::panicking() {
                result.unwrap();
            }
        }
    }
}
