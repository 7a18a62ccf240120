// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory of a test that is mapped, advised and unmapped by hand.
//!
//! All access is volatile: the kernel fills it while the test looks.

use std::fs::File;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::libc;

/// Size of a small page.
pub const PAGE: usize = 4096;

/// A mapping, readable and writable; unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    at: *mut u8,
    length: usize,
}

// SAFETY: The mapping is the process's, not a thread's, and this is all that refers to it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Private anonymous memory, not touched.
    pub fn private(length: usize) -> Result<Self> {
        Self::with(length, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None).context("mmap")
    }

    /// Memory of `file`, shared with whoever else maps it.
    pub fn shared(file: &File, length: usize) -> Result<Self> {
        Self::with(length, libc::MAP_SHARED, Some(file)).context("mmap of a file")
    }

    /// Any mapping.
    pub fn with(length: usize, flags: i32, file: Option<&File>) -> Result<Self, Errno> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let fd = file.map_or(-1, std::os::fd::AsRawFd::as_raw_fd);
        // SAFETY: A new mapping, at an address that the kernel chooses.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, fd, 0) };
        if at == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let at = at.cast();
        Ok(Self { at, length })
    }

    /// Its address.
    pub fn address(&self) -> u64 {
        self.at as u64
    }

    /// Its first address that is a multiple of `size`, as a distance from its beginning.
    pub fn first_multiple(&self, size: usize) -> usize {
        self.at.align_offset(size)
    }

    /// Reads `length` bytes.
    pub fn get(&self, offset: usize, length: usize) -> Vec<u8> {
        assert!(offset + length <= self.length, "offset {offset}");
        (offset..offset + length)
            .map(|at| {
                // SAFETY: Within the mapping.
                let place = unsafe { self.at.add(at) };
                // SAFETY: Readable; any byte is valid.
                unsafe { place.read_volatile() }
            })
            .collect()
    }

    /// Writes `bytes`.
    pub fn put(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length, "offset {offset}");
        for (at, byte) in (offset..).zip(bytes) {
            // SAFETY: Within the mapping.
            let place = unsafe { self.at.add(at) };
            // SAFETY: Writable.
            unsafe { place.write_volatile(*byte) };
        }
    }

    /// Writes to each page, so that all are there.
    pub fn touch(&self) {
        for offset in (0..self.length).step_by(PAGE) {
            self.put(offset, &[0xff]);
        }
    }

    /// `madvise(2)` of a part.
    pub fn advise(&self, offset: usize, length: usize, advice: i32) -> Result<(), Errno> {
        assert!(offset + length <= self.length, "offset {offset}");
        // SAFETY: Within the mapping.
        let at = unsafe { self.at.add(offset) };
        // SAFETY: What the advice does to the content is seen by volatile access alone.
        Errno::result(unsafe { libc::madvise(at.cast(), length, advice) }).map(drop)
    }

    /// Has the mapping consist of small pages; so it does anyway on a kernel without transparent huge pages, such as one with
    /// PREEMPT_RT.
    pub fn without_huge_pages(&self) -> Result<(), Errno> {
        match self.advise(0, self.length, libc::MADV_NOHUGEPAGE) {
            Err(Errno::EINVAL) => Ok(()),
            other => other,
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: This mapping, which nothing refers to.
        unsafe { libc::munmap(self.at.cast(), self.length) };
    }
}
