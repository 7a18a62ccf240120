// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest that means harm: the device without its driver, with rings that no driver would make.
//!
//! Whatever is in them, the device refuses it, or ignores the queue until it is reset (DEV-26, DEV-28);
//! requests on other queues are answered meanwhile, and after a reset all is well. At the end of
//! each test the driver gets the device back and moves bytes. What is random follows from a seed, which
//! is printed: `test-rings [SEED]`.
//!
//! Addresses that the device may write to are those of pages of this program, or no memory at all:
//! a guest that has its own memory overwritten proves nothing.

use std::env;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use globalfifo_guest_tests::bare::{
    Descriptor, Device, FEATURE_EVENT_INDEX, FEATURE_INDIRECT, INDIRECT, NEXT, PAGE, Page, Queue,
    SIZE, WRITE,
};
use globalfifo_guest_tests::fifo::{Fifo, PATH};
use globalfifo_guest_tests::harness::{self, Test, eventually};
use globalfifo_guest_tests::{check, check_eq, system};

const TESTS: &[Test] = &[
    ("descriptors_that_loop", loops),
    ("addresses_that_are_no_memory", addresses),
    ("chains_that_are_too_long", long_chains),
    ("descriptors_that_do_not_exist", missing_descriptors),
    ("available_rings_that_cannot_be", available),
    ("lengths_of_zero_and_of_everything", lengths),
    ("directions_the_wrong_way_round", directions),
    ("headers_that_break_the_rules", headers),
    ("requests_that_are_none", requests),
    ("tables_within_tables", tables),
    ("random_bytes", random),
    ("rings_that_change_while_they_are_read", changing),
    ("kicks_for_nothing", kicks),
];

/// The queues of FIFO 0.
const CONTROL: usize = 0;
const EVENT: usize = 1;
const RX: usize = 2;
const TX: usize = 3;

/// `STATE_ERROR`.
const ERROR: u32 = 4;

/// Addresses where the guest has no memory, and where none can be.
const NOWHERE: [u64; 6] = [
    0xFEE0_0000,
    0x1_0000_0000_0000,
    u64::MAX,
    u64::MAX - 4095,
    0x8000_0000_0000_0000,
    0xFFFF_FFFF_0000_0000,
];

