// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! System calls as a 32-bit program makes them: `int 0x80`, numbers of i386, addresses below 4 GiB.
//!
//! The kernel takes such a call for one of a 32-bit program, whatever the program is, and goes through
//! its compat entries. Knows the calling convention, nothing of FIFOs. Other processors have no such call: there it is `ENOSYS`.

#[cfg(target_arch = "x86_64")]
use std::arch::asm;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::libc;

use crate::mapping::Mapping;

/// Numbers of i386, `arch/x86/entry/syscalls/syscall_32.tbl`.
#[expect(missing_docs, reason = "the names are the manual's")]
pub mod number {
    pub const READ: u32 = 3;
    pub const WRITE: u32 = 4;
    pub const OPEN: u32 = 5;
    pub const CLOSE: u32 = 6;
    pub const GETPID: u32 = 20;
    pub const IOCTL: u32 = 54;
    pub const FSYNC: u32 = 118;
    pub const READV: u32 = 145;
    pub const WRITEV: u32 = 146;
    pub const POLL: u32 = 168;
    pub const RT_SIGTIMEDWAIT: u32 = 177;
    pub const IO_SETUP: u32 = 245;
    pub const IO_DESTROY: u32 = 246;
    pub const IO_GETEVENTS: u32 = 247;
    pub const IO_SUBMIT: u32 = 248;
    pub const IO_CANCEL: u32 = 249;
}

/// Makes a call.
///
/// # Safety
///
/// What the arguments refer to is as the call wants it.
#[cfg(target_arch = "x86_64")]
pub unsafe fn call(number: u32, arguments: [u32; 5]) -> Result<u32, Errno> {
    let [b, c, d, si, di] = arguments.map(u64::from);
    let result: u64;
    // SAFETY: The call changes rax alone, and memory as the caller expects it; rbx is put back.
    unsafe {
        asm!(
            "xchg {b}, rbx",
            "int 0x80",
            "xchg {b}, rbx",
            b = inout(reg) b => _,
            inlateout("rax") u64::from(number) => result,
            in("rcx") c,
            in("rdx") d,
            in("rsi") si,
            in("rdi") di,
            lateout("r8") _,
            lateout("r9") _,
            lateout("r10") _,
            lateout("r11") _,
        );
    }
    let [low, _] = halves(result);
    let signed = low.cast_signed();
    if (-4095..0).contains(&signed) {
        return Err(Errno::from_raw(-signed));
    }
    Ok(low)
}

/// As on x86-64.
///
/// # Errors
///
/// `ENOSYS`.
///
/// # Safety
///
/// None is needed.
#[cfg(not(target_arch = "x86_64"))]
pub unsafe fn call(_number: u32, _arguments: [u32; 5]) -> Result<u32, Errno> {
    Err(Errno::ENOSYS)
}

#[cfg(target_arch = "x86_64")]
fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [[a, b, c, d], [e, f, g, h]].map(u32::from_le_bytes)
}

/// Whether the kernel runs 32-bit programs.
pub fn is_there() -> Result<bool> {
    // Without them `int 0x80` is SIGSEGV.
    let child = crate::child::start(|_| {
        // SAFETY: Has no arguments.
        unsafe { call(number::GETPID, [0; 5]) }?;
        Ok(())
    })?;
    Ok(child.join().is_ok())
}

/// Memory with 32-bit addresses.
#[derive(Debug)]
pub struct Low {
    /// The memory.
    pub memory: Mapping,
}

/// Has mmap choose an address below 2 GiB.
#[cfg(target_arch = "x86_64")]
const BELOW: i32 = libc::MAP_32BIT;
#[cfg(not(target_arch = "x86_64"))]
const BELOW: i32 = 0;

impl Low {
    /// Zeroed.
    pub fn new(length: usize) -> Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | BELOW;
        let memory = Mapping::with(length, flags, None).context("mmap of low memory")?;
        Ok(Self { memory })
    }

    /// Address of the byte at `offset`.
    pub fn at(&self, offset: usize) -> Result<u32> {
        let address = self.memory.address() + offset as u64;
        u32::try_from(address).context("the memory is above 4 GiB")
    }

    /// Writes `bytes` at `offset`, and gives their address.
    pub fn put(&self, offset: usize, bytes: &[u8]) -> Result<u32> {
        self.memory.put(offset, bytes);
        self.at(offset)
    }

    /// Writes 32-bit words at `offset`, and gives their address.
    pub fn put_words(&self, offset: usize, words: &[u32]) -> Result<u32> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.put(offset, &bytes)
    }

    /// Reads the 32-bit word at `offset`.
    pub fn word(&self, offset: usize) -> u32 {
        self.memory
            .get(offset, 4)
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u32::from(*byte))
    }
}
