// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Inputs to begin with: what the device's own tests feed it with, in the form that each target
//! takes. They stand in `fuzz/corpus` too, for libFuzzer; `tests/replay.rs` keeps the two equal.

use virtio_fifo_protocol::virtio_fifo::CONTROL_QUEUE;
use virtio_fifo_protocol::virtio_fifo::CTRL_CLEAR;
use virtio_fifo_protocol::virtio_fifo::CTRL_GET_STATE;
use virtio_fifo_protocol::virtio_fifo::CtrlRequest;
use virtio_fifo_protocol::virtio_fifo::EVENT_QUEUE;
use virtio_fifo_protocol::virtio_fifo::TxHeader;
use virtio_fifo_protocol::virtio_fifo::rx_queue;
use virtio_fifo_protocol::virtio_fifo::tx_queue;

use crate::guest::DATA;
use crate::guest::LEN;
use crate::guest::START;
use crate::guest::avail;
use crate::guest::table;

/// A seed: its name and its bytes.
pub type Seed = (String, Vec<u8>);

/// The seeds of a target.
pub fn seeds(target: &str) -> Vec<Seed> {
    match target {
        "control" => control(),
        "fault" => numbered(FAULTS.iter().map(|text| text.as_bytes().to_vec())),
        "fifo" => fifo(),
        "queues" => queues(),
        "rings" => rings(),
        "spec" => numbered(SPECS.iter().map(|text| text.as_bytes().to_vec())),
        "wire" => wire(),
        _ => Vec::new(),
    }
}

const CONTROL: &[&str] = &[
    "{\"command\":\"status\"}\n{\"command\":\"metrics\",\"id\":1}\n",
    "{\"command\":\"push\",\"fifo\":0,\"text\":\"hello\",\"id\":\"a\"}\n{\"command\":\"pull\",\"fifo\":0}\n",
    "{\"command\":\"push\",\"fifo\":3,\"base64\":\"AP8=\"}\n{\"command\":\"pull\",\"fifo\":3,\"max\":1}\n",
    "{\"command\":\"clear\",\"fifo\":3}\n{\"command\":\"hangup\",\"fifo\":0,\"on\":false}\n",
    "{\"command\":\"watch\",\"fifos\":[0,3]}\n{\"command\":\"watch\"}\n",
    "{\"command\":\"explode\"}\n{\"command\":5}\n{}\n[]\nnull\n\n{\"command\":\"pull\"",
    "{\"command\":\"clear\",\"fifo\":65536}\n{\"command\":\"clear\",\"fifo\":-1,\"id\":1e300}\n",
    "{\"command\":\"push\",\"fifo\":0,\"text\":\"a\",\"base64\":\"YQ==\"}\n",
    "{\"command\":\"fault-add\",\"spec\":\"stall,p=2\"}\n{\"command\":\"fault-add\",\"spec\":\"slow,fifo=9\"}\n",
    "{\"command\":\"fault-add\",\"spec\":\"liar,seed=3\"}\n{\"command\":\"fault-list\"}\n{\"command\":\"fault-remove\",\"fault\":0}\n{\"command\":\"fault-clear\"}\n",
];

fn control() -> Vec<Seed> {
    let texts = CONTROL.iter().map(|text| text.as_bytes());
    // Lines that are too long, or nearly.
    let long: [&[u8]; 2] = [b"\xff\xff\n{}\n", b"\"\xff\"\n{\"\xff\":1}\n"];
    numbered(texts.chain(long).map(|text| [b"\x10", text].concat()))
}

const FAULTS: &[&str] = &[
    "drop-interrupt,fifo=0,p=0.1,count=5,after=200ms,for=2s,seed=7",
    "delay-interrupt,delay=1s,on=rx",
    "spurious-interrupt,every=100us",
    "credit-overrun,bytes=17,on=tx",
    "wrong-id,on=control,fifo=1",
    "stall,p=2",
    "stall,p=1e-3",
    "slow,delay=99999999999999999999s",
    "hang-up,count=0",
    "liar,seed=18446744073709551615",
    "short-transfer,p=0.5,p=0.5",
];

const SPECS: &[&str] = &[
    "loopback",
    "zero",
    "null,capacity=16M",
    "loopback,capacity=64K",
    "unix=/tmp/x",
    "unix=/tmp/a,,b,connect,capacity=1K",
    "unix=",
    "pty,link=/tmp/tty",
    "file=/tmp/out,input=/tmp/in",
    "file=a,connect",
    "pattern,seed=18446744073709551615",
    "pattern,seed=+1",
    "pty=1",
    "loopback=3",
    "loopback,",
    "loopback,depth=3",
    "loopback,capacity=1,capacity=2",
    "loopback,capacity=-1",
    "loopback,capacity=99999999999999999999",
    "16777216",
    "4194305K",
];

