// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The VMM's part: connection, memory, start and stop of queues. Knows no message but those of initialisation.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::IntoRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::memfd::MFdFlags;
use nix::sys::memfd::memfd_create;
use vhost::VhostBackend;
use vhost::VhostUserMemoryRegionInfo;
use vhost::VringConfigData;
use vhost::vhost_user::Frontend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost::vhost_user::message::VhostUserHeaderFlag;
use virtio_fifo_protocol::virtio_fifo::num_queues;
use vm_memory::Bytes;
use vm_memory::FileOffset;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use crate::AVAIL_OFFSET;
use crate::BUFFERS;
use crate::PATIENCE_MS;
use crate::PROTOCOL_FEATURES;
use crate::RAM_LEN;
use crate::RAM_START;
use crate::RINGS_LEN;
use crate::Stream;
use crate::USED_OFFSET;
use crate::VMM_OFFSET;
use crate::queue::Queue;

/// A VMM and a driver. It follows the specification, notification suppression included, unless a test makes it do otherwise.
pub struct Driver {
    pub(crate) frontend: Frontend,
    pub(crate) ram: GuestMemoryMmap<()>,
    pub(crate) file: Arc<File>,
    pub(crate) queues: Vec<Queue>,
    offered: u64,
    pub(crate) features: u64,
    pub(crate) num_fifos: u16,
    pub(crate) next_buffer: u64,
    /// Rx buffers posted, by queue and head.
    pub(crate) posted: HashMap<(u16, u16), (u64, u32)>,
    /// What is known of the streams of each FIFO.
    pub streams: Vec<Stream>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("queues", &self.queues)
            .field("streams", &self.streams)
            .finish_non_exhaustive()
    }
}

impl Driver {
    /// Connects and shares memory; no queue is started yet.
    pub fn connect(path: &Path, num_fifos: u16, features: u64) -> Self {
        let count = num_queues(num_fifos);
        let mut frontend = Frontend::connect(path, count.into()).unwrap();
        frontend.set_owner().unwrap();
        let offered = frontend.get_features().unwrap();
        assert_eq!(offered & features, features, "features offered");
        frontend.set_features(features).unwrap();
        let protocol = frontend.get_protocol_features().unwrap();
        assert!(protocol.contains(PROTOCOL_FEATURES), "{protocol:?}");
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
            offered,
            features,
            num_fifos,
            next_buffer: BUFFERS,
            posted: HashMap::new(),
            streams: vec![Stream::default(); num_fifos.into()],
        };
        driver.share_memory();
        driver
    }

    /// Feature bits that the device offers.
    pub fn offered(&self) -> u64 {
        self.offered
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

    /// Bytes of configuration space.
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

    /// Has the device interrupt for a queue at an eventfd that is full, and blocks.
    pub fn block_interrupts(&mut self, queue: u16) {
        let full = EventFd::new(0).unwrap();
        full.write(u64::MAX - 1).unwrap();
        let index = usize::from(queue);
        self.frontend.set_vring_call(index, &full).unwrap();
        self.frontend.set_vring_enable(index, true).unwrap();
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
}
