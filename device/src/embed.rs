// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How to have the device in a program of your own, and a VMM to try it with.
//!
//! A device is three things: a [`Device`](crate::device::Device) with its FIFOs, what those end at
//! ([`host::open`](crate::host::open)), and a [`Server`](crate::server::Server) that serves it to one
//! VMM after another on the thread that runs it. The sandbox, signals and systemd are the program's
//! own affair: [`sandbox`](crate::sandbox), [`signals`](crate::signals) and [`systemd`](crate::systemd)
//! are what `vhost-device-fifo` has for them.
//!
//! The program below is both sides: a device on a thread, and a VMM with a driver in fewer than a hundred
//! lines. Instead of a guest it writes into the shared memory itself.
//!
//! ```
//! use std::error::Error;
//! use std::fs::File;
//! use std::os::fd::AsRawFd;
//! use std::sync::Arc;
//! use std::sync::atomic::Ordering;
//!
//! use nix::sys::memfd::{MFdFlags, memfd_create};
//! use vhost::vhost_user::message::VhostUserProtocolFeatures;
//! use vhost::vhost_user::{Frontend, Listener, VhostUserFrontend};
//! use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
//! use vhost_device_fifo::device::Device;
//! use vhost_device_fifo::fifo::ResetPolicy;
//! use vhost_device_fifo::host;
//! use vhost_device_fifo::server::{Server, Until};
//! use vhost_device_fifo::socket::Listening;
//! use vhost_device_fifo::spec::{DEFAULT_CAPACITY, PartialSpec};
//! use virtio_fifo_protocol::virtio_fifo::{
//!     CTRL_CLEAR, CTRL_OK, CtrlRequest, CtrlResponse, TxHeader, num_queues, tx_queue,
//! };
//! use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
//! use vmm_sys_util::eventfd::EventFd;
//!
//! /// Where guest memory is for QEMU, and how much there is.
//! const VMM: u64 = 0x7000_0000_0000;
//! const LEN: u64 = 1 << 20;
//! /// Queue `n` has its rings at `n << 14`; buffers are behind all of them.
//! const BUFFERS: u64 = 1 << 19;
//! const VERSION_1: u64 = 1 << 32;
//! const PROTOCOL_FEATURES: u64 = 1 << 30;
//!
//! struct Queue {
//!     rings: u64,
//!     kick: EventFd,
//!     call: EventFd,
//! }
//!
//! impl Queue {
//!     /// Makes one chain of buffers available, kicks, waits for the interrupt: the used length.
//!     fn request(&self, ram: &GuestMemoryMmap, parts: &[(u64, u32, u16)]) -> Result<u32, Box<dyn Error>> {
//!         for (index, (at, len, flags)) in (0_u16..).zip(parts) {
//!             let next = usize::from(index) + 1 < parts.len();
//!             let descriptor = GuestAddress(self.rings + 16 * u64::from(index));
//!             ram.write_obj(*at, descriptor)?;
//!             ram.write_obj(*len, GuestAddress(descriptor.0 + 8))?;
//!             ram.write_obj(flags | u16::from(next), GuestAddress(descriptor.0 + 12))?;
//!             ram.write_obj(index + 1, GuestAddress(descriptor.0 + 14))?;
//!         }
//!         // The ring's first entry is descriptor 0, as all of memory is 0.
//!         ram.store(1_u16, GuestAddress(self.rings + 0x1002), Ordering::Release)?;
//!         self.kick.write(1)?;
//!         self.call.read()?;
//!         Ok(ram.read_obj(GuestAddress(self.rings + 0x2008))?)
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn Error>> {
//!     // The device.
//!     let dir = tempfile::tempdir()?;
//!     let path = dir.path().join("fifo.sock");
//!     let specs = ["loopback".parse::<PartialSpec>()?.with_default(DEFAULT_CAPACITY)];
//!     let device = Arc::new(Device::new(&specs, ResetPolicy::Keep)?);
//!     let outside = host::open(&device, &specs)?;
//!     let listening = Listening::bind(&path)?;
//!     let (mut server, stop) = Server::new(Arc::clone(&device), 256, listening, Until::Stopped)?;
//!     for subscriber in outside.subscribers {
//!         server.add(subscriber);
//!     }
//!     let served = std::thread::spawn(|| server.run());
//!
//!     // The VMM: features, shared memory, queues.
//!     let mut vmm = Frontend::connect(&path, num_queues(1).into())?;
//!     vmm.set_owner()?;
//!     vmm.set_features(vmm.get_features()? & (VERSION_1 | PROTOCOL_FEATURES))?;
//!     let protocol = vmm.get_protocol_features()?;
//!     vmm.set_protocol_features(protocol & VhostUserProtocolFeatures::CONFIG)?;
//!     let file = Arc::new(File::from(memfd_create("guest", MFdFlags::MFD_CLOEXEC)?));
//!     file.set_len(LEN)?;
//!     let offset = Some(FileOffset::from_arc(Arc::clone(&file), 0));
//!     let ram = GuestMemoryMmap::from_ranges_with_files([(GuestAddress(0), LEN as usize, offset)])?;
//!     vmm.set_mem_table(&[VhostUserMemoryRegionInfo {
//!         guest_phys_addr: 0,
//!         memory_size: LEN,
//!         userspace_addr: VMM,
//!         mmap_offset: 0,
//!         mmap_handle: file.as_raw_fd(),
//!     }])?;
//!     let mut queues = Vec::new();
//!     for index in 0..usize::from(num_queues(1)) {
//!         let queue = Queue {
//!             rings: (index as u64) << 14,
//!             kick: EventFd::new(0)?,
//!             call: EventFd::new(0)?,
//!         };
//!         vmm.set_vring_num(index, 64)?;
//!         vmm.set_vring_base(index, 0)?;
//!         let config = VringConfigData {
//!             queue_max_size: 64,
//!             queue_size: 64,
//!             desc_table_addr: VMM + queue.rings,
//!             avail_ring_addr: VMM + queue.rings + 0x1000,
//!             used_ring_addr: VMM + queue.rings + 0x2000,
//!             ..VringConfigData::default()
//!         };
//!         vmm.set_vring_addr(index, &config)?;
//!         vmm.set_vring_call(index, &queue.call)?;
//!         vmm.set_vring_kick(index, &queue.kick)?;
//!         vmm.set_vring_enable(index, true)?;
//!         queues.push(queue);
//!     }
//!
//!     // The driver: writes five bytes, then empties the FIFO.
//!     let header = TxHeader { offset: 0, rx_consumed: 0 };
//!     ram.write_slice(&header.to_bytes(), GuestAddress(BUFFERS))?;
//!     ram.write_slice(b"hello", GuestAddress(BUFFERS + TxHeader::LEN as u64))?;
//!     let tx = &queues[usize::from(tx_queue(0))];
//!     assert_eq!(tx.request(&ram, &[(BUFFERS, TxHeader::LEN as u32 + 5, 0)])?, 0);
//!     assert_eq!(device.fifo(0).map(|fifo| fifo.status().rx.level), Some(5));
//!     let request = CtrlRequest { kind: CTRL_CLEAR, fifo: 0, tx_sent: 5 };
//!     ram.write_slice(&request.to_bytes(), GuestAddress(BUFFERS))?;
//!     let (answer, writable) = (BUFFERS + 4096, 2);
//!     let parts = [
//!         (BUFFERS, CtrlRequest::LEN as u32, 0),
//!         (answer, CtrlResponse::LEN as u32, writable),
//!     ];
//!     assert_eq!(queues[0].request(&ram, &parts)?, CtrlResponse::LEN as u32);
//!     let mut bytes = [0; CtrlResponse::LEN];
//!     ram.read_slice(&mut bytes, GuestAddress(answer))?;
//!     let response = CtrlResponse::from_bytes(bytes);
//!     assert_eq!((response.status, response.state.rx_floor), (CTRL_OK, 5));
//!
//!     drop(vmm);
//!     stop.stop()?;
//!     served.join().expect("the device has panicked")?;
//!     Ok(())
//! }
//! ```