fn numbered(seeds: impl Iterator<Item = Vec<u8>>) -> Vec<Seed> {
    seeds
        .enumerate()
        .map(|(number, bytes)| (format!("seed-{number:02}"), bytes))
        .collect()
}

/// Each message with all bytes different.
fn wire() -> Vec<Seed> {
    numbered((0..6).map(|kind| (kind..kind + 60).collect()))
}

/// Steps as `fifo` reads them.
fn fifo() -> Vec<Seed> {
    const SEND: [u8; 4] = [0, 0, 0, 5];
    const RECEIVE: [u8; 3] = [3, 100, 255];
    const PUT: [u8; 2] = [5, 20];
    const TAKE: [u8; 3] = [9, 20, 0];
    const CLEAR: u8 = 6;
    const RESET: u8 = 7;
    const TELL: u8 = 8;
    let steps = |kind: u8, steps: &[&[u8]]| [&[kind, 7], steps.concat().as_slice()].concat();
    let late = [0, 0, 0, 9, 0];
    numbered(
        [
            steps(0, &[&SEND, &[0], &RECEIVE, &SEND, &[0], &RECEIVE]),
            steps(0, &[&SEND, &[0], &RECEIVE, &[RESET], &RECEIVE]),
            steps(0, &[&SEND, &[0], &[CLEAR], &SEND, &[0], &[TELL]]),
            // Over the limit, then failed, then reset.
            steps(2, &[&late, &[1], &SEND, &[0], &[0], &[RESET], &SEND]),
            steps(1, &[&[TELL], &SEND, &[0], &TAKE, &PUT, &RECEIVE, &[TELL]]),
            // Hang-up and return.
            steps(1, &[&[10, 1], &PUT, &[10, 3], &RECEIVE, &[10, 1], &PUT]),
            steps(
                3,
                &[&[TELL], &SEND, &[0], &[9, 3, 0], &[TELL], &[CLEAR], &TAKE],
            ),
        ]
        .into_iter(),
    )
}

/// Steps as `queues` reads them.
fn queues() -> Vec<Seed> {
    /// FIFO 0, right counters, 5 bytes, first part of the chain 16, no whim.
    const SEND: &[u8] = &[0, 0, 0, 0, 0, 5, b'h', b'e', b'l', b'l', b'o', 10, 16, 0];
    const POST: &[u8] = &[3, 100, 0, 40, 0];
    const POST_EVENT: &[u8] = &[5, 0, 60, 0];
    const GET_STATE: &[u8] = &[6, 0, 1, 0, 80, 0, 0, 0];
    const CLEAR: &[u8] = &[6, 0, 2, 0, 90, 0, 0, 0];
    const STOP_ALL: &[u8] = &[13, 0, 9];
    const GIVE: &[u8] = &[12, 20, 0, 3];
    let seed = |options: u8, steps: &[&[u8]]| [&[options], steps.concat().as_slice()].concat();
    numbered(
        [
            seed(0, &[GET_STATE, POST, SEND, POST, SEND]),
            seed(1, &[GET_STATE, POST_EVENT, SEND, POST, CLEAR, POST, SEND]),
            seed(0, &[POST, SEND, STOP_ALL, &[0], GET_STATE, POST, SEND]),
            seed(2, &[SEND, STOP_ALL, &[1], POST, SEND, CLEAR]),
            seed(0, &[GIVE, &[3, 3, 100, 40, 0], &[12, 20, 1, 3]]),
            // Buffers that end behind memory, for data and for an event.
            seed(
                0,
                &[
                    SEND,
                    &[3, 0, 100, 0xfc, 0],
                    &[1, 0, 0, 9],
                    &[5, 0, 0xfc, 0],
                    POST,
                ],
            ),
            // An indirect chain; zeros; memory that goes away for a while.
            seed(0, &[&[7, 0, 2, 40, 20, 1, 1, 50, 20, 0, 0, 0, 3], POST]),
            seed(0, &[&[3, 1, 100, 40, 0], &[15, 0, 0, 16, 1, 4], SEND]),
            seed(
                1,
                &[
                    SEND,
                    &[9, 3, 255, 255],
                    &[10, 3, 77, 0],
                    SEND,
                    STOP_ALL,
                    &[0],
                    SEND,
                ],
            ),
        ]
        .into_iter(),
    )
}

/// Memory as `rings` takes it, and the chains that `device/tests/device/hostile.rs` knows.
struct Image(Vec<u8>);

impl Image {
    const TX: u16 = tx_queue(0);

