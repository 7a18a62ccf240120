// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device and its queues in guest memory, without a VMM: what a wake-up of the queue worker sees.

use std::fs::File;
use std::sync::Arc;
use std::sync::LazyLock;

use vhost_device_fifo::device::Device;
use vhost_device_fifo::fifo::Fifo;
use vhost_device_fifo::fifo::ResetPolicy;
use vhost_device_fifo::mailbox::Mailbox;
use vhost_device_fifo::spec::FifoSpec;
use vhost_device_fifo::spec::PartialSpec;
use vhost_device_fifo::virtqueue::GuestRam;
use vhost_device_fifo::virtqueue::SharedRam;
use vhost_device_fifo::virtqueue::Vring;
use vhost_device_fifo::wake::Remembered;
use vhost_device_fifo::worker;
use vhost_device_fifo::worker::WakeSource;
use vhost_device_fifo::worker::Worker;
use vhost_user_backend::VringT;
use vm_memory::Bytes;
use vm_memory::GuestAddress;

/// The device's FIFOs. Nobody opens the socket: the targets are what is outside.
pub const SPECS: [&str; 4] = [
    "loopback,capacity=100",
    "zero,capacity=60",
    "pattern,capacity=1",
    "unix=nowhere,capacity=30",
];
/// Which of them ends outside.
pub const OUTSIDE: u16 = 3;
/// Control, event, and two for each FIFO.
pub const QUEUES: u16 = 2 + 2 * SPECS.len() as u16;
/// Entries of each queue.
pub const SIZE: u16 = 8;

/// Where memory starts: there is none below.
pub const START: u64 = 0x1000;
/// How much there is.
pub const LEN: u64 = 0x2000;

/// A queue's descriptor table, available ring and used ring, one after another …
const AVAIL: u64 = 16 * SIZE as u64;
const USED: u64 = AVAIL + 0x20;
/// … and where the next queue begins.
const STRIDE: u64 = USED + 0x60;

/// Where a queue's descriptor table is.
pub fn table(queue: u16) -> u64 {
    START + u64::from(queue) * STRIDE
}

/// Where a queue's available ring is.
pub fn avail(queue: u16) -> u64 {
    table(queue) + AVAIL
}

/// Where a queue's used ring is.
pub fn used(queue: u16) -> u64 {
    table(queue) + USED
}

/// The first byte behind the rings.
pub const DATA: u64 = START + QUEUES as u64 * STRIDE;

/// How often the worker may ask to be woken again; a guest whose buffers are its own rings could
/// keep it busy for ever, in turn with all others.
const MOST_WAKES: usize = 64;

/// A device, its queues and its worker.
pub struct Guest {
    pub device: Device,
    pub ram: SharedRam,
    vrings: Vec<Vring>,
    worker: Worker,
    mailbox: Arc<Mailbox>,
    mail: Arc<Remembered>,
}

impl Guest {
    /// All queues started, memory all 0.
    pub fn new(reset: ResetPolicy, event_idx: bool) -> Self {
        let specs = SPECS.map(spec);
        let device = Device::new(&specs, reset).expect("1 to 31 FIFOs");
        let ram = SharedRam::new(memory(LEN));
        let vrings = (0..QUEUES)
            .map(|queue| vring(&ram, queue, event_idx))
            .collect();
        let mail = Arc::new(Remembered::default());
        let mailbox = Arc::new(Mailbox::new(mail.clone()));
        device.set_worker(Some(Arc::clone(&mailbox)));
        Self {
            worker: Worker::new(device.num_fifos()),
            device,
            ram,
            vrings,
            mailbox,
            mail,
        }
    }

    /// The driver kicks a queue.
    pub fn kick(&mut self, queue: u16) {
        self.run(WakeSource::Queue(queue));
        self.read_mail();
    }

    /// The host side of a FIFO has something to say.
    pub fn serve_fifo(&mut self, index: u16) {
        self.mailbox.serve_fifo(index);
        self.read_mail();
    }

    /// What faults have put off and is due happens now.
    pub fn resume(&mut self) {
        for due in self.device.faults().due() {
            self.device.resume(due);
        }
        self.read_mail();
    }

