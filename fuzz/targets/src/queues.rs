// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A driver and a VMM that do nearly the right thing, step by step: messages whose counters are
//! right or a little wrong, chains that are whole or broken, queues stopped, started and disabled,
//! memory exchanged, faults on demand.
//!
//! Descriptors point to the data area, or at least partly outside memory, never at rings. So it is
//! known what the device may write: the used rings, and data that a device-writable descriptor
//! covers. Everything else must be as the driver left it (DEV-26).

use vhost_device_fifo::fault::FaultSpec;
use vhost_device_fifo::fault::Kind;
use vhost_device_fifo::fifo::ResetPolicy;
use vhost_device_fifo::virtqueue::GuestRam;
use virtio_fifo_protocol::virtio_fifo::CONTROL_QUEUE;
use virtio_fifo_protocol::virtio_fifo::CTRL_CLEAR;
use virtio_fifo_protocol::virtio_fifo::CtrlRequest;
use virtio_fifo_protocol::virtio_fifo::CtrlResponse;
use virtio_fifo_protocol::virtio_fifo::EVENT_QUEUE;
use virtio_fifo_protocol::virtio_fifo::State;
use virtio_fifo_protocol::virtio_fifo::TxHeader;
use virtio_fifo_protocol::virtio_fifo::rx_queue;
use virtio_fifo_protocol::virtio_fifo::tx_queue;
use vm_memory::Bytes;
use vm_memory::GuestAddress;

use crate::guest::DATA;
use crate::guest::Guest;
use crate::guest::LEN;
use crate::guest::OUTSIDE;
use crate::guest::QUEUES;
use crate::guest::SIZE;
use crate::guest::SPECS;
use crate::guest::START;
use crate::guest::avail;
use crate::guest::memory;
use crate::guest::table;
use crate::guest::used;
use crate::guest::write;
use crate::input::Input;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Indirect tables, of 8 entries each.
const TABLES: u64 = DATA;
const TABLE_LEN: u64 = 16 * 8;
const NUM_TABLES: u16 = 4;
/// Buffers, behind a gap: entry 8 of the last table, which a chain may name, is no driver's data.
const BUFFERS: u64 = TABLES + TABLE_LEN * NUM_TABLES as u64 + 16;
const END: u64 = START + LEN;

const NUM_FIFOS: u16 = SPECS.len() as u16;

/// A byte of options, then steps.
pub fn queues(data: &[u8]) {
    let mut input = Input::new(data);
    let options = input.u8();
    let reset = if options & 2 == 0 {
        ResetPolicy::Keep
    } else {
        ResetPolicy::Clear
    };
    let mut driver = Driver {
        guest: Guest::new(reset, options & 1 != 0),
        ram: memory(LEN),
        shadow: vec![0; LEN as usize],
        writable: vec![false; LEN as usize],
        avail: [0; QUEUES as usize],
        free: [0; QUEUES as usize],
    };
    driver.guest.set_memory(driver.ram.clone());
    while !input.is_empty() {
        driver.step(&mut input);
        driver.guest.check();
    }
    driver.check_memory();
}

struct Driver {
    guest: Guest,
    ram: GuestRam,
    /// Memory as the driver left it.
    shadow: Vec<u8>,
    /// What the device may have changed since.
    writable: Vec<bool>,
    /// Each queue's available index.
    avail: [u16; QUEUES as usize],
    /// Each queue's next descriptor to use.
    free: [u16; QUEUES as usize],
}

