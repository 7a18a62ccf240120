// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The driver's side of virtio-fifo, and a VMM's, in this process.
//!
//! [`Host`] serves a device on a real socket; [`Driver`] connects to it as QEMU would and has real
//! rings in shared memory. It follows the specification by default, notification suppression
//! included, and has raw access to the rings for the tests that do not. Every wait is for an
//! eventfd, with a limit that only a hang can reach.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::IntoRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::atomic::fence;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::memfd::MFdFlags;
use nix::sys::memfd::memfd_create;
use tempfile::TempDir;
use vhost::VhostBackend;
use vhost::VhostUserMemoryRegionInfo;
use vhost::VringConfigData;
use vhost::vhost_user::Frontend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost::vhost_user::message::VhostUserHeaderFlag;
use vhost_device_fifo::backend::FEATURES;
use vhost_device_fifo::backend::PROTOCOL_FEATURES;
use vhost_device_fifo::control::Control;
use vhost_device_fifo::control::Service;
use vhost_device_fifo::device::Device;
use vhost_device_fifo::fault::FaultId;
use vhost_device_fifo::fifo::ResetPolicy;
use vhost_device_fifo::host;
use vhost_device_fifo::refusal::Refusal;
use vhost_device_fifo::server::Server;
use vhost_device_fifo::server::ServerError;
use vhost_device_fifo::server::StopHandle;
use vhost_device_fifo::server::Until;
use vhost_device_fifo::socket::Listening;
use vhost_device_fifo::spec::DEFAULT_CAPACITY;
use vhost_device_fifo::spec::PartialSpec;
use virtio_fifo_protocol::virtio_fifo::CONTROL_QUEUE;
use virtio_fifo_protocol::virtio_fifo::CTRL_CLEAR;
use virtio_fifo_protocol::virtio_fifo::CTRL_GET_STATE;
use virtio_fifo_protocol::virtio_fifo::CTRL_OK;
use virtio_fifo_protocol::virtio_fifo::CtrlRequest;
use virtio_fifo_protocol::virtio_fifo::CtrlResponse;
use virtio_fifo_protocol::virtio_fifo::EVENT_QUEUE;
use virtio_fifo_protocol::virtio_fifo::RxHeader;
use virtio_fifo_protocol::virtio_fifo::State;
use virtio_fifo_protocol::virtio_fifo::TxHeader;
use virtio_fifo_protocol::virtio_fifo::num_queues;
use virtio_fifo_protocol::virtio_fifo::rx_queue;
use virtio_fifo_protocol::virtio_fifo::tx_queue;
use vm_memory::Bytes;
use vm_memory::FileOffset;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EFD_NONBLOCK;
use vmm_sys_util::eventfd::EventFd;

/// Only a hang takes this long.
const PATIENCE_MS: u16 = 20_000;

/// Feature bits by name, for tests that leave some out.
pub const EVENT_IDX: u64 = 1 << 29;
/// As above.
pub const INDIRECT_DESC: u64 = 1 << 28;

/// Where guest memory begins and how much there is.
pub const RAM_START: u64 = 0x10_0000;
/// As above.
pub const RAM_LEN: u64 = 16 << 20;
/// QEMU's address of guest address 0: any number, but not 0.
const VMM_OFFSET: u64 = 0x7000_0000_0000;
/// Space for the rings of one queue: descriptors, then available ring, then used ring.
const RINGS_LEN: u64 = 0x8000;
const AVAIL_OFFSET: u64 = 0x4000;
const USED_OFFSET: u64 = 0x6000;
/// Where the rings end and buffers begin.
const BUFFERS: u64 = RAM_START + 64 * RINGS_LEN;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// A device that is being served.
pub struct Host {
    pub device: Arc<Device>,
    /// As [`host::Outside::ptys`].
    pub ptys: Vec<(u16, PathBuf)>,
    path: PathBuf,
    stop: StopHandle,
    thread: Option<JoinHandle<Result<(), ServerError>>>,
    _dir: TempDir,
}

impl Host {
    pub fn new(specs: &[&str]) -> Self {
        Self::with_reset(specs, ResetPolicy::Keep)
    }