    /// The VMM stops queues as the framework does: not ready, then the backend, then no kick.
    pub fn stop(&mut self, queues: &[u16]) {
        for queue in queues {
            self.vring(*queue).set_queue_ready(false);
        }
        self.mailbox.stop_soon(queues.iter().copied());
        self.read_mail();
        for queue in queues {
            self.vring(*queue).set_kick(None);
        }
    }

    /// The VMM starts a queue where it says that the device stood.
    pub fn start(&mut self, queue: u16, base: u16) {
        let vring = self.vring(queue);
        vring.set_queue_next_avail(base);
        vring.set_queue_next_used(base);
        vring.set_kick(Some(nowhere()));
        vring.set_queue_ready(true);
        self.kick(queue);
    }

    /// Where the device stands in a queue.
    pub fn next_avail(&self, queue: u16) -> u16 {
        self.vring(queue).queue_next_avail()
    }

    /// The VMM enables or disables a queue.
    pub fn enable(&mut self, queue: u16, on: bool) {
        self.vring(queue).set_enabled(on);
        self.kick(queue);
    }

    /// The VMM takes part of memory away, or brings new.
    pub fn exchange_memory(&mut self, len: u64) {
        self.set_memory(memory(len));
    }

    pub fn set_memory(&mut self, memory: GuestRam) {
        self.ram.lock().expect("one thread").replace(memory);
    }

    /// What no driver may bring about.
    pub fn check(&self) {
        for index in 0..self.device.num_fifos() {
            check_levels(&self.device.fifo(index).expect("a FIFO"));
        }
    }

    fn vring(&self, queue: u16) -> &Vring {
        &self.vrings[usize::from(queue)]
    }

    fn read_mail(&mut self) {
        for _ in 0..MOST_WAKES {
            if !self.mail.take() {
                return;
            }
            self.run(WakeSource::Mail);
        }
    }

    fn run(&mut self, wake: WakeSource) {
        worker::run(
            wake,
            &self.device,
            &mut self.worker,
            &self.vrings,
            &self.ram,
            &self.mailbox,
        );
    }
}

/// The FIFO that a SPEC means.
pub fn spec(text: &str) -> FifoSpec {
    text.parse::<PartialSpec>().expect("a SPEC").with_default(1)
}

/// DEV-4, DEV-20 and DEV-26: no more in a FIFO than it holds.
pub fn check_levels(fifo: &Fifo) {
    let status = fifo.status();
    for traffic in [status.rx, status.tx] {
        assert!(traffic.level <= status.capacity, "{status:?}");
        assert_eq!(
            traffic.entered - traffic.left,
            traffic.level as u64,
            "{status:?}"
        );
    }
}

/// Writes to guest memory from `at` on, as far as there is any; returns how much that was.
pub fn write(ram: &GuestRam, at: u64, bytes: &[u8]) -> usize {
    ram.write(bytes, GuestAddress(at)).unwrap_or_default()
}

/// New memory, all 0.
pub fn memory(len: u64) -> GuestRam {
    let len = usize::try_from(len).expect("a small number");
    GuestRam::from_ranges(&[(GuestAddress(START), len)]).expect("memory")
}

fn vring(ram: &SharedRam, queue: u16, event_idx: bool) -> Vring {
    let vring = Vring::new(ram.clone(), SIZE).expect("a power of two");
    vring.set_queue_size(SIZE);
    vring
        .set_queue_info(table(queue), avail(queue), used(queue))
        .expect("aligned addresses");
    vring.set_queue_event_idx(event_idx);
    vring.set_kick(Some(nowhere()));
    vring.set_call(Some(nowhere()));
    vring.set_enabled(true);
    vring.set_queue_ready(true);
    vring
}

/// An event that nobody waits for.
fn nowhere() -> File {
    static NULL: LazyLock<File> = LazyLock::new(|| {
        let mut options = File::options();
        let opened = options.read(true).write(true).open("/dev/null");
        opened.expect("/dev/null")
    });
    NULL.try_clone().expect("a descriptor")
}
