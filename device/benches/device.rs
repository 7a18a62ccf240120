// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device alone: what it moves over a real socket and real rings, with neither QEMU nor a guest
//! around it, beside `memcpy` on the same machine.
//!
//! `receive` and `echo` have a peer at a UNIX socket: from it to the driver, and there and back.
//!
//! `status` is about the event loop: how long the control socket takes to answer beside 31 FIFOs that are flooded (goal: 50 ms).
//!
//! ```text
//! cargo bench -p vhost-device-fifo [-- loopback]
//! ```
//! The driver's part is as little as can be: buffers and descriptors are made once, and for each message
//! only its header and its place in the available ring are written. A window of messages is made available
//! at once; an iteration is one window. The driver looks for its end for a while, as the guest's does, before it asks
//! for an interrupt; in `round-trip` it asks at once. `memcpy` copies as many pieces of the same size between areas
//! of the same size.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a benchmark fails as a test does"
)]

#[expect(dead_code, reason = "the tests need more of it")]
#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::time::Instant;

use common::Driver;
use common::Host;
use common::Part;
use criterion::BenchmarkId;
use criterion::Criterion;
use criterion::Throughput;
use criterion::criterion_group;
use criterion::criterion_main;
use virtio_fifo_protocol::virtio_fifo::CONTROL_QUEUE;
use virtio_fifo_protocol::virtio_fifo::EVENT_QUEUE;
use virtio_fifo_protocol::virtio_fifo::MAX_FIFOS;
use virtio_fifo_protocol::virtio_fifo::RxHeader;
use virtio_fifo_protocol::virtio_fifo::TxHeader;
use virtio_fifo_protocol::virtio_fifo::rx_queue;
use virtio_fifo_protocol::virtio_fifo::tx_queue;

/// Bytes of a message's payload, and how many are under way at a time: within guest memory and the rings.
const CASES: [(usize, u16); 4] = [(64, 64), (4096, 64), (65536, 32), (1 << 20, 4)];
/// As long as the guest's driver looks for data, at most.
const PATIENCE: Duration = Duration::from_micros(300);
/// Bytes of a line of the cache.
const LINE: u32 = 64;

/// A message that is sent again and again, or a buffer that is posted again and again.
#[derive(Clone, Copy)]
struct Slot {
    head: u16,
    part: Part,
}

/// Messages and buffers for windows, on a FIFO of its own device that holds one window.
struct Window {
    driver: Driver,
    payload: u64,
    tx: Vec<Slot>,
    rx: Vec<Slot>,
    /// Has no payload: reports what was consumed.
    report: Slot,
    reported: bool,
    /// How long to look for what the device has used before sleeping.
    patience: Duration,
    _host: Host,
}

impl Window {
    fn new(kind: &str, payload: usize, count: u16) -> Self {
        let capacity = payload * usize::from(count);
        let host = Host::new(&[&format!("{kind},capacity={capacity}")]);
        let mut driver = host.driver();
        let (lead, room) = (TxHeader::LEN as u32, (TxHeader::LEN + payload) as u32);
        let tx = slots(&mut driver, tx_queue(0), count, |driver| {
            let part = aligned(driver.readable(&vec![0x5a; (room + LINE) as usize]), lead);
            Part { len: room, ..part }
        });
        let (lead, room) = (RxHeader::LEN as u32, (RxHeader::LEN + payload) as u32);
        let rx = slots(&mut driver, rx_queue(0), count, |driver| {
            let part = aligned(driver.writable(room + LINE), lead);
            Part { len: room, ..part }
        });
        let report = slots(&mut driver, tx_queue(0), 1, |driver| {
            driver.readable(&[0; TxHeader::LEN])
        })[0];
        Self {
            driver,
            payload: payload as u64,
            tx,
            rx,
            report,
            reported: false,
            patience: PATIENCE,
            _host: host,
        }
    }

    /// The driver has something to send.
    fn send(&mut self, count: usize) {
        for slot in &self.tx[..count] {
            let header = self.driver.tx_header(0).to_bytes();
            self.driver.write(slot.part.at, &header);
            self.driver.make_available(tx_queue(0), slot.head);
            self.driver.streams[0].sent += self.payload;
        }
        self.driver.notify(tx_queue(0));
    }

    /// The driver has room.
    fn post(&mut self, count: usize) {
        for slot in &self.rx[..count] {
            self.driver.make_available(rx_queue(0), slot.head);
        }
        self.driver.notify(rx_queue(0));
    }

    fn wait(&mut self, queue: u16, count: usize) {
        let began = Instant::now();
        while usize::from(self.driver.used_count(queue)) < count && began.elapsed() < self.patience
        {
            std::hint::spin_loop();
        }
        for left in (0..count).rev() {
            while self.driver.used_entry(queue).is_none() {
                let end = self.driver.seen(queue).wrapping_add(left as u16);
                self.driver.set_used_event(queue, end);
                if self.driver.used_count(queue) as usize <= left {
                    self.driver.wait_interrupt(queue);
                }
            }
        }
    }