    pub fn with_reset(specs: &[&str], reset: ResetPolicy) -> Self {
        Self::build(specs, reset, |_, _, _| {})
    }

    /// With a control socket, at [`Host::control`].
    pub fn with_control(specs: &[&str]) -> Self {
        Self::build(specs, ResetPolicy::Keep, |server, device, dir| {
            let listening = Listening::bind(&dir.join("control.sock")).unwrap();
            let service = Service::new(Arc::clone(device));
            server.add(Box::new(Control::new(service, listening).unwrap()));
        })
    }

    fn build(
        specs: &[&str],
        reset: ResetPolicy,
        add: impl FnOnce(&mut Server, &Arc<Device>, &Path),
    ) -> Self {
        let specs: Vec<_> = specs
            .iter()
            .map(|spec| {
                spec.parse::<PartialSpec>()
                    .unwrap()
                    .with_default(DEFAULT_CAPACITY)
            })
            .collect();
        let device = Arc::new(Device::new(&specs, reset).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo.sock");
        let listening = Listening::bind(&path).unwrap();
        let outside = host::open(&device, &specs).unwrap();
        let (mut server, stop) =
            Server::new(Arc::clone(&device), 1024, listening, Until::Stopped).unwrap();
        for subscriber in outside.subscribers {
            server.add(subscriber);
        }
        add(&mut server, &device, dir.path());
        Self {
            device,
            ptys: outside.ptys,
            path,
            stop,
            thread: Some(std::thread::spawn(|| server.run())),
            _dir: dir,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn control(&self) -> PathBuf {
        self.path.with_file_name("control.sock")
    }

    /// A driver that has initialised the device as section 5 of the specification has it.
    pub fn driver(&self) -> Driver {
        self.driver_with(FEATURES)
    }

    pub fn driver_with(&self, features: u64) -> Driver {
        let mut driver = Driver::connect(&self.path, self.device.num_fifos(), features);
        driver.start(&[]);
        driver.init();
        driver
    }

    /// Adds a fault.
    pub fn fault(&self, spec: &str) -> FaultId {
        self.device.faults().add(&spec.parse().unwrap()).unwrap()
    }

    /// How often a fault has struck, all of them together.
    pub fn strikes(&self) -> u64 {
        let faults = self.device.faults().list();
        faults.iter().map(|fault| fault.strikes).sum()
    }

    pub fn refused(&self, fifo: u16, reason: Refusal) -> u64 {
        self.device.fifo(fifo).unwrap().refusals().count(reason)
    }

    /// Waits until something was refused for `reason` that belongs to no FIFO.
    pub fn wait_refused(&self, reason: Refusal) {
        let deadline = Instant::now() + Duration::from_millis(PATIENCE_MS.into());
        while self.device.refused(reason) == 0 {
            assert!(Instant::now() < deadline, "nothing was refused");
            std::thread::yield_now();
        }
    }

    /// Every refusal so far, of all queues.
    pub fn all_refused(&self) -> u64 {
        let fifos = 0..self.device.num_fifos();
        let of_fifos: u64 = fifos
            .map(|fifo| {
                let fifo = self.device.fifo(fifo).unwrap();
                fifo.refusals()
                    .counts()
                    .map(|(_, count)| count)
                    .sum::<u64>()
            })
            .sum();
        let others: u64 = Refusal::ALL
            .into_iter()
            .map(|reason| self.device.refused(reason))
            .sum();
        of_fifos + others
    }

    pub fn end(mut self) -> Result<(), ServerError> {
        self.stop.stop().unwrap();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.stop.stop().unwrap();
            let result = thread.join();
            if !std::thread::panicking() {
                result.unwrap().unwrap();
            }
        }
    }
}

/// One descriptor to be.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub at: u64,
    pub len: u32,
    pub write: bool,
}

/// The driver's side of one virtqueue.
struct Queue {
    size: u16,
    rings: u64,
    kick: EventFd,
    call: EventFd,
    avail: u16,
    /// What is made available does not show in the ring's index yet.
    held: bool,
    /// `avail` when the device was last told.
    told: u16,
    used: u16,
    free: Vec<u16>,
    chains: HashMap<u16, Vec<u16>>,
}

impl Queue {
    fn new(index: u16, size: u16) -> Self {
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

    fn at(&self, offset: u64) -> GuestAddress {
        GuestAddress(self.rings + offset)
    }
}

/// What the driver knows of the streams of one FIFO.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stream {
    /// Tx bytes sent.
    pub sent: u64,
    /// Rx bytes received.
    pub received: u64,
    /// Rx bytes the application has taken, whether reported or not.
    pub consumed: u64,
    /// The highest `tx_limit` heard of.
    pub tx_limit: u64,
}

/// A VMM and a driver.
pub struct Driver {
    frontend: Frontend,
    ram: GuestMemoryMmap<()>,
    file: Arc<File>,
    queues: Vec<Queue>,
    features: u64,
    num_fifos: u16,
    next_buffer: u64,
    /// Rx buffers posted, by queue and head.
    posted: HashMap<(u16, u16), (u64, u32)>,
    pub streams: Vec<Stream>,
}

impl Driver {
    /// Connects and shares memory; no queue is started yet.
    pub fn connect(path: &Path, num_fifos: u16, features: u64) -> Self {
        let count = num_queues(num_fifos);
        let mut frontend = Frontend::connect(path, count.into()).unwrap();
        frontend.set_owner().unwrap();
        assert_eq!(frontend.get_features().unwrap(), FEATURES);
        frontend.set_features(features).unwrap();
        let protocol = frontend.get_protocol_features().unwrap();
        assert_eq!(protocol, PROTOCOL_FEATURES);
        frontend.set_protocol_features(protocol).unwrap();
        // From here on every message is answered: what a test has asked for has happened.
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        assert_eq!(frontend.get_queue_num().unwrap(), u64::from(count));
        let file = Arc::new(File::from(
            memfd_create("guest", MFdFlags::MFD_CLOEXEC).unwrap(),
        ));
        file.set_len(RAM_LEN).unwrap();
        let ram = GuestMemoryMmap::from_ranges_with_files([(
            GuestAddress(RAM_START),
            RAM_LEN as usize,
            Some(FileOffset::from_arc(Arc::clone(&file), 0)),
        )])
        .unwrap();
        let mut driver = Self {
            frontend,
            ram,
            file,
            queues: (0..count).map(|index| Queue::new(index, 128)).collect(),
            features,
            num_fifos,
            next_buffer: BUFFERS,
            posted: HashMap::new(),
            streams: vec![Stream::default(); num_fifos.into()],
        };
        driver.share_memory();
        driver
    }

