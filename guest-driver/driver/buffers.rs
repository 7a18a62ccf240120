// SPDX-License-Identifier: GPL-2.0-only

//! The buffers that travel through the virtqueues: messages with a header, and their payload.
//!
//! Must not know queues, nor what a FIFO makes of a message.

use super::chain::Linked;
#[cfg(GLOBALFIFO_FAST)]
use crate::kapi::pages::UserPages;
use crate::{
    kapi::{
        source::Source,
        virtio::Packet, //
    },
    virtio_fifo::{
        RxHeader,
        TxHeader, //
    },
};
use kernel::prelude::*;

/// State of a receive buffer.
pub(crate) struct Rx {
    next: Option<KBox<RxBuffer>>,
    /// Position in the rx stream of the first unread byte.
    position: u64,
    /// The unread bytes, as offsets into the memory.
    start: usize,
    end: usize,
}

/// A receive buffer: posted, filled by the device, read by user space, posted again.
pub(crate) type RxBuffer = Packet<Rx>;

impl Linked for RxBuffer {
    fn next(&mut self) -> &mut Option<KBox<Self>> {
        &mut self.meta.next
    }
}

impl RxBuffer {
    /// A buffer of `size` bytes, header included, all of it for the device to write to.
    pub(crate) fn for_rx(size: usize) -> Result<KBox<Self>> {
        let mut buffer = Self::new(
            size,
            Rx {
                next: None,
                position: 0,
                start: 0,
                end: 0,
            },
        )?;
        buffer.expose(0, size);
        Ok(buffer)
    }

    /// Reads the header of a buffer into which the device says it wrote `written` bytes; `None`
    /// when that cannot be (DRV-11). The payload becomes the unread bytes.
    pub(crate) fn fill(&mut self, written: usize) -> Option<RxHeader> {
        if written <= RxHeader::LEN || written > self.bytes().len() {
            return None;
        }
        let header = RxHeader::from_bytes(self.snapshot(0)?);
        self.meta.position = header.offset;
        self.meta.start = RxHeader::LEN;
        self.meta.end = written;
        Some(header)
    }

    /// The unread bytes.
    pub(crate) fn unread(&self) -> &[u8] {
        self.bytes()
            .get(self.meta.start..self.meta.end)
            .unwrap_or(&[])
    }

    /// Position in the rx stream of the first unread byte.
    pub(crate) fn rx_position(&self) -> u64 {
        self.meta.position
    }

    /// Position in the rx stream after the last unread byte. A device that would make it overflow
    /// gets an end before the start, which no check lets pass.
    pub(crate) fn rx_end(&self) -> u64 {
        self.meta.position.wrapping_add(self.unread().len() as u64)
    }

    /// Marks `n` bytes as read.
    pub(crate) fn advance(&mut self, n: usize) {
        let n = n.min(self.unread().len());
        self.meta.start += n;
        self.meta.position += n as u64;
    }

    /// Appends the bytes that follow in the stream; false, and nothing done, without room.
    pub(crate) fn extend(&mut self, bytes: &[u8]) -> bool {
        let (start, end) = (self.meta.end, self.meta.end + bytes.len());
        let Some(room) = self.bytes_mut().get_mut(start..end) else {
            return false;
        };
        room.copy_from_slice(bytes);
        self.meta.end = end;
        true
    }
}

/// State of a message to the device.
pub(crate) struct Tx {
    next: Option<KBox<TxBuffer>>,
    /// Position in the tx stream of the first payload byte.
    position: u64,
}

/// A message to the device: header and payload.
///
/// The payload is a copy, behind the header. In the fast edition it may also be in a buffer of its
/// own, or in pages of the process that writes it (*direct*).
pub(crate) type TxBuffer = Packet<Tx>;

impl Linked for TxBuffer {
    fn next(&mut self) -> &mut Option<KBox<Self>> {
        &mut self.meta.next
    }
}

/// Payload that was copied, behind the header or apart from it.
impl TxBuffer {
    /// A message with room for `payload` bytes behind the header, and none in it.
    pub(crate) fn for_tx(payload: usize) -> Result<KBox<Self>> {
        let mut message = Self::with_capacity(
            TxHeader::LEN + payload,
            Tx {
                next: None,
                position: 0,
            },
        )?;
        message.append(&[0; TxHeader::LEN]);
        Ok(message)
    }