    fn consume(&mut self, count: usize) {
        self.driver.streams[0].consumed += self.payload * count as u64;
    }

    /// In and out again.
    fn loopback(&mut self, count: usize) {
        self.post(count);
        self.send(count);
        self.wait(rx_queue(0), count);
        self.wait(tx_queue(0), count);
        self.consume(count);
    }

    /// To a FIFO without an end.
    fn discard(&mut self) {
        let count = self.tx.len();
        self.send(count);
        self.wait(tx_queue(0), count);
    }

    /// From a FIFO that makes bytes up. What was consumed is reported, or there would soon be no more; that the
    /// device has heard of it need not be waited for.
    fn generate(&mut self) {
        let count = self.rx.len();
        self.post(count);
        self.wait(rx_queue(0), count);
        self.consume(count);
        if std::mem::replace(&mut self.reported, true) {
            self.wait(tx_queue(0), 1);
        }
        let header = self.driver.tx_header(0).to_bytes();
        self.driver.write(self.report.part.at, &header);
        self.driver.make_available(tx_queue(0), self.report.head);
        self.driver.notify(tx_queue(0));
    }
}

/// Moved on so that what is behind a header of `lead` bytes begins with a line of the cache, as what memcpy
/// copies does, and as the pages of a large write do.
fn aligned(part: Part, lead: u32) -> Part {
    let behind = part.at + u64::from(lead);
    Part {
        at: behind.next_multiple_of(LINE.into()) - u64::from(lead),
        ..part
    }
}

fn slots(
    driver: &mut Driver,
    queue: u16,
    count: u16,
    mut part: impl FnMut(&mut Driver) -> Part,
) -> Vec<Slot> {
    (0..count)
        .map(|_| {
            let part = part(driver);
            let head = driver.take_descriptors(queue, 1)[0];
            driver.put_descriptor(driver.table(queue), head, part, 0, 0);
            Slot { head, part }
        })
        .collect()
}

fn throughput(
    criterion: &mut Criterion,
    name: &str,
    mut case: impl FnMut(usize, u16) -> Box<dyn FnMut()>,
) {
    let mut group = criterion.benchmark_group(name);
    for (payload, count) in CASES {
        group.throughput(Throughput::ElementsAndBytes {
            elements: count.into(),
            bytes: payload as u64 * u64::from(count),
        });
        let mut window = case(payload, count);
        group.bench_function(BenchmarkId::from_parameter(payload), |bencher| {
            bencher.iter(&mut window);
        });
    }
    group.finish();
}

fn memcpy(criterion: &mut Criterion) {
    throughput(criterion, "memcpy", |payload, count| {
        let from = vec![0x5a_u8; payload * usize::from(count)];
        let mut to = vec![0; from.len()];
        Box::new(move || {
            for (to, from) in to.chunks_exact_mut(payload).zip(from.chunks_exact(payload)) {
                black_box(to).copy_from_slice(black_box(from));
            }
        })
    });
}

fn loopback(criterion: &mut Criterion) {
    throughput(criterion, "loopback", |payload, count| {
        let mut window = Window::new("loopback", payload, count);
        Box::new(move || window.loopback(count.into()))
    });
}

fn null(criterion: &mut Criterion) {
    throughput(criterion, "null", |payload, count| {
        let mut window = Window::new("null", payload, count);
        Box::new(move || window.discard())
    });
}

fn zero(criterion: &mut Criterion) {
    throughput(criterion, "zero", |payload, count| {
        let mut window = Window::new("zero", payload, count);
        Box::new(move || window.generate())
    });
}

/// One message at a time: what waking the device and being woken by it cost.
fn round_trip(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("round-trip");
    let mut window = Window::new("loopback", 64, 1);
    window.patience = Duration::ZERO;
    group.bench_function(BenchmarkId::from_parameter(64), |bencher| {
        bencher.iter(|| window.loopback(1));
    });
    group.finish();
}

/// A driver that receives what a peer sends through a UNIX socket, as the guest's does: all buffers are posted, and what
/// was consumed is reported once it is half of the FIFO.
struct Receiver {
    driver: Driver,
    peer: UnixStream,
    /// Consumed and not reported.
    unreported: u64,
    report: Slot,
    reported: bool,
    host: Host,
}