    /// Sends the memory table, as QEMU does whenever it changes.
    pub fn share_memory(&mut self) {
        self.share_memory_of(RAM_START, RAM_LEN);
    }

    /// Shares a part of memory, and takes back the rest.
    pub fn share_memory_of(&mut self, start: u64, len: u64) {
        self.frontend
            .set_mem_table(&[VhostUserMemoryRegionInfo {
                guest_phys_addr: start,
                memory_size: len,
                userspace_addr: VMM_OFFSET + start,
                mmap_offset: start - RAM_START,
                mmap_handle: self.file.as_raw_fd(),
            }])
            .unwrap();
    }

    /// Starts all queues from `bases`, or anew where there is none.
    pub fn start(&mut self, bases: &[u16]) {
        for index in 0..self.queues.len() {
            let queue = &self.queues[index];
            let vmm = VMM_OFFSET + queue.rings;
            self.frontend.set_vring_num(index, queue.size).unwrap();
            let base = bases.get(index).copied().unwrap_or_default();
            self.frontend.set_vring_base(index, base).unwrap();
            self.frontend
                .set_vring_addr(
                    index,
                    &VringConfigData {
                        queue_max_size: queue.size,
                        queue_size: queue.size,
                        desc_table_addr: vmm,
                        avail_ring_addr: vmm + AVAIL_OFFSET,
                        used_ring_addr: vmm + USED_OFFSET,
                        ..VringConfigData::default()
                    },
                )
                .unwrap();
            self.frontend.set_vring_kick(index, &queue.kick).unwrap();
            self.frontend.set_vring_call(index, &queue.call).unwrap();
        }
        for index in 0..self.queues.len() {
            self.frontend.set_vring_enable(index, true).unwrap();
        }
    }

