// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Signals that are waited for rather than handled, so that a test sees each with its `siginfo_t`.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};

/// Band codes of `siginfo_t.si_code` for signals of files.
pub const POLL_IN: i32 = 1;
/// See [`POLL_IN`].
pub const POLL_OUT: i32 = 2;
/// See [`POLL_IN`].
pub const POLL_ERR: i32 = 4;
/// See [`POLL_IN`].
pub const POLL_HUP: i32 = 6;

/// What came with a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its number.
    pub signal: i32,
    /// `si_code`.
    pub code: i32,
    /// `si_fd`.
    pub fd: i32,
    /// `si_band`.
    pub band: i64,
}

/// `siginfo_t` as the kernel lays it out for signals of files, on 64-bit machines.
#[repr(C, align(8))]
#[derive(Default)]
struct FileSigInfo {
    signal: i32,
    errno: i32,
    code: i32,
    padding: i32,
    band: i64,
    fd: i32,
    rest: [i32; 25],
}

const _: () = assert!(size_of::<FileSigInfo>() == size_of::<libc::siginfo_t>());

impl Received {
    /// What a handler (`SA_SIGINFO`) was given.
    pub fn of(info: &libc::siginfo_t) -> Self {
        // SAFETY: As large and at least as aligned, and all of it are integers.
        let info: &FileSigInfo = unsafe { &*std::ptr::from_ref(info).cast() };
        Self {
            signal: info.signal,
            code: info.code,
            fd: info.fd,
            band: info.band,
        }
    }
}

/// Blocks signal `number`, so that it stays pending until it is waited for.
pub fn block(number: i32) -> Result<()> {
    let set = one(number)?;
    // SAFETY: The set is valid.
    let blocked =
        unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    Errno::result(blocked)
        .map(drop)
        .context("blocking a signal")
}

/// Blocks SIGIO.
pub fn block_sigio() -> Result<()> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGIO);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).context("blocking SIGIO")
}

/// Takes one pending signal `number`, waiting for it at most `limit`.
pub fn take(number: i32, limit: Duration) -> Result<Option<Received>> {
    let set = one(number)?;
    let timeout = libc::timespec {
        tv_sec: i64::try_from(limit.as_secs())?,
        tv_nsec: i64::from(limit.subsec_nanos()),
    };
    loop {
        let mut info = FileSigInfo::default();
        // SAFETY: All three are valid for the call; `info` is as large as a siginfo_t.
        let signal = unsafe {
            libc::sigtimedwait(&raw const set, (&raw mut info).cast(), &raw const timeout)
        };
        match Errno::result(signal) {
            Ok(signal) => {
                let FileSigInfo { code, band, fd, .. } = info;
                return Ok(Some(Received {
                    signal,
                    code,
                    fd,
                    band,
                }));
            }
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("sigtimedwait"),
        }
    }
}

fn one(number: i32) -> Result<libc::sigset_t> {
    // SAFETY: An all-zero sigset_t is valid.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: The set is valid.
    Errno::result(unsafe { libc::sigaddset(&raw mut set, number) }).context("sigaddset")?;
    Ok(set)
}