    fn new() -> Self {
        Self(vec![0; (DATA - START + 0x400) as usize])
    }

    fn put(mut self, at: u64, bytes: &[u8]) -> Self {
        let at = (at - START) as usize;
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn descriptor(self, table: u64, index: u16, at: u64, len: u32, flags: u16, next: u16) -> Self {
        let to = table + 16 * u64::from(index);
        self.put(to, &at.to_le_bytes())
            .put(to + 8, &len.to_le_bytes())
            .put(to + 12, &flags.to_le_bytes())
            .put(to + 14, &next.to_le_bytes())
    }

    /// Makes descriptor 0 of a queue available.
    fn available(self, queue: u16) -> Self {
        self.put(avail(queue) + 2, &1_u16.to_le_bytes())
    }

    fn buffer(self, queue: u16, at: u64, len: u32, flags: u16) -> Self {
        self.descriptor(table(queue), 0, at, len, flags, 0)
            .available(queue)
    }

    fn kicked(self, kicks: &[u8]) -> Vec<u8> {
        let used = self.0.iter().rposition(|byte| *byte != 0);
        let head = [3, kicks.len() as u8];
        let memory = &self.0[..used.map_or(0, |last| last + 1)];
        [&head, kicks, memory].concat()
    }
}

fn rings() -> Vec<Seed> {
    const TX: u16 = Image::TX;
    const INDIRECT: u16 = 4;
    let header = TxHeader {
        offset: 0,
        rx_consumed: 0,
    };
    let message = [&header.to_bytes(), b"hello".as_slice()].concat();
    let sent = || Image::new().put(DATA, &message).buffer(TX, DATA, 21, 0);
    let request = |kind| CtrlRequest {
        kind,
        fifo: 0,
        tx_sent: 5,
    };
    let asked = |kind| {
        let queue = table(CONTROL_QUEUE);
        sent()
            .put(DATA + 64, &request(kind).to_bytes())
            .descriptor(queue, 0, DATA + 64, 16, 1, 1)
            .descriptor(queue, 1, DATA + 128, 56, 2, 0)
            .available(CONTROL_QUEUE)
    };
    let table_of = |len| sent().buffer(TX, DATA + 0x100, len, INDIRECT);
    let inner = DATA + 0x100;
    numbered(
        [
            sent()
                .buffer(rx_queue(0), DATA + 0x80, 100, 2)
                .kicked(&[3, 2]),
            sent()
                .buffer(EVENT_QUEUE, DATA + 0x80, 48, 2)
                .kicked(&[1, 3]),
            asked(CTRL_GET_STATE).kicked(&[0]),
            asked(CTRL_CLEAR).kicked(&[0, 3]),
            Image::new().buffer(rx_queue(1), DATA, 60, 2).kicked(&[4]),
            // Two descriptors that point at each other, one at itself, one at none.
            sent()
                .descriptor(table(TX), 0, DATA, 8, 1, 1)
                .descriptor(table(TX), 1, DATA, 8, 1, 0)
                .kicked(&[3]),
            sent().descriptor(table(TX), 0, DATA, 8, 1, 0).kicked(&[3]),
            sent()
                .descriptor(table(TX), 0, DATA, 8, 1, 0xffff)
                .kicked(&[3]),
            // Below, around the end of, and above memory; around the end of addresses.
            sent().buffer(TX, START - 1, 64, 0).kicked(&[3]),
            sent().buffer(TX, START + LEN - 8, 64, 0).kicked(&[3]),
            sent().buffer(TX, u64::MAX - 8, 64, 0).kicked(&[3]),
            sent().buffer(TX, START, u32::MAX, 0).kicked(&[3]),
            // Indirect: right, of no whole number of descriptors, in itself, looping.
            table_of(32)
                .descriptor(inner, 0, DATA, 16, 1, 1)
                .descriptor(inner, 1, DATA + 16, 5, 0, 0)
                .kicked(&[3]),
            table_of(17)
                .descriptor(inner, 0, DATA, 21, 0, 0)
                .kicked(&[3]),
            table_of(16)
                .descriptor(inner, 0, inner, 16, INDIRECT, 0)
                .kicked(&[3]),
            table_of(16)
                .descriptor(inner, 0, DATA, 21, 1, 0)
                .kicked(&[3]),
            // The device's buffer is its own ring.
            Image::new()
                .buffer(rx_queue(1), avail(rx_queue(1)), 60, 2)
                .kicked(&[4, 4]),
            // Far more available than there are entries, and a head that does not exist.
            sent().put(avail(TX) + 2, &[9, 0]).kicked(&[3]),
            sent().put(avail(TX) + 4, &[8, 0]).kicked(&[3]),
        ]
        .into_iter(),
    )
}
