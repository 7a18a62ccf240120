// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Descriptor chains of a guest that is not trusted.
//!
//! A chain is walked in place: once to measure and check it, once to copy. Nothing is collected,
//! and what the guest changes in between ends in an error, never beyond guest memory. This file
//! knows descriptors and guest memory; it must not know rings, or what the bytes mean.

use std::io;
use std::io::Read;
use std::io::Write;

use arrayvec::ArrayVec;
use virtio_queue::desc::split::Descriptor;
use vm_memory::Address;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vm_memory::GuestMemory;
use vm_memory::Permissions;
use vm_memory::VolatileSlice;

use crate::outlet::PIECES;
use crate::outlet::Payload;
use crate::refusal::Refusal;
use crate::virtqueue::Chain;
use crate::virtqueue::GuestRam;

/// Bytes in a checked chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    /// Device-readable bytes.
    pub readable: usize,
    /// Device-writable bytes, all behind the readable ones.
    pub writable: usize,
    /// Descriptors of the first kind, even empty ones.
    pub readable_parts: u16,
    /// Descriptors of the second kind, even empty ones.
    pub writable_parts: u16,
}

impl Lengths {
    pub(crate) fn of(chain: Chain<'_>, ram: &GuestRam, longest: u16) -> Result<Self, Refusal> {
        let mut lengths = Self::default();
        // The iterator ends alike on a proper last descriptor and on a broken one: only the
        // former says itself that nothing follows.
        let mut open = true;
        for descriptor in chain {
            if lengths.readable_parts + lengths.writable_parts >= longest {
                return Err(Refusal::InvalidChain);
            }
            open = descriptor.has_next();
            lengths.add(descriptor, ram)?;
        }
        if open {
            Err(Refusal::InvalidChain)
        } else {
            Ok(lengths)
        }
    }

    fn add(&mut self, descriptor: Descriptor, ram: &GuestRam) -> Result<(), Refusal> {
        let len = usize::try_from(descriptor.len()).map_err(|_| Refusal::InvalidChain)?;
        let (bytes, parts, access) = if descriptor.is_write_only() {
            (
                &mut self.writable,
                &mut self.writable_parts,
                Permissions::Write,
            )
        } else if self.writable_parts > 0 {
            return Err(Refusal::WrongDirection);
        } else {
            (
                &mut self.readable,
                &mut self.readable_parts,
                Permissions::Read,
            )
        };
        let end = descriptor.addr().checked_add(u64::from(descriptor.len()));
        if end.is_none() || !ram.check_range(descriptor.addr(), len, access) {
            return Err(Refusal::InvalidAddress);
        }
        // Neither can overflow: `longest` bounds the parts, the iterator the bytes (2^32).
        *bytes = bytes.checked_add(len).ok_or(Refusal::InvalidChain)?;
        *parts += 1;
        Ok(())
    }
}

/// Where a walk along the descriptors of one direction stands.
#[derive(Clone)]
struct Walk<'a> {
    chain: Chain<'a>,
    ram: &'a GuestRam,
    writable: bool,
    /// Descriptors still to be looked at: what the chain had when it was measured.
    parts: u16,
    at: GuestAddress,
    left: usize,
}

impl<'a> Walk<'a> {
    fn new(chain: &Chain<'a>, ram: &'a GuestRam, writable: bool, lengths: Lengths) -> Self {
        Self {
            chain: chain.clone(),
            ram,
            writable,
            parts: lengths
                .readable_parts
                .saturating_add(lengths.writable_parts),
            at: GuestAddress(0),
            left: 0,
        }
    }

    /// The next piece of at most `most` bytes; `None` at the end of the chain.
    fn piece(&mut self, most: usize) -> Option<(GuestAddress, usize)> {
        while self.left == 0 {
            self.parts = self.parts.checked_sub(1)?;
            let next = self.chain.next()?;
            if next.is_write_only() == self.writable {
                self.at = next.addr();
                self.left = usize::try_from(next.len()).ok()?;
            }
        }
        Some((self.at, most.min(self.left)))
    }

    /// The next `len` bytes where they are; `None` if there are fewer, or more than [`PIECES`] pieces.
    fn pieces(mut self, len: usize) -> Option<ArrayVec<VolatileSlice<'a>, PIECES>> {
        let mut pieces = ArrayVec::new();
        let mut left = len;
        while left > 0 {
            let (at, len) = self.piece(left)?;
            for slice in self.ram.get_slices(at, len, Permissions::Read).ok()? {
                pieces.try_push(slice.ok()?).ok()?;
            }
            self.advance(len).ok()?;
            left -= len;
        }
        Some(pieces)
    }

    /// Leaves out the next `len` bytes, or all if there are fewer.
    fn skip(&mut self, mut len: usize) {
        while len > 0
            && let Some((_, part)) = self.piece(len)
            && self.advance(part).is_ok()
        {
            len -= part;
        }
    }

    fn advance(&mut self, len: usize) -> io::Result<()> {
        self.left = self.left.saturating_sub(len);
        self.at = self
            .at
            .checked_add(len as u64)
            .ok_or(io::ErrorKind::InvalidData)?;
        Ok(())
    }
}

/// Reads the device-readable part of a chain.
pub struct ChainReader<'a>(Walk<'a>);

impl<'a> ChainReader<'a> {
    /// Starts at the first readable byte.
    pub fn new(chain: &Chain<'a>, ram: &'a GuestRam, lengths: Lengths) -> Self {
        Self(Walk::new(chain, ram, false, lengths))
    }

    /// Reads a message of fixed length.
    ///
    /// # Errors
    ///
    /// [`Refusal::InvalidChain`] if the chain ends before it.
    pub fn message<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)
            .map_err(|_| Refusal::InvalidChain)?;
        Ok(bytes)
    }
}

impl Read for ChainReader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let Some((at, len)) = self.0.piece(bytes.len()) else {
            return Ok(0);
        };
        let (part, _) = bytes.split_at_mut(len);
        self.0.ram.read_slice(part, at).map_err(io::Error::other)?;
        self.0.advance(len)?;
        Ok(len)
    }
}

impl Payload for ChainReader<'_> {
    fn show(&mut self, len: usize, take: impl FnOnce(&[VolatileSlice<'_>]) -> usize) -> usize {
        let Some(pieces) = self.0.clone().pieces(len) else {
            return 0;
        };
        let taken = take(&pieces).min(len);
        // As the whole of it was just gone along, it can be again.
        self.0.skip(taken);
        taken
    }
}

/// Writes the device-writable part of a chain.
pub struct ChainWriter<'a>(Walk<'a>);

impl<'a> ChainWriter<'a> {
    /// Starts at the first writable byte.
    pub fn new(chain: &Chain<'a>, ram: &'a GuestRam, lengths: Lengths) -> Self {
        Self(Walk::new(chain, ram, true, lengths))
    }
}

impl Write for ChainWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some((at, len)) = self.0.piece(bytes.len()) else {
            return Ok(0);
        };
        let (part, _) = bytes.split_at(len);
        self.0.ram.write_slice(part, at).map_err(io::Error::other)?;
        self.0.advance(len)?;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for ChainReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChainReader").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ChainWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChainWriter").finish_non_exhaustive()
    }
}
