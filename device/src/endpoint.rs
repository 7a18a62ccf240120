// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a FIFO's streams end at when it is no loopback.
//!
//! An endpoint is a `Read` and a `Write` that never block, and nothing else: it must not know
//! rings, queues or virtio. What it cannot take or give now is `WouldBlock`; whoever owns its file
//! descriptor (the event loop, for the kinds that have one) calls [`crate::fifo::Fifo::exchange`]
//! when that changes and then wakes the queue worker.

use std::fmt::Debug;
use std::io;
use std::io::Read;
use std::io::Write;

/// The host side of a FIFO, never blocking.
///
/// - `read` gives bytes for the driver; `Ok(0)` means that the host side has hung up.
/// - `write` takes bytes of the driver; an error other than `WouldBlock` and `Interrupted` means
///   that the host side has hung up.
pub trait Endpoint: Read + Write + Debug + Send {}

impl<T: Read + Write + Debug + Send> Endpoint for T {}

/// Takes everything, gives zeros for ever.
#[derive(Clone, Copy, Debug, Default)]
pub struct Zero;

impl Read for Zero {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        bytes.fill(0);
        Ok(bytes.len())
    }
}

impl Write for Zero {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes everything, never has anything to give.
#[derive(Clone, Copy, Debug, Default)]
pub struct Null;

impl Read for Null {
    fn read(&mut self, _bytes: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Write for Null {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
