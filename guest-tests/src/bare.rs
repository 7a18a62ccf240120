// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The FIFO device without a driver: its registers and rings, driven from user space, so that a test can
//! put into the rings what no driver would.
//!
//! Knows virtio over PCI (virtio standard, section 4.1) and split rings (section 2.7), nothing of FIFOs.
//! Everything that the device can reach is one page each, locked, at an address that /proc/self/pagemap
//! tells.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc;

use crate::harness::{Skip, eventually};
use crate::system;

/// What the device is made of.
pub const PAGE: usize = 4096;

/// Descriptors in a ring.
pub const SIZE: u16 = 16;

/// Flags of a descriptor: it goes on at `next`; it is for the device to write; it is a table.
pub const NEXT: u16 = 1;
/// See [`NEXT`].
pub const WRITE: u16 = 2;
/// See [`NEXT`].
pub const INDIRECT: u16 = 4;

/// `VIRTIO_RING_F_INDIRECT_DESC`, `VIRTIO_RING_F_EVENT_IDX`, `VIRTIO_F_VERSION_1`.
pub const FEATURE_INDIRECT: u64 = 1 << 28;
/// See [`FEATURE_INDIRECT`].
pub const FEATURE_EVENT_INDEX: u64 = 1 << 29;
const FEATURE_VERSION_1: u64 = 1 << 32;

/// Device status: what a driver that is ready has said.
const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;

/// Where in a queue's page its rings are.
const AVAILABLE: usize = 1024;
const USED: usize = 2048;

/// Registers of `struct virtio_pci_common_cfg`.
mod common {
    pub const DEVICE_FEATURE_SELECT: usize = 0;
    pub const DEVICE_FEATURE: usize = 4;
    pub const DRIVER_FEATURE_SELECT: usize = 8;
    pub const DRIVER_FEATURE: usize = 12;
    pub const NUM_QUEUES: usize = 18;
    pub const DEVICE_STATUS: usize = 20;
    pub const QUEUE_SELECT: usize = 22;
    pub const QUEUE_SIZE: usize = 24;
    pub const QUEUE_ENABLE: usize = 28;
    pub const QUEUE_NOTIFY_OFF: usize = 30;
    pub const QUEUE_DESC: usize = 32;
    pub const QUEUE_DRIVER: usize = 40;
    pub const QUEUE_DEVICE: usize = 48;
}

/// Memory that somebody else changes too. Unmapped on drop.
#[derive(Debug)]
pub struct Memory {
    at: *mut u8,
    length: usize,
}

// SAFETY: An address; all access is volatile, and others change the memory anyhow.
unsafe impl Send for Memory {}
// SAFETY: As above.
unsafe impl Sync for Memory {}

impl Memory {
    fn map(length: usize, flags: i32, file: Option<&File>) -> Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let fd = file.map_or(-1, AsRawFd::as_raw_fd);
        // SAFETY: A new mapping, at an address that the kernel chooses.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, fd, 0) };
        if at == libc::MAP_FAILED {
            return Err(Errno::last()).context("mmap");
        }
        let at = at.cast();
        Ok(Self { at, length })
    }

    fn registers(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let length = usize::try_from(file.metadata()?.len())?;
        Self::map(length, libc::MAP_SHARED, Some(&file))
            .with_context(|| format!("mapping {}", path.display()))
    }

    fn place<T>(&self, offset: usize) -> *mut T {
        assert!(offset + size_of::<T>() <= self.length, "offset {offset}");
        assert!(offset.is_multiple_of(size_of::<T>()), "offset {offset}");
        // SAFETY: Within the mapping.
        unsafe { self.at.add(offset) }.cast()
    }

    /// Reads an integer; at a multiple of its size.
    pub fn read<T>(&self, offset: usize) -> T {
        // SAFETY: Valid and aligned; integers have no invalid values.
        unsafe { self.place::<T>(offset).read_volatile() }
    }

    /// Writes an integer; at a multiple of its size.
    pub fn write<T>(&self, offset: usize, value: T) {
        // SAFETY: Valid and aligned.
        unsafe { self.place::<T>(offset).write_volatile(value) };
    }

    /// Writes bytes.
    pub fn put(&self, offset: usize, bytes: &[u8]) {
        for (offset, byte) in (offset..).zip(bytes) {
            self.write(offset, *byte);
        }
    }

    /// Reads bytes.
    pub fn get(&self, offset: usize, length: usize) -> Vec<u8> {
        (offset..offset + length).map(|at| self.read(at)).collect()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: Our mapping, used by nobody else.
        unsafe { libc::munmap(self.at.cast(), self.length) };
    }
}