    /// Stops all queues as QEMU does, for a reset or a pause; returns where they stood.
    pub fn stop(&mut self) -> Vec<u16> {
        let count = self.queues.len();
        for index in 0..count {
            self.frontend.set_vring_enable(index, false).unwrap();
        }
        (0..count)
            .map(|index| self.frontend.get_vring_base(index).unwrap() as u16)
            .collect()
    }

    /// Forgets all rings and starts them anew: what follows `stop` when the guest resets the
    /// device. The streams are for [`Driver::init`].
    pub fn start_anew(&mut self) {
        for index in 0..self.queues.len() {
            self.renew(index as u16);
        }
        self.posted.clear();
        self.start(&[]);
    }

    /// Forgets the rings of a queue that is stopped: it begins at index 0 again.
    pub fn renew(&mut self, queue: u16) {
        let index = usize::from(queue);
        let size = self.queues[index].size;
        let zeros = vec![0_u8; RINGS_LEN as usize];
        self.ram
            .write_slice(&zeros, self.queues[index].at(0))
            .unwrap();
        self.queues[index] = Queue::new(queue, size);
    }

    /// A device reset by a driver that has not reported what it consumed, then a new driver.
    pub fn reset(&mut self) {
        self.stop();
        self.start_anew();
        self.init();
    }

    /// DRV-4: asks for the state of every FIFO.
    pub fn init(&mut self) {
        for fifo in 0..self.num_fifos {
            let state = self.state(fifo);
            self.streams[usize::from(fifo)] = Stream {
                sent: state.tx_accepted,
                received: state.rx_floor,
                consumed: state.rx_floor,
                tx_limit: state.tx_limit,
            };
        }
    }

    pub fn config(&mut self, offset: u32, size: u32) -> Vec<u8> {
        let buffer = vec![0; size as usize];
        let flags = VhostUserConfigFlags::empty();
        let (_, bytes) = self
            .frontend
            .get_config(offset, size, flags, &buffer)
            .unwrap();
        bytes
    }

    /// A queue's size from the next start on.
    pub fn resize(&mut self, queue: u16, size: u16) {
        self.queues[usize::from(queue)] = Queue::new(queue, size);
    }

    // --- rings ---

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

    pub fn write(&self, at: u64, bytes: &[u8]) {
        self.ram.write_slice(bytes, GuestAddress(at)).unwrap();
    }

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

    /// Has the device wait for kicks of a queue at a descriptor that cannot be read.
    pub fn break_kick(&mut self, queue: u16) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        // A socket whose peer goes without reading what it was sent fails with ECONNRESET.
        std::io::Write::write_all(&mut &ours, b"unread").unwrap();
        let ours = OwnedFd::from(ours).into_raw_fd();
        // SAFETY: it was just given up by its owner.
        let broken = unsafe { EventFd::from_raw_fd(ours) };
        self.frontend
            .set_vring_kick(usize::from(queue), &broken)
            .unwrap();
        drop(theirs);
        // A queue that is started waits for the new descriptor once it is enabled again. The connection
        // may end before that is answered.
        let _ = self.frontend.set_vring_enable(usize::from(queue), true);
    }