    /// Payload that there is room for in all.
    pub(crate) fn room(&self) -> usize {
        #[cfg(GLOBALFIFO_FAST)]
        if let Some(buffer) = self.buffer() {
            return buffer.capacity();
        }
        self.capacity() - TxHeader::LEN
    }

    /// Bytes in front of the payload, where the payload is.
    fn lead(&self) -> usize {
        #[cfg(GLOBALFIFO_FAST)]
        if self.buffer().is_some() {
            return 0;
        }
        TxHeader::LEN
    }

    /// Whether it is hardly worth while to wait for more payload.
    #[cfg(GLOBALFIFO_FAST)]
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.payload_len() > self.room() / 8 * 7
    }

    /// Takes the payload out.
    #[cfg(GLOBALFIFO_FAST)]
    pub(crate) fn empty(&mut self) {
        self.truncate(self.lead());
    }

    /// Cuts the payload to at most `n` bytes, unless it is direct.
    pub(crate) fn cut(&mut self, n: usize) {
        if !self.is_direct() && n < self.payload_len() {
            self.truncate(self.lead() + n);
        }
    }

    /// Bytes of the payload.
    pub(crate) fn payload_len(&self) -> usize {
        #[cfg(GLOBALFIFO_FAST)]
        if let Some(pages) = self.pages() {
            return pages.len();
        }
        self.payload().len()
    }

    /// The payload, unless it is direct.
    pub(crate) fn payload(&self) -> &[u8] {
        #[cfg(GLOBALFIFO_FAST)]
        if let Some(buffer) = self.buffer() {
            return buffer;
        }
        self.bytes().get(TxHeader::LEN..).unwrap_or(&[])
    }

    /// Copies the next `n` bytes of `source`, or as many as there is room for, behind the payload;
    /// fewer means memory that is not there.
    pub(crate) fn fill_from(&mut self, source: &mut Source<'_, '_>, n: usize) -> usize {
        self.append_from(source, n)
    }

    /// Adds `bytes` behind the payload, unless that is direct or there is no room; whether it did.
    pub(crate) fn join(&mut self, bytes: &[u8]) -> bool {
        !self.is_direct() && self.append(bytes)
    }

    /// Says where in the tx stream the payload stands.
    pub(crate) fn place(&mut self, position: u64) {
        self.meta.position = position;
    }

    /// Position in the tx stream of the first payload byte.
    pub(crate) fn tx_position(&self) -> u64 {
        self.meta.position
    }

    /// Position in the tx stream after the last payload byte.
    pub(crate) fn tx_end(&self) -> u64 {
        self.meta.position + self.payload_len() as u64
    }

    /// Writes the header, with `rx_consumed` as of now, and exposes the message to the device.
    pub(crate) fn stamp(&mut self, rx_consumed: u64) {
        let header = TxHeader {
            offset: self.meta.position,
            rx_consumed,
        };
        if let Some(to) = self.bytes_mut().first_chunk_mut() {
            *to = header.to_bytes();
        }
        self.expose(self.bytes().len(), 0);
    }

    /// Whether the payload is in pages of a process: it cannot be cut, nor join another.
    pub(crate) fn is_direct(&self) -> bool {
        #[cfg(GLOBALFIFO_FAST)]
        return self.pages().is_some();
        #[cfg(not(GLOBALFIFO_FAST))]
        false
    }
}

/// Payload elsewhere: the fast edition.
#[cfg(GLOBALFIFO_FAST)]
impl TxBuffer {
    /// A message with room for `payload` bytes in a buffer of its own, if there is memory at hand.
    pub(crate) fn apart(payload: usize) -> Result<KBox<Self>> {
        let mut message = Self::for_tx(0)?;
        message.extend_apart(payload)?;
        Ok(message)
    }

    /// A message whose payload stays where it is, in `pages`.
    pub(crate) fn direct(mut message: KBox<Self>, pages: UserPages) -> KBox<Self> {
        message.empty();
        message.attach(pages);
        message
    }
}
