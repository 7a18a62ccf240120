// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How bytes leave for the host side as soon as they come in, without the event loop.
//!
//! Owns what the two ends of that know of each other: a FIFO has bytes, in its ring or where the guest has
//! them, and an [`Outlet`] takes what it can. It must not know what a FIFO is, or how a peer is found.

use std::io;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

use arrayvec::ArrayVec;
use nix::errno::Errno;
use vm_memory::VolatileSlice;

/// Most pieces that a payload is shown in: the pages of the largest message of this project's driver, and
/// some.
pub const PIECES: usize = 64;

/// A way to the host side that never makes its caller wait: a socket, but not a disk.
pub trait Outlet: std::fmt::Debug + Send + Sync {
    /// Takes what it can of `first`, then of `second`; how many bytes.
    ///
    /// # Errors
    ///
    /// Nothing was taken. Whoever serves the host side will meet the same error, and deal with it.
    fn offer(&self, first: &[u8], second: &[u8]) -> io::Result<usize>;

    /// As [`Outlet::offer`], of what others may change meanwhile; at most [`PIECES`].
    ///
    /// # Errors
    ///
    /// As there.
    fn offer_pieces(&self, pieces: &[VolatileSlice<'_>]) -> io::Result<usize>;
}

/// The payload of a tx message.
pub trait Payload: Read {
    /// Shows `take` the next `len` bytes where they are, and drops as many of them as it says that it took;
    /// how many. None where they cannot be shown.
    fn show(&mut self, len: usize, take: impl FnOnce(&[VolatileSlice<'_>]) -> usize) -> usize;
}

/// As `writev(2)`, of memory that others may change meanwhile.
///
/// # Errors
///
/// Those of the system call; `EINVAL` if there are more than [`PIECES`].
#[expect(
    unsafe_code,
    reason = "references to memory that a guest writes to would be undefined behaviour"
)]
pub fn write_pieces(to: &impl AsFd, pieces: &[VolatileSlice<'_>]) -> io::Result<usize> {
    if pieces.len() > PIECES {
        return Err(Errno::EINVAL.into());
    }
    let guards: ArrayVec<_, PIECES> = pieces.iter().map(VolatileSlice::ptr_guard).collect();
    let vectors: ArrayVec<_, PIECES> = guards
        .iter()
        .map(|guard| libc::iovec {
            iov_base: guard.as_ptr().cast_mut().cast(),
            iov_len: guard.len(),
        })
        .collect();
    let count = libc::c_int::try_from(vectors.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY:
    // - The vectors are those of slices that live as long as `pieces`, and their guards are alive.
    // - The kernel only reads from there, and does not mind what changes meanwhile.
    let written = unsafe { libc::writev(to.as_fd().as_raw_fd(), vectors.as_ptr(), count) };
    usize::try_from(Errno::result(written)?).map_err(io::Error::other)
}

impl Payload for &[u8] {
    /// Nothing: bytes that no guest can change are copied.
    fn show(&mut self, _: usize, _: impl FnOnce(&[VolatileSlice<'_>]) -> usize) -> usize {
        0
    }
}