impl Receiver {
    /// Bytes that each direction holds.
    const CAPACITY: u32 = 1 << 20;
    /// Payload of a buffer.
    const BUFFER: u32 = 1 << 16;

    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peer.sock");
        let spec = format!("unix={},capacity={}", path.display(), Self::CAPACITY);
        let host = Host::new(&[&spec]);
        let peer = UnixStream::connect(&path).unwrap();
        let mut driver = host.driver();
        let room = RxHeader::LEN as u32 + Self::BUFFER;
        let count = (Self::CAPACITY / Self::BUFFER) as u16;
        let rx = slots(&mut driver, rx_queue(0), count, |driver| {
            driver.writable(room)
        });
        let report = slots(&mut driver, tx_queue(0), 1, |driver| {
            driver.readable(&[0; TxHeader::LEN + 4096])
        })[0];
        for slot in rx {
            driver.make_available(rx_queue(0), slot.head);
        }
        driver.notify(rx_queue(0));
        driver.wait_state(0, |state| state.tx_limit > 0);
        Self {
            driver,
            peer,
            unreported: 0,
            report,
            reported: false,
            host,
        }
    }

    /// The next used buffer: head and length.
    fn next(&mut self, queue: u16) -> (u32, u32) {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(used) = self.driver.used_entry(queue) {
                return used;
            }
            std::thread::yield_now();
        }
        loop {
            let seen = self.driver.seen(queue);
            self.driver.set_used_event(queue, seen);
            if let Some(used) = self.driver.used_entry(queue) {
                return used;
            }
            self.driver.wait_interrupt(queue);
        }
    }

    /// Sends `len` bytes, or none, and reports what was consumed.
    fn send(&mut self, len: u32) {
        if std::mem::replace(&mut self.reported, true) {
            self.next(tx_queue(0));
        }
        let part = Part {
            len: TxHeader::LEN as u32 + len,
            ..self.report.part
        };
        let (table, head) = (self.driver.table(tx_queue(0)), self.report.head);
        self.driver.put_descriptor(table, head, part, 0, 0);
        let header = self.driver.tx_header(0).to_bytes();
        self.driver.write(part.at, &header);
        self.driver.make_available(tx_queue(0), head);
        self.driver.notify(tx_queue(0));
        self.driver.streams[0].sent += u64::from(len);
        self.unreported = 0;
    }

    fn receive(&mut self, bytes: u64) {
        let mut received = 0;
        while received < bytes {
            let (head, len) = self.next(rx_queue(0));
            let len = u64::from(len) - RxHeader::LEN as u64;
            received += len;
            self.driver.streams[0].consumed += len;
            self.unreported += len;
            self.driver.make_available(rx_queue(0), head as u16);
            self.driver.notify(rx_queue(0));
            if self.unreported >= u64::from(Self::CAPACITY / 2) {
                self.send(0);
            }
        }
    }
}

/// From a peer at a UNIX socket to the driver: 8 MiB an iteration, in writes of so many bytes.
fn receive(criterion: &mut Criterion) {
    const BYTES: u64 = 8 << 20;
    let mut group = criterion.benchmark_group("receive");
    group.throughput(Throughput::Bytes(BYTES));
    for write in [1 << 16, 1 << 20] {
        let mut receiver = Receiver::new();
        let mut peer = receiver.peer.try_clone().unwrap();
        let (start, begun) = std::sync::mpsc::channel::<()>();
        let writer = std::thread::spawn(move || {
            let bytes = vec![0x5a; write];
            for () in begun {
                for _ in 0..BYTES as usize / write {
                    peer.write_all(&bytes).unwrap();
                }
            }
        });
        group.bench_function(BenchmarkId::from_parameter(write), |bencher| {
            bencher.iter(|| {
                start.send(()).unwrap();
                receiver.receive(BYTES);
            });
        });
        drop(start);
        writer.join().unwrap();
        drop(receiver.host);
    }
    group.finish();
}

/// 4 KiB to a peer at a UNIX socket, and back.
fn echo(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("echo");
    let mut receiver = Receiver::new();
    let mut peer = receiver.peer.try_clone().unwrap();
    let echo = std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while peer.read_exact(&mut bytes).is_ok() {
            peer.write_all(&bytes).unwrap();
        }
    });
    group.bench_function(BenchmarkId::from_parameter(4096), |bencher| {
        bencher.iter(|| {
            receiver.send(4096);
            receiver.receive(4096);
        });
    });
    receiver.peer.shutdown(std::net::Shutdown::Both).unwrap();
    echo.join().unwrap();
    group.finish();
}

/// An answer of the control socket to `status`: of a device at rest, and of one whose guest keeps all queues full, with
/// chains that are refused at their first descriptor, and with long ones.
fn status(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("status");
    for (name, long) in [("rest", None), ("flood", Some(1)), ("flood-long", Some(32))] {
        let host = Host::with_control(&["null"; MAX_FIFOS as usize]);
        let mut driver = host.driver();
        let mut queues = vec![CONTROL_QUEUE, EVENT_QUEUE];
        for fifo in 0..MAX_FIFOS {
            driver.link_long(tx_queue(fifo), long.unwrap_or(1));
            queues.extend([tx_queue(fifo), rx_queue(fifo)]);
        }
        let mut client = BufReader::new(UnixStream::connect(host.control()).unwrap());
        client.read_line(&mut String::new()).unwrap();
        let flood = long.map(|_| driver.flood_all(&queues));
        let mut line = String::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let question = b"{\"command\":\"status\"}\n";
                client.get_mut().write_all(question).unwrap();
                line.clear();
                client.read_line(&mut line).unwrap();
            });
        });
        drop(flood);
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(40);
    targets = memcpy, loopback, null, zero, round_trip, receive, echo, status
}
criterion_main!(benches);