    /// Waits until the device has ended the connection.
    pub fn wait_disconnected(&mut self) {
        let fd = self.frontend.as_raw_fd();
        // SAFETY: the frontend has it open for longer than this.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        let count = poll(&mut fds, PollTimeout::from(PATIENCE_MS)).unwrap();
        assert_eq!(count, 1, "still connected");
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

    // --- messages ---

    /// A control request; `None` if its chain was refused.
    pub fn try_control(&mut self, kind: u32, fifo: u32, tx_sent: u64) -> Option<CtrlResponse> {
        let request = CtrlRequest {
            kind,
            fifo,
            tx_sent,
        };
        let request = self.readable(&request.to_bytes());
        let response = self.writable(CtrlResponse::LEN as u32);
        self.add(CONTROL_QUEUE, &[request, response]);
        self.notify(CONTROL_QUEUE);
        let (_, used) = self.wait_used(CONTROL_QUEUE);
        if used == 0 {
            return None;
        }
        assert_eq!(used as usize, CtrlResponse::LEN);
        let bytes = self.read(response.at, CtrlResponse::LEN);
        Some(CtrlResponse::from_bytes(bytes.try_into().unwrap()))
    }

    pub fn control(&mut self, kind: u32, fifo: u32, tx_sent: u64) -> CtrlResponse {
        self.try_control(kind, fifo, tx_sent).expect("refused")
    }

    /// Returns when the worker has looked at everything announced before. A new memory table waits
    /// for the worker; the worker may have taken that before the kicks, but the second one only
    /// after the batch of events that they are in.
    pub fn barrier(&mut self) {
        self.share_memory();
        self.share_memory();
    }

    /// The state of a FIFO.
    pub fn state(&mut self, fifo: u16) -> State {
        let response = self.control(CTRL_GET_STATE, fifo.into(), 0);
        assert_eq!(response.status, CTRL_OK);
        response.state
    }

    /// Asks for the state of a FIFO until it is as wanted.
    pub fn wait_state(&mut self, fifo: u16, wanted: impl Fn(&State) -> bool) -> State {
        let deadline = Instant::now() + Duration::from_millis(PATIENCE_MS.into());
        loop {
            let state = self.state(fifo);
            if wanted(&state) {
                return state;
            }
            assert!(Instant::now() < deadline, "waited in vain: {state:?}");
            std::thread::yield_now();
        }
    }

    pub fn clear(&mut self, fifo: u16) -> State {
        let sent = self.streams[usize::from(fifo)].sent;
        let response = self.control(CTRL_CLEAR, fifo.into(), sent);
        assert_eq!(response.status, CTRL_OK);
        let stream = &mut self.streams[usize::from(fifo)];
        stream.consumed = response.state.rx_floor;
        stream.received = response.state.rx_floor;
        response.state
    }

    /// Makes a tx message available and waits for nothing.
    pub fn post_tx(&mut self, fifo: u16, header: TxHeader, payload: &[u8]) -> u16 {
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(payload);
        let part = self.readable(&bytes);
        self.add(tx_queue(fifo), &[part])
    }

    /// The header that the specification wants next.
    pub fn tx_header(&self, fifo: u16) -> TxHeader {
        let stream = self.streams[usize::from(fifo)];
        TxHeader {
            offset: stream.sent,
            rx_consumed: stream.consumed,
        }
    }

    /// Sends `payload` as one message, reports what was consumed, waits until it is accepted.
    pub fn send(&mut self, fifo: u16, payload: &[u8]) {
        self.post_tx(fifo, self.tx_header(fifo), payload);
        self.streams[usize::from(fifo)].sent += payload.len() as u64;
        self.notify(tx_queue(fifo));
        let (_, used) = self.wait_used(tx_queue(fifo));
        assert_eq!(used, 0, "used length of a tx buffer");
    }

    /// Sends a message as it is and waits until it is used.
    pub fn send_raw(&mut self, fifo: u16, header: TxHeader, payload: &[u8]) {
        self.post_tx(fifo, header, payload);
        self.notify(tx_queue(fifo));
        assert_eq!(self.wait_used(tx_queue(fifo)).1, 0);
    }

    /// Posts an rx buffer with room for `payload` bytes.
    pub fn post_rx(&mut self, fifo: u16, payload: u32) {
        let part = self.writable(RxHeader::LEN as u32 + payload);
        let head = self.add(rx_queue(fifo), &[part]);
        self.posted
            .insert((rx_queue(fifo), head), (part.at, part.len));
        self.notify(rx_queue(fifo));
    }

    /// Waits for the next rx message; its bytes count as consumed.
    pub fn receive(&mut self, fifo: u16) -> (RxHeader, Vec<u8>) {
        let used = self.wait_used(rx_queue(fifo));
        self.received(fifo, used)
    }

    /// The next rx message if there is one.
    pub fn try_receive(&mut self, fifo: u16) -> Option<(RxHeader, Vec<u8>)> {
        let used = self.used(rx_queue(fifo))?;
        Some(self.received(fifo, used))
    }

    fn received(&mut self, fifo: u16, (head, used): (u16, u32)) -> (RxHeader, Vec<u8>) {
        let (at, len) = self.posted.remove(&(rx_queue(fifo), head)).unwrap();
        // DEV-13: never an empty payload, never beyond the buffer.
        assert!(used as usize > RxHeader::LEN && used <= len, "{used}");
        let mut bytes = self.read(at, used as usize);
        let payload = bytes.split_off(RxHeader::LEN);
        let header = RxHeader::from_bytes(bytes.try_into().unwrap());
        let stream = &mut self.streams[usize::from(fifo)];
        // DEV-14
        assert_eq!(header.offset, stream.received, "offset of an rx message");
        stream.received += payload.len() as u64;
        stream.consumed = stream.received;
        // DEV-20
        assert!(header.tx_limit >= stream.tx_limit, "tx_limit decreased");
        stream.tx_limit = header.tx_limit;
        (header, payload)
    }

    /// Sends all of `bytes`, in pieces for which there is credit.
    pub fn send_all(&mut self, fifo: u16, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let sent = self.streams[usize::from(fifo)].sent;
            let state = self.wait_state(fifo, |state| state.tx_limit > sent);
            let len = (state.tx_limit - sent).min(bytes.len() as u64);
            let (now, later) = bytes.split_at(len as usize);
            self.send(fifo, now);
            bytes = later;
        }
    }