impl Driver {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 16 {
            0..=2 => self.send(input),
            3..=4 => {
                let len = u32::from(input.u8());
                self.post(rx_queue(input.below(NUM_FIFOS)), len, input);
            }
            5 => {
                let len = near_len(State::LEN, input);
                self.post(EVENT_QUEUE, len, input);
            }
            6 => self.request(input),
            7 => self.indirect(input),
            8 => self.descriptor(input),
            9 => {
                let (queue, head) = (input.below(QUEUES), input.u16());
                self.make_available(queue, head);
            }
            10 => {
                let queue = input.below(QUEUES);
                self.avail[usize::from(queue)] = input.u16();
                self.publish(queue);
                self.guest.kick(queue);
            }
            11 => {
                // Flags and used_event: whether the driver wants interrupts.
                let queue = input.below(QUEUES);
                let (flags, event) = (input.u16(), input.u16());
                self.put(avail(queue), &flags.to_le_bytes());
                self.put(avail(queue) + 4 + 2 * u64::from(SIZE), &event.to_le_bytes());
            }
            12 => self.host_side(input),
            13 => self.stop(input),
            14 => {
                let queue = input.below(QUEUES);
                self.guest.enable(queue, input.u8() & 1 == 1);
            }
            _ => match input.below(2) {
                0 => self.exchange_memory(input),
                _ => self.fault(input),
            },
        }
    }

    /// The host side gives or takes something, and wakes the worker, perhaps for another FIFO.
    fn host_side(&mut self, input: &mut Input<'_>) {
        {
            let mut fifo = self.guest.device.fifo(OUTSIDE).expect("a FIFO");
            let len = usize::from(input.u8() % 40);
            let mut bytes = [0; 40];
            if input.u8() & 1 == 0 {
                fifo.put(&bytes[..len]);
            } else {
                let (position, len) = fifo.peek(&mut bytes[..len]);
                fifo.taken(position + len as u64);
            }
        }
        self.guest.serve_fifo(input.below(NUM_FIFOS));
    }

    /// A tx message.
    fn send(&mut self, input: &mut Input<'_>) {
        let index = input.below(NUM_FIFOS);
        let status = self.guest.device.fifo(index).map(|fifo| fifo.status());
        let status = status.expect("a FIFO");
        let header = TxHeader {
            offset: input.near(status.tx.entered),
            rx_consumed: match input.u8() % 3 {
                0 => input.near(status.rx.left),
                1 => input.near(status.rx.entered),
                _ => input.near(status.rx.left + status.rx.level as u64 / 2),
            },
        };
        let len = usize::from(input.u8() % 128);
        let payload: Vec<u8> = input.bytes(len).to_vec();
        let (at, len) = (self.buffer(input), TxHeader::LEN + payload.len());
        self.put(at, &header.to_bytes());
        self.put(at.wrapping_add(TxHeader::LEN as u64), &payload);
        let cut = u32::from(input.u8()).min(len as u32);
        let queue = tx_queue(index);
        self.chain(
            queue,
            &[
                (at, cut, 0),
                (at.wrapping_add(cut.into()), len as u32 - cut, 0),
            ],
            input,
        );
    }

    /// An empty buffer.
    fn post(&mut self, queue: u16, len: u32, input: &mut Input<'_>) {
        let at = self.buffer(input);
        self.chain(queue, &[(at, len, WRITE)], input);
    }

    /// A control request and room for its response.
    fn request(&mut self, input: &mut Input<'_>) {
        let index = input.below(NUM_FIFOS + 1);
        let sent = self.guest.device.fifo(index).map(|fifo| fifo.tx_accepted());
        let request = CtrlRequest {
            kind: u32::from(input.u8()) % (CTRL_CLEAR + 2),
            fifo: index.into(),
            tx_sent: input.near(sent.unwrap_or_default()),
        };
        let at = self.buffer(input);
        self.put(at, &request.to_bytes());
        let readable = near_len(CtrlRequest::LEN, input);
        let writable = near_len(CtrlResponse::LEN, input);
        self.chain(
            CONTROL_QUEUE,
            &[(at, readable, 0), (at.wrapping_add(64), writable, WRITE)],
            input,
        );
    }

    /// A chain in an indirect table, whole or not.
    fn indirect(&mut self, input: &mut Input<'_>) {
        let number = input.below(NUM_TABLES);
        let at = TABLES + TABLE_LEN * u64::from(number);
        let entries = input.below(9);
        for entry in 0..entries.min(8) {
            let buffer = self.buffer(input);
            let (len, flags) = (u32::from(input.u8()), u16::from(input.u8()) & 7);
            self.put_descriptor(at, entry, (buffer, len, flags), input.below(9));
        }
        let len = near_len(16 * usize::from(entries), input);
        let queue = input.below(QUEUES);
        let head = self.take(queue);
        // Not a buffer: the device reads it only.
        self.put_raw(table(queue), head, (at, len, INDIRECT), 0);
        self.make_available(queue, head);
        self.guest.kick(queue);
    }

    /// A descriptor, of whatever kind, that perhaps belongs to a chain later.
    fn descriptor(&mut self, input: &mut Input<'_>) {
        let queue = input.below(QUEUES);
        let index = input.below(SIZE);
        let at = self.buffer(input);
        let len = u32::from(input.u16()) << (input.u8() % 17);
        let flags = u16::from(input.u8()) & (NEXT | WRITE);
        self.put_descriptor(table(queue), index, (at, len, flags), input.below(SIZE + 1));
    }

    fn stop(&mut self, input: &mut Input<'_>) {
        let (first, count) = (input.below(QUEUES), input.below(QUEUES) + 1);
        let stopped: Vec<u16> = (first..QUEUES.min(first + count)).collect();
        self.guest.stop(&stopped);
        let how = input.u8();
        for queue in stopped {
            // As a driver that was reset, as the same after a pause, or not at all.
            let base = match how % 4 {
                0 => 0,
                1 => self.guest.next_avail(queue),
                2 => input.u16(),
                _ => continue,
            };
            if base == 0 {
                self.avail[usize::from(queue)] = 0;
                self.publish(queue);
            }
            self.guest.start(queue, base);
        }
    }

    /// The device is told to fail in some way, for a while or for good.
    fn fault(&mut self, input: &mut Input<'_>) {
        let Some(kind) = Kind::ALL.get(usize::from(input.u8() % 20)).copied() else {
            self.guest.device.faults().clear();
            return;
        };
        let spec = FaultSpec {
            count: Some(input.u8().into()).filter(|count| *count > 0),
            seed: input.u8().into(),
            ..FaultSpec::new(kind)
        };
        let added = self.guest.device.faults().add(&spec);
        added.expect("it is for all FIFOs");
        self.guest.resume();
    }

    /// For a while there is less memory, or other memory.
    fn exchange_memory(&mut self, input: &mut Input<'_>) {
        self.guest.exchange_memory(1 + u64::from(input.u16()) % LEN);
        for _ in 0..input.below(4) {
            self.guest.kick(input.below(QUEUES));
        }
        self.guest.set_memory(self.ram.clone());
    }

    /// Where the next buffer is: mostly in the data area, now and then partly or wholly outside.
    fn buffer(&mut self, input: &mut Input<'_>) -> u64 {
        match input.u8() {
            0xff => START - 8,
            0xfe => u64::MAX - 8,
            0xfd => END,
            0xfc => END - 8,
            0xfb => 0,
            place => BUFFERS + u64::from(place) * 16,
        }
    }

    /// Makes a chain of `parts` available; on a whim not quite.
    fn chain(&mut self, queue: u16, parts: &[(u64, u32, u16)], input: &mut Input<'_>) {
        let heads: Vec<u16> = parts.iter().map(|_| self.take(queue)).collect();
        let whim = input.u8();
        for (number, (at, len, flags)) in parts.iter().enumerate() {
            let next = heads.get(number + 1);
            let mut flags = flags | if next.is_some() { NEXT } else { 0 };
            match whim {
                0xff => flags ^= WRITE,
                0xfe => flags |= NEXT,
                _ => {}
            }
            let next = next.or(heads.first()).copied().unwrap_or_default();
            self.put_descriptor(table(queue), heads[number], (*at, *len, flags), next);
        }
        self.make_available(queue, heads[0]);
        if whim & 1 == 0 {
            self.guest.kick(queue);
        }
    }

    fn take(&mut self, queue: u16) -> u16 {
        let free = &mut self.free[usize::from(queue)];
        *free = (*free + 1) % SIZE;
        *free
    }

    fn make_available(&mut self, queue: u16, head: u16) {
        let index = self.avail[usize::from(queue)];
        let entry = avail(queue) + 4 + 2 * u64::from(index % SIZE);
        self.put(entry, &head.to_le_bytes());
        self.avail[usize::from(queue)] = index.wrapping_add(1);
        self.publish(queue);
    }

    fn publish(&mut self, queue: u16) {
        let index = self.avail[usize::from(queue)];
        self.put(avail(queue) + 2, &index.to_le_bytes());
    }

    /// Writes a descriptor of a buffer; from now on the device may write to it.
    fn put_descriptor(&mut self, table: u64, index: u16, part: (u64, u32, u16), next: u16) {
        let (at, len, flags) = part;
        // One that is not wholly in memory must be refused (DEV-11, DEV-15 …).
        let end = at.saturating_add(len.into());
        if flags & WRITE != 0 && at >= START && end <= END {
            self.writable[(at - START) as usize..(end - START) as usize].fill(true);
        }
        self.put_raw(table, index, part, next);
    }

    fn put_raw(&mut self, table: u64, index: u16, (at, len, flags): (u64, u32, u16), next: u16) {
        let to = table + 16 * u64::from(index);
        self.put(to, &at.to_le_bytes());
        self.put(to + 8, &len.to_le_bytes());
        self.put(to + 12, &flags.to_le_bytes());
        self.put(to + 14, &next.to_le_bytes());
    }

    /// Writes to memory, as far as there is any.
    fn put(&mut self, at: u64, bytes: &[u8]) {
        let len = write(&self.ram, at, bytes);
        if len > 0 {
            let from = (at - START) as usize;
            self.shadow[from..from + len].copy_from_slice(&bytes[..len]);
        }
    }

    /// DEV-26: the device has written nowhere else.
    fn check_memory(&self) {
        let mut now = vec![0; LEN as usize];
        self.ram
            .read_slice(&mut now, GuestAddress(START))
            .expect("all of memory");
        let device_owns = |place: u64| {
            (0..QUEUES).any(|queue| (used(queue)..table(queue + 1)).contains(&place))
                || self.writable[(place - START) as usize]
        };
        for (place, (now, before)) in (START..).zip(now.iter().zip(&self.shadow)) {
            assert!(now == before || device_owns(place), "written at {place:#x}");
        }
    }
}

/// A length, or a little less or more, or very much.
fn near_len(len: usize, input: &mut Input<'_>) -> u32 {
    input.near(len as u64) as u32
}