/// A page that the device can reach.
#[derive(Debug)]
pub struct Page {
    /// Its content.
    pub memory: Memory,
    /// Where the device finds it.
    pub address: u64,
}

impl Page {
    /// Zeroed.
    pub fn new() -> Result<Self> {
        // Else compaction moves locked pages, and the device would write to what is somebody else's.
        let compaction = "/proc/sys/vm/compact_unevictable_allowed";
        if fs::exists(compaction)? {
            system::write(compaction, "0")?;
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_LOCKED | libc::MAP_POPULATE;
        let memory = Memory::map(PAGE, flags, None)?;
        memory.write(0, 0u64);
        let mut entry = [0; 8];
        let index = memory.at.addr() as u64 / PAGE as u64;
        let pagemap = File::open("/proc/self/pagemap").context(Skip(
            "needs a kernel that tells where pages are (CONFIG_PROC_PAGE_MONITOR)",
        ))?;
        pagemap.read_exact_at(&mut entry, index * 8)?;
        let entry = u64::from_ne_bytes(entry);
        ensure!(entry >> 63 == 1, "the page is not in memory");
        let frame = entry & ((1 << 55) - 1);
        ensure!(
            frame != 0,
            "/proc/self/pagemap tells no addresses: root only"
        );
        let address = frame * PAGE as u64;
        Ok(Self { memory, address })
    }

    /// Zeroes it.
    pub fn clear(&self) {
        self.memory.put(0, &[0; PAGE]);
    }
}

/// A descriptor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Descriptor {
    /// Where its buffer is.
    pub address: u64,
    /// How long its buffer is.
    pub length: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`].
    pub flags: u16,
    /// Which comes next.
    pub next: u16,
}

impl Descriptor {
    /// As in a table.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let address = self.address.to_le_bytes();
        let length = self.length.to_le_bytes();
        let (flags, next) = (self.flags.to_le_bytes(), self.next.to_le_bytes());
        let fields = address.iter().chain(&length).chain(&flags).chain(&next);
        for (to, from) in bytes.iter_mut().zip(fields) {
            *to = *from;
        }
        bytes
    }
}

/// A queue with [`SIZE`] descriptors, all its rings in one page.
#[derive(Debug)]
pub struct Queue {
    /// The rings.
    pub page: Page,
    index: u16,
    notify: usize,
    available: u16,
}

impl Queue {
    /// Sets descriptor `index`.
    pub fn describe(&self, index: u16, descriptor: Descriptor) {
        let offset = usize::from(index) * 16;
        self.page.memory.put(offset, &descriptor.to_bytes());
    }

    /// Puts `head` into the available ring.
    pub fn offer(&mut self, head: u16) {
        self.set_head(usize::from(self.available % SIZE), head);
        self.available = self.available.wrapping_add(1);
        self.set_available(self.available);
    }

    /// Replaces an entry of the available ring.
    pub fn set_head(&self, slot: usize, head: u16) {
        self.page.memory.write(AVAILABLE + 4 + 2 * slot, head);
    }

    /// Replaces flags and link of a descriptor.
    pub fn relink(&self, index: usize, flags: u16, next: u16) {
        self.page.memory.write(16 * index + 12, flags);
        self.page.memory.write(16 * index + 14, next);
    }

    /// Sets the index of the available ring.
    pub fn set_available(&self, index: u16) {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.page.memory.write(AVAILABLE + 2, index);
    }

    /// Index of the used ring.
    pub fn used(&self) -> u16 {
        self.page.memory.read(USED + 2)
    }

    /// Used length in slot `slot` of the used ring.
    pub fn used_length(&self, slot: u16) -> u32 {
        self.page
            .memory
            .read(USED + 4 + 8 * usize::from(slot % SIZE) + 4)
    }

    /// Waits until the chain at `head` is used, after the first `from` chains; its used length.
    pub fn wait_used_head(&self, from: u16, head: u16) -> Result<u32> {
        let mut length = None;
        eventually(&format!("queue {} used chain {head}", self.index), || {
            let mut slot = from;
            while slot != self.used() && length.is_none() {
                let id: u32 = self
                    .page
                    .memory
                    .read(USED + 4 + 8 * usize::from(slot % SIZE));
                if id == u32::from(head) {
                    length = Some(self.used_length(slot));
                }
                slot = slot.wrapping_add(1);
            }
            Ok(length.is_some())
        })?;
        length.context("no length")
    }

    /// Waits until `count` chains have been used in all.
    pub fn wait_used(&self, count: u16) -> Result<()> {
        eventually(&format!("queue {} used {count} chains", self.index), || {
            Ok(self.used() == count)
        })
    }
}

/// The device.
#[derive(Debug)]
pub struct Device {
    pci: PathBuf,
    bar: Memory,
    common: usize,
    notify: usize,
    notify_multiplier: usize,
}

impl Device {
    /// Takes the device from its driver.
    pub fn take() -> Result<Self> {
        let pci = pci_folder()?;
        let name = pci.file_name().context("no name")?.to_string_lossy();
        let driver = pci.join("driver");
        if driver.exists() {
            system::write(&driver.join("unbind").to_string_lossy(), &name)?;
        }
        system::write(&pci.join("enable").to_string_lossy(), "1")?;
        // Memory and bus master; no interrupts, for nobody is there to serve them.
        set_command(&pci, 0x0406)?;
        let caps = Capabilities::of(&pci)?;
        let bar = Memory::registers(&pci.join(format!("resource{}", caps.bar)))?;
        Ok(Self {
            pci,
            bar,
            common: caps.common,
            notify: caps.notify,
            notify_multiplier: caps.notify_multiplier,
        })
    }

    /// Gives the device back to its driver.
    pub fn give_back(self) -> Result<()> {
        self.reset()?;
        let pci = self.pci.clone();
        // Unmaps the registers, and resets it once more: not under the driver's feet.
        drop(self);
        set_command(&pci, 0)?;
        system::write(&pci.join("enable").to_string_lossy(), "0")?;
        let name = pci.file_name().context("no name")?.to_string_lossy();
        system::write("/sys/bus/pci/drivers/virtio-pci/bind", &name)
    }

    fn common<T>(&self, register: usize) -> T {
        self.bar.read(self.common + register)
    }

    fn set_common<T>(&self, register: usize, value: T) {
        self.bar.write(self.common + register, value);
    }

    fn set_address(&self, register: usize, address: u64) {
        let [low, high] = halves(address);
        self.set_common(register, low);
        self.set_common(register + 4, high);
    }

    /// Resets it.
    pub fn reset(&self) -> Result<()> {
        self.set_common(common::DEVICE_STATUS, 0u8);
        eventually("the device is reset", || {
            Ok(self.common::<u8>(common::DEVICE_STATUS) == 0)
        })
    }

    /// Resets it and starts anew, with those of `features` that it offers; gives its queues, empty.
    pub fn start(&self, features: u64) -> Result<Vec<Queue>> {
        self.reset()?;
        self.set_common(common::DEVICE_STATUS, ACKNOWLEDGE | DRIVER);
        for (select, wanted) in (0u32..).zip(halves(features | FEATURE_VERSION_1)) {
            self.set_common(common::DEVICE_FEATURE_SELECT, select);
            let offered: u32 = self.common(common::DEVICE_FEATURE);
            self.set_common(common::DRIVER_FEATURE_SELECT, select);
            self.set_common(common::DRIVER_FEATURE, wanted & offered);
        }
        let status = ACKNOWLEDGE | DRIVER | FEATURES_OK;
        self.set_common(common::DEVICE_STATUS, status);
        ensure!(
            self.common::<u8>(common::DEVICE_STATUS) & FEATURES_OK != 0,
            "the device does not take the features"
        );
        let count: u16 = self.common(common::NUM_QUEUES);
        let queues = (0..count).map(|index| self.queue(index));
        let queues = queues.collect::<Result<Vec<_>>>()?;
        self.set_common(common::DEVICE_STATUS, status | DRIVER_OK);
        Ok(queues)
    }

    fn queue(&self, index: u16) -> Result<Queue> {
        self.set_common(common::QUEUE_SELECT, index);
        let most: u16 = self.common(common::QUEUE_SIZE);
        ensure!(most >= SIZE, "queue {index} has {most} descriptors");
        self.set_common(common::QUEUE_SIZE, SIZE);
        let page = Page::new()?;
        self.set_address(common::QUEUE_DESC, page.address);
        self.set_address(common::QUEUE_DRIVER, page.address + AVAILABLE as u64);
        self.set_address(common::QUEUE_DEVICE, page.address + USED as u64);
        let offset: u16 = self.common(common::QUEUE_NOTIFY_OFF);
        self.set_common(common::QUEUE_ENABLE, 1u16);
        Ok(Queue {
            page,
            index,
            notify: self.notify + usize::from(offset) * self.notify_multiplier,
            available: 0,
        })
    }

    /// Tells the device of what is available.
    pub fn kick(&self, queue: &Queue) {
        self.bar.write(queue.notify, queue.index);
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Before the pages go, which it could write to.
        let _ = self.reset();
    }
}

/// The PCI device that carries the FIFOs, by its virtio device or, while it has none, by its id.
fn pci_folder() -> Result<PathBuf> {
    for entry in fs::read_dir("/sys/bus/virtio/devices")? {
        let path = fs::canonicalize(entry?.path())?;
        if fs::read_to_string(path.join("device"))?.trim() == system::FIFO_ID {
            let parent = path.parent().context("a virtio device has a parent")?;
            return Ok(parent.to_owned());
        }
    }
    // Modern devices are 0x1040 and their virtio id.
    for entry in fs::read_dir("/sys/bus/pci/devices")? {
        let path = entry?.path();
        let read = |name: &str| fs::read_to_string(path.join(name));
        if read("vendor")?.trim() == "0x1af4" && read("device")?.trim() == "0x1065" {
            return Ok(fs::canonicalize(path)?);
        }
    }
    bail!("there is no FIFO device")
}

/// Registers of 64 bits are written as two.
fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [[a, b, c, d], [e, f, g, h]].map(u32::from_le_bytes)
}

fn set_command(pci: &Path, command: u16) -> Result<()> {
    let file = OpenOptions::new().write(true).open(pci.join("config"))?;
    Ok(file.write_all_at(&command.to_le_bytes(), 4)?)
}

/// Where the registers are.
struct Capabilities {
    bar: u8,
    common: usize,
    notify: usize,
    notify_multiplier: usize,
}

impl Capabilities {
    fn of(pci: &Path) -> Result<Self> {
        let config = fs::read(pci.join("config"))?;
        let byte = |at: usize| config.get(at).copied().context("no such byte");
        let long = |at: usize| -> Result<usize> {
            let bytes = config.get(at..).and_then(<[u8]>::first_chunk);
            Ok(u32::from_le_bytes(*bytes.context("no such field")?) as usize)
        };
        let (mut common, mut notify) = (None, None);
        let mut at = usize::from(byte(0x34)?);
        while at != 0 {
            // Vendor-specific, and which of virtio's structures.
            match (byte(at)?, byte(at + 3)?) {
                (9, 1) => common = Some((byte(at + 4)?, long(at + 8)?)),
                (9, 2) => notify = Some((byte(at + 4)?, long(at + 8)?, long(at + 16)?)),
                _ => {}
            }
            at = usize::from(byte(at + 1)?);
        }
        let (bar, common) = common.context("no common configuration")?;
        let (notify_bar, notify, notify_multiplier) = notify.context("no notifications")?;
        ensure!(bar == notify_bar, "registers in several BARs");
        Ok(Self {
            bar,
            common,
            notify,
            notify_multiplier,
        })
    }
}