    /// Reads exactly `len` bytes, and reports them.
    pub fn read_exact(&mut self, fifo: u16, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let most = (len - bytes.len()).min(60_000);
            bytes.extend(self.read_some(fifo, most as u32));
            self.send(fifo, &[]);
        }
        bytes
    }

    /// Posts an rx buffer and waits for what comes in it.
    pub fn read_some(&mut self, fifo: u16, payload: u32) -> Vec<u8> {
        self.post_rx(fifo, payload);
        self.receive(fifo).1
    }

    /// Posts an event buffer.
    pub fn post_event(&mut self) {
        let part = self.writable(State::LEN as u32);
        let head = self.add(EVENT_QUEUE, &[part]);
        self.posted.insert((EVENT_QUEUE, head), (part.at, part.len));
        self.notify(EVENT_QUEUE);
    }

    pub fn wait_event(&mut self) -> State {
        let (head, used) = self.wait_used(EVENT_QUEUE);
        self.event(head, used)
    }

    /// The next event if there is one.
    pub fn try_event(&mut self) -> Option<State> {
        let (head, used) = self.used(EVENT_QUEUE)?;
        Some(self.event(head, used))
    }

    fn event(&mut self, head: u16, used: u32) -> State {
        assert_eq!(used as usize, State::LEN);
        let (at, _) = self.posted.remove(&(EVENT_QUEUE, head)).unwrap();
        State::from_bytes(self.read(at, State::LEN).try_into().unwrap())
    }

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

    /// As [`Driver::check_serves`] where the control queue is out of order.
    pub fn check_serves_without_control(&mut self, fifo: u16) {
        let bytes = format!("still here {fifo}").into_bytes();
        self.send(fifo, &bytes);
        assert_eq!(self.read_some(fifo, 100), bytes);
        self.send(fifo, &[]);
    }

    /// Proves that a FIFO serves: bytes go in and come out, and nothing is left.
    pub fn check_serves(&mut self, fifo: u16) {
        let bytes = format!("still here {fifo}").into_bytes();
        self.send(fifo, &bytes);
        assert_eq!(self.read_some(fifo, 100), bytes);
        self.send(fifo, &[]);
        let state = self.state(fifo);
        assert_eq!(state.rx_floor, state.rx_end);
    }
}

/// A thread that does something over and over until this is dropped.
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

/// Waits until `fd` can be read; fails after a time that only a hang takes.
pub fn wait_readable(fd: &impl AsRawFd, what: &str) {
    // SAFETY: the descriptor outlives the call, for it is borrowed.
    #[expect(unsafe_code, reason = "EventFd lends no BorrowedFd")]
    let fd = unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) };
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut fds, PollTimeout::from(PATIENCE_MS)).unwrap();
    assert_eq!(ready, 1, "waited in vain for {what}");
}