fn main() -> ExitCode {
    let (numbers, filters): (Vec<String>, Vec<String>) = env::args()
        .skip(1)
        .partition(|text| text.parse::<u64>().is_ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = numbers.first().cloned().unwrap_or_else(|| {
        now.map_or(1, |now| u64::from(now.subsec_nanos()))
            .to_string()
    });
    // Taken from the driver by a test that failed: the next ones should not fail for it.
    if env::var_os("GLOBALFIFO_TEST").is_none() && system::device_name().is_err() {
        let _ = Device::take().and_then(Device::give_back);
    }
    let title = format!("seed {seed}: test-rings {seed}");
    let limit = Duration::from_secs(120);
    harness::main_with(TESTS, &filters, limit, &[seed], &title)
}

/// splitmix64, from the seed that `main` gave.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = env::args().nth(1).and_then(|text| text.parse().ok());
        Self(seed.unwrap_or(1))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let bits = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn u32(&mut self) -> u32 {
        let [a, b, c, d, ..] = self.next().to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    fn u16(&mut self) -> u16 {
        let [a, b, ..] = self.next().to_le_bytes();
        u16::from_le_bytes([a, b])
    }

    /// A descriptor, or one that does not exist.
    fn head(&mut self) -> u16 {
        self.u16() % (SIZE + 2)
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> Result<T> {
        let index = self.below(of.len() as u64);
        of.get(usize::try_from(index)?).copied().context("empty")
    }
}

/// What the device says of the FIFO.
#[derive(Debug)]
struct State {
    flags: u32,
    capacity: u32,
    rx_floor: u64,
    tx_accepted: u64,
}

/// The device in the hands of a test.
struct Rig {
    device: Device,
    queues: Vec<Queue>,
    /// For what the device reads, and for what it writes.
    out: Page,
    into: Page,
    /// For control requests that are to be answered.
    request: Page,
}

impl Rig {
    fn new() -> Result<Self> {
        let device = Device::take()?;
        let queues = device.start(0)?;
        Ok(Self {
            device,
            queues,
            out: Page::new()?,
            into: Page::new()?,
            request: Page::new()?,
        })
    }

    /// Runs `test`, then has the driver show that the device is as good as new.
    fn run(test: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let mut rig = Self::new()?;
        let result = test(&mut rig).and_then(|()| rig.is_well());
        rig.device.give_back()?;
        system::wait_for_file(PATH, true)?;
        result?;
        let fifo = Fifo::open_empty(0)?;
        fifo.write_all(b"nothing happened")?;
        check_eq!(fifo.read_exact(16)?, b"nothing happened".to_vec());
        Ok(())
    }

    fn restart(&mut self, features: u64) -> Result<()> {
        // The pages go after the device is reset.
        self.device.reset()?;
        self.queues = self.device.start(features)?;
        Ok(())
    }

    fn queue(&mut self, index: usize) -> Result<&mut Queue> {
        self.queues.get_mut(index).context("no such queue")
    }

    /// Makes the chain at `head` available on a queue, and tells the device.
    fn offer(&mut self, index: usize, head: u16) -> Result<()> {
        let queue = self.queue(index)?;
        queue.offer(head);
        self.kick(index)
    }

    fn kick(&self, index: usize) -> Result<()> {
        self.device
            .kick(self.queues.get(index).context("no such queue")?);
        Ok(())
    }

    /// CTRL_GET_STATE, well-formed. On a control queue that works.
    fn state(&mut self) -> Result<State> {
        let address = self.request.address;
        self.request.clear();
        self.request.memory.write(0, 1u32);
        let control = self.queue(CONTROL)?;
        let used = control.used();
        let [first, second] = [SIZE - 2, SIZE - 1];
        control.describe(first, readable(address, 16).then(second));
        control.describe(second, writable(address + 64, 56));
        self.offer(CONTROL, first)?;
        check_eq!(self.queue(CONTROL)?.wait_used_head(used, first)?, 56);
        let memory = &self.request.memory;
        check_eq!(memory.read::<u32>(64), 0);
        Ok(State {
            flags: memory.read(76),
            capacity: memory.read(80),
            rx_floor: memory.read(88),
            tx_accepted: memory.read(104),
        })
    }

    /// Resets the device, which must make all well.
    fn is_well(&mut self) -> Result<()> {
        self.restart(0)?;
        let state = self.state()?;
        check_eq!(state.flags & ERROR, 0);
        check!(state.capacity > 0);
        Ok(())
    }

    /// Has the device refuse what `describe` makes of a queue's descriptors, with the chain at 0; on
    /// each kind of queue. On a queue that the device reads, that is seen at once; on others when
    /// there is something to be written.
    fn refuses(&mut self, describe: impl Fn(&Self, &Queue)) -> Result<()> {
        for index in [CONTROL, EVENT, RX, TX] {
            self.restart(0)?;
            if index == RX {
                self.send(10)?;
            }
            let queue = self.queues.get(index).context("no such queue")?;
            describe(self, queue);
            self.offer(index, 0)?;
            if index == EVENT {
                // A broken message fails the FIFO, which is an event.
                self.send_header(u64::MAX, 0, 1)?;
            }
            let queue = self.queue(index)?;
            queue
                .wait_used(1)
                .with_context(|| format!("queue {index}"))?;
            check_eq!(queue.used_length(0), 0);
            let state = self.state()?;
            check_eq!(state.flags & ERROR != 0, index == TX || index == EVENT);
        }
        self.is_well()
    }

    /// Sends `length` bytes through the FIFO, well-formed.
    fn send(&mut self, length: u32) -> Result<()> {
        let state = self.state()?;
        let used = self.queue(TX)?.used();
        self.send_header(state.tx_accepted, state.rx_floor, length)?;
        self.queue(TX)?.wait_used(used.wrapping_add(1))
    }

    /// Sends a message with this header.
    fn send_header(&mut self, offset: u64, consumed: u64, length: u32) -> Result<()> {
        self.out.memory.write(0, offset);
        self.out.memory.write(8, consumed);
        let address = self.out.address;
        let head = SIZE - 1;
        self.queue(TX)?
            .describe(head, readable(address, 16 + length));
        self.offer(TX, head)
    }
}

fn readable(address: u64, length: u32) -> Descriptor {
    Descriptor {
        address,
        length,
        ..Descriptor::default()
    }
}

fn writable(address: u64, length: u32) -> Descriptor {
    Descriptor {
        flags: WRITE,
        ..readable(address, length)
    }
}

trait Then {
    /// The same, going on at `next`.
    fn then(self, next: u16) -> Self;
}

impl Then for Descriptor {
    fn then(self, next: u16) -> Self {
        Self {
            flags: self.flags | NEXT,
            next,
            ..self
        }
    }
}

/// DEV-11, DEV-15, DEV-19, DEV-25.
fn loops() -> Result<()> {
    Rig::run(|rig| {
        for length in [1, 2, 5, SIZE - 2] {
            for flags in [0, WRITE] {
                rig.refuses(|rig, queue| {
                    for index in 0..length {
                        let descriptor = Descriptor {
                            flags,
                            ..readable(rig.into.address, 8)
                        };
                        queue.describe(index, descriptor.then((index + 1) % length));
                    }
                })?;
            }
        }
        Ok(())
    })
}

fn addresses() -> Result<()> {
    Rig::run(|rig| {
        for address in NOWHERE {
            for flags in [0, WRITE] {
                rig.refuses(|_, queue| {
                    let descriptor = Descriptor {
                        flags,
                        ..readable(address, 4096)
                    };
                    queue.describe(0, descriptor);
                })?;
            }
            // The good part first.
            rig.refuses(|rig, queue| {
                queue.describe(0, readable(rig.out.address, 16).then(1));
                queue.describe(1, writable(address, 4096));
            })?;
        }
        // From good memory into none.
        rig.refuses(|rig, queue| {
            queue.describe(0, writable(rig.into.address, u32::MAX));
        })
    })
}

fn long_chains() -> Result<()> {
    Rig::run(|rig| {
        // All descriptors there are, and back to the first: longer than the ring.
        rig.refuses(|rig, queue| {
            for index in 0..SIZE {
                let descriptor = readable(rig.out.address, 1);
                queue.describe(index, descriptor.then((index + 1) % SIZE));
            }
        })
    })
}

fn missing_descriptors() -> Result<()> {
    Rig::run(|rig| {
        for next in [SIZE, SIZE + 1, 0x7FFF, 0xFFFF] {
            rig.refuses(|rig, queue| {
                queue.describe(0, readable(rig.out.address, 16).then(next));
            })?;
        }
        Ok(())
    })
}

/// DEV-28.
fn available() -> Result<()> {
    Rig::run(|rig| {
        for index in [CONTROL, EVENT, RX, TX] {
            for jump in [SIZE + 1, 1000, 0x8000, 0xFFFF] {
                rig.restart(0)?;
                if index == RX {
                    rig.send(10)?;
                }
                let used = rig.queue(index)?.used();
                rig.queue(index)?.set_available(used.wrapping_add(jump));
                rig.kick(index)?;
                if index == TX || index == RX {
                    eventually("the FIFO fails", || Ok(rig.state()?.flags & ERROR != 0))?;
                }
                if index != CONTROL {
                    rig.state()?;
                }
                check_eq!(rig.queue(index)?.used(), used);
                rig.is_well()?;
            }
            // Heads that are no descriptors.
            for head in [SIZE, 0x7FFF, 0xFFFF] {
                rig.restart(0)?;
                rig.offer(index, head)?;
                if index != CONTROL {
                    rig.state()?;
                }
                rig.is_well()?;
            }
        }
        Ok(())
    })
}

fn lengths() -> Result<()> {
    Rig::run(|rig| {
        for length in [0, 1, 15, 0x8000_0000, u32::MAX] {
            for flags in [0, WRITE] {
                for index in [CONTROL, EVENT, RX, TX] {
                    rig.restart(0)?;
                    let descriptor = Descriptor {
                        flags,
                        ..readable(rig.into.address, length)
                    };
                    rig.queue(index)?.describe(0, descriptor);
                    rig.offer(index, 0)?;
                    rig.state()?;
                    rig.is_well()?;
                }
            }
        }
        // Many of no length, in one chain.
        rig.refuses(|rig, queue| {
            for index in 0..SIZE - 2 {
                let descriptor = readable(rig.out.address, 0);
                queue.describe(index, descriptor.then(index + 1));
            }
            queue.describe(SIZE - 3, readable(rig.out.address, 0));
        })
    })
}

fn directions() -> Result<()> {
    Rig::run(|rig| {
        // What the device should read is for writing, then the reverse; the parts in the wrong order.
        rig.refuses(|rig, queue| {
            queue.describe(0, writable(rig.into.address, 64).then(1));
            queue.describe(1, readable(rig.out.address, 16));
        })?;
        rig.refuses(|rig, queue| {
            queue.describe(0, readable(rig.out.address, 8).then(1));
            queue.describe(1, writable(rig.into.address, 64).then(2));
            queue.describe(2, readable(rig.out.address, 8));
        })
    })
}

/// DEV-11.
fn headers() -> Result<()> {
    Rig::run(|rig| {
        drain(rig)?;
        for round in 0..8 {
            rig.restart(0)?;
            let state = rig.state()?;
            let (sent, floor) = (state.tx_accepted, state.rx_floor);
            let capacity = u64::from(state.capacity);
            let (offset, consumed, length) = match round {
                0 => (sent.wrapping_add(1), floor, 4),
                1 => (sent.wrapping_sub(1), floor, 4),
                2 => (u64::MAX, floor, 4),
                3 => (1 << 63, floor, 0),
                4 => (sent, sent.wrapping_add(1), 4),
                5 => (sent, u64::MAX, 4),
                6 => (sent, 1 << 63, 0),
                _ => (sent, floor, 4096 - 16),
            };
            if round == 7 {
                // The second does not fit any more.
                rig.send_header(offset, consumed, length)?;
                rig.queue(TX)?.wait_used(1)?;
                let rest = u32::try_from(capacity)? - length + 1;
                rig.send_header(offset + u64::from(length), consumed, rest)?;
                rig.queue(TX)?.wait_used(2)?;
                check_eq!(rig.state()?.tx_accepted, sent + u64::from(length));
                // Else it would not be empty for the next.
                drain(rig)?;
                continue;
            }
            rig.send_header(offset, consumed, length)?;
            rig.queue(TX)?.wait_used(1)?;
            let after = rig.state()?;
            check!(after.flags & ERROR != 0);
            check_eq!(after.tx_accepted, sent);
        }
        Ok(())
    })
}

/// CTRL_CLEAR, after a reset.
fn drain(rig: &mut Rig) -> Result<()> {
    rig.restart(0)?;
    let accepted = rig.state()?.tx_accepted;
    let address = rig.request.address;
    rig.request.memory.write(0, 2u32);
    rig.request.memory.write(8, accepted);
    let control = rig.queue(CONTROL)?;
    control.describe(0, readable(address, 16).then(1));
    control.describe(1, writable(address + 64, 56));
    let used = control.used();
    rig.offer(CONTROL, 0)?;
    rig.queue(CONTROL)?.wait_used(used.wrapping_add(1))?;
    check_eq!(rig.request.memory.read::<u32>(64), 0);
    Ok(())
}

/// DEV-22, DEV-24, DEV-25.
fn requests() -> Result<()> {
    Rig::run(|rig| {
        // Type, FIFO, bytes sent: status.
        let cases: [(u32, u32, u64, u32); 7] = [
            (0, 0, 0, 1),
            (3, 0, 0, 1),
            (u32::MAX, u32::MAX, 0, 1),
            (1, 1, 0, 2),
            (1, u32::MAX, 0, 2),
            (2, 31, 0, 2),
            (2, 0, u64::MAX, 3),
        ];
        for (kind, fifo, sent, status) in cases {
            let (out, into) = (rig.out.address, rig.into.address);
            rig.out.memory.write(0, kind);
            rig.out.memory.write(4, fifo);
            rig.out.memory.write(8, sent);
            rig.into.memory.write(0, u32::MAX);
            let control = rig.queue(CONTROL)?;
            control.describe(0, readable(out, 16).then(1));
            control.describe(1, writable(into, 56));
            let used = control.used();
            rig.offer(CONTROL, 0)?;
            let control = rig.queue(CONTROL)?;
            control.wait_used(used.wrapping_add(1))?;
            check_eq!(control.used_length(used), 56);
            check_eq!(rig.into.memory.read::<u32>(0), status);
        }
        for (request, response) in [(15, 56), (17, 56), (16, 55), (0, 56), (16, 0), (4096, 56)] {
            let (out, into) = (rig.out.address, rig.into.address);
            let control = rig.queue(CONTROL)?;
            control.describe(0, readable(out, request).then(1));
            control.describe(1, writable(into, response));
            let used = control.used();
            rig.offer(CONTROL, 0)?;
            let control = rig.queue(CONTROL)?;
            control.wait_used(used.wrapping_add(1))?;
            check_eq!(control.used_length(used), 0);
        }
        rig.state().map(drop)
    })
}

fn tables() -> Result<()> {
    Rig::run(|rig| {
        let table = Page::new()?;
        for features in [0, FEATURE_INDIRECT] {
            for (address, length, flags) in [
                (table.address, 16, INDIRECT),
                (table.address, 0, INDIRECT),
                (table.address, 17, INDIRECT),
                (table.address, 16, INDIRECT | WRITE),
                (table.address, 16, INDIRECT | NEXT),
                (table.address, 4096, INDIRECT),
                (table.address, 0xFFFF_FFF0, INDIRECT),
                (u64::MAX - 4095, 4096, INDIRECT),
                (0xFEE0_0000, 160, INDIRECT),
                (table.address + 1, 32, INDIRECT),
            ] {
                for index in [CONTROL, EVENT, RX, TX] {
                    rig.restart(features)?;
                    // A table that holds itself, and goes on for ever.
                    for entry in 0..(PAGE / 16) as u64 {
                        let inner = Descriptor {
                            address: table.address,
                            length: 16,
                            flags: if entry % 2 == 0 {
                                INDIRECT | NEXT
                            } else {
                                NEXT
                            },
                            next: u16::try_from(entry ^ 1)?,
                        };
                        table
                            .memory
                            .put(usize::try_from(entry * 16)?, &inner.to_bytes());
                    }
                    let outer = Descriptor {
                        address,
                        length,
                        flags,
                        next: 1,
                    };
                    rig.queue(index)?.describe(0, outer);
                    rig.offer(index, 0)?;
                    rig.state()?;
                }
                rig.is_well()?;
            }
        }
        Ok(())
    })
}

/// Somewhere in our pages, or nowhere; a length that stays in the page.
fn buffer(random: &mut Random, rig: &Rig) -> Result<(u64, u32)> {
    let offset = random.below(PAGE as u64);
    let room = PAGE as u64 - offset;
    match random.below(4) {
        0 => Ok((random.one_of(&NOWHERE)?, random.u32())),
        1 => Ok((
            rig.out.address + offset,
            u32::try_from(random.below(room + 1))?,
        )),
        _ => Ok((
            rig.into.address + offset,
            u32::try_from(random.below(room + 1))?,
        )),
    }
}

fn scribble(random: &mut Random, rig: &mut Rig) -> Result<()> {
    for offset in (0..PAGE).step_by(8) {
        let value = match random.below(3) {
            0 => random.next(),
            1 => random.below(64),
            _ => 0,
        };
        rig.out.memory.write(offset, value);
    }
    for index in 0..rig.queues.len() {
        for descriptor in 0..SIZE {
            let (address, length) = buffer(random, rig)?;
            let flags = random.u16() % 8;
            let next = random.head();
            // What is random must not be taken for a table: by chance it would name memory.
            let may_be_table = address.wrapping_sub(rig.out.address) >= PAGE as u64;
            let flags = if may_be_table {
                flags
            } else {
                flags & !INDIRECT
            };
            rig.queue(index)?.describe(
                descriptor,
                Descriptor {
                    address,
                    length,
                    flags,
                    next,
                },
            );
        }
        for _ in 0..random.below(u64::from(SIZE)) {
            let head = random.head();
            rig.queue(index)?.offer(head);
        }
        if random.below(8) == 0 {
            let wild = random.u16();
            rig.queue(index)?.set_available(wild);
        }
    }
    Ok(())
}

fn random() -> Result<()> {
    const ROUNDS: usize = 150;
    Rig::run(|rig| {
        let mut random = Random::new();
        for _ in 0..ROUNDS {
            let features = random.one_of(&[
                0,
                FEATURE_INDIRECT,
                FEATURE_EVENT_INDEX,
                FEATURE_INDIRECT | FEATURE_EVENT_INDEX,
            ])?;
            drain(rig)?;
            rig.restart(features)?;
            rig.send(u32::from(random.u16() % 100))?;
            scribble(&mut random, rig)?;
            for _ in 0..8 {
                rig.kick(usize::try_from(random.below(4))?)?;
            }
            rig.is_well()?;
        }
        Ok(())
    })
}

fn changing() -> Result<()> {
    const TIME: Duration = Duration::from_secs(3);
    Rig::run(|rig| {
        let mut random = Random::new();
        let started = Instant::now();
        while started.elapsed() < TIME {
            drain(rig)?;
            rig.restart(FEATURE_INDIRECT)?;
            rig.send(50)?;
            scribble(&mut random, rig)?;
            let (device, queues) = (&rig.device, &rig.queues);
            let over = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        for queue in queues {
                            device.kick(queue);
                        }
                    }
                });
                for _ in 0..20_000 {
                    let queue = usize::from(random.u16()) % queues.len();
                    let Some(queue) = queues.get(queue) else {
                        continue;
                    };
                    // Addresses and lengths stay: what is for the device to write stays in our pages.
                    let entry = usize::from(random.u16() % SIZE);
                    match random.below(4) {
                        0 => queue.set_available(random.u16()),
                        1 => queue.set_head(entry, random.head()),
                        _ => queue.relink(entry, random.u16() % 4, random.head()),
                    }
                }
                over.store(true, Ordering::Relaxed);
            });
            rig.is_well()?;
        }
        Ok(())
    })
}

fn kicks() -> Result<()> {
    Rig::run(|rig| {
        for _ in 0..20_000 {
            for queue in &rig.queues {
                rig.device.kick(queue);
            }
        }
        rig.state().map(drop)
    })
}
