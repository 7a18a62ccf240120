// SPDX-License-Identifier: GPL-2.0-only

//! The buffers that travel through the virtqueues, and a queue of them.
//!
//! A list node is part of each buffer, so that queueing one never allocates: it happens in interrupt
//! context, where losing data for want of memory is not an option.

use crate::{
    kapi::{
        pages::UserPages,
        virtio::Packet, //
    },
    virtio_fifo::{
        RxHeader,
        TxHeader, //
    },
};
use core::mem;
use kernel::prelude::*;

/// Something with a place for the next in a [`Chain`].
pub(crate) trait Linked: Sized {
    /// The place.
    fn next(&mut self) -> &mut Option<KBox<Self>>;
}

/// A first-in-first-out chain, all operations O(1) amortised, without allocation.
///
/// Two stacks: `back` takes what comes, newest first; `front` gives, oldest first, and is filled by
/// turning `back` round when it is empty.
pub(crate) struct Chain<T: Linked> {
    front: Option<KBox<T>>,
    back: Option<KBox<T>>,
}

impl<T: Linked> Chain<T> {
    /// An empty chain.
    pub(crate) const fn new() -> Self {
        Self {
            front: None,
            back: None,
        }
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.front.is_none() && self.back.is_none()
    }

    /// Adds the newest.
    pub(crate) fn push_back(&mut self, mut link: KBox<T>) {
        *link.next() = self.back.take();
        self.back = Some(link);
    }

    /// Gives back what was the oldest.
    pub(crate) fn push_front(&mut self, mut link: KBox<T>) {
        *link.next() = self.front.take();
        self.front = Some(link);
    }

    /// Takes the oldest.
    pub(crate) fn pop_front(&mut self) -> Option<KBox<T>> {
        if self.front.is_none() {
            while let Some(mut link) = self.back.take() {
                self.back = link.next().take();
                self.push_front(link);
            }
        }
        let mut link = self.front.take()?;
        self.front = link.next().take();
        Some(link)
    }

    /// The one that is in it, if it is alone.
    pub(crate) fn only(&mut self) -> Option<&mut T> {
        match (&mut self.front, &mut self.back) {
            (Some(link), None) | (None, Some(link)) => {
                let alone = link.next().is_none();
                alone.then_some(&mut **link)
            }
            _ => None,
        }
    }

    /// The newest, if it came after the last turn-round.
    pub(crate) fn newest(&mut self) -> Option<&mut T> {
        self.back.as_deref_mut()
    }

    /// Takes all of them.
    pub(crate) fn take(&mut self) -> Self {
        mem::replace(self, Self::new())
    }
}

impl<T: Linked> Drop for Chain<T> {
    fn drop(&mut self) {
        // One by one: dropping the head would recurse as deep as the chain is long.
        while self.pop_front().is_some() {}
    }
}

/// What the driver knows of a receive buffer.
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

    /// Reads the header of a buffer into which the device says it wrote `written` bytes; `None` when
    /// that cannot be (DRV-11). The payload becomes the unread bytes.
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

/// Most payload that is in one piece of memory with the header: the pieces that the kernel hands out without
/// effort are no larger.
pub(crate) const TOGETHER: usize = 32768 - TxHeader::LEN;

/// What the driver knows of a message to the device.
pub(crate) struct Tx {
    next: Option<KBox<TxBuffer>>,
    /// Position in the tx stream of the first payload byte.
    position: u64,
}

/// A message to the device: header and payload. The payload is a copy in the message's memory, behind the
/// header or, if it is large, in a buffer of its own; or in pages of the process that writes it (*direct*).
pub(crate) type TxBuffer = Packet<Tx>;

impl Linked for TxBuffer {
    fn next(&mut self) -> &mut Option<KBox<Self>> {
        &mut self.meta.next
    }
}

impl TxBuffer {
    /// A message with room for `payload` bytes, and none in it. For more than [`TOGETHER`] that is a buffer of
    /// its own if there is memory at hand, and less room if there is not.
    pub(crate) fn for_tx(payload: usize) -> Result<KBox<Self>> {
        let apart = payload > TOGETHER;
        let together = if apart { 0 } else { payload };
        let mut message = Self::with_capacity(
            TxHeader::LEN + together,
            Tx {
                next: None,
                position: 0,
            },
        )?;
        message.append(&[0; TxHeader::LEN]);
        if apart && message.extend_apart(payload).is_err() {
            return Self::for_tx(TOGETHER);
        }
        Ok(message)
    }

    /// Payload that it has room for in all.
    pub(crate) fn room(&self) -> usize {
        match self.buffer() {
            Some(buffer) => buffer.capacity(),
            None => self.capacity() - TxHeader::LEN,
        }
    }

    /// Payload that it has room for beside what is there.
    pub(crate) fn room_left(&self) -> usize {
        if self.is_direct() {
            0
        } else {
            self.room() - self.payload_len()
        }
    }

    /// How much there is before the payload, where the payload is.
    fn lead(&self) -> usize {
        match self.buffer() {
            Some(_) => 0,
            None => TxHeader::LEN,
        }
    }

    /// Whether it is hardly worth while to wait for more to join it.
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.payload_len() > self.room() / 8 * 7
    }

    /// A message whose payload stays where it is, in `pages`.
    pub(crate) fn direct(mut self: KBox<Self>, pages: UserPages) -> KBox<Self> {
        self.empty();
        self.attach(pages);
        self
    }

    /// Whether the payload is in a process's pages: it cannot be cut, nor go with others.
    pub(crate) fn is_direct(&self) -> bool {
        self.pages().is_some()
    }

    /// Takes the payload out.
    pub(crate) fn empty(&mut self) {
        self.truncate(self.lead());
    }

    /// Cuts the payload to at most `n` bytes.
    pub(crate) fn cut(&mut self, n: usize) {
        if !self.is_direct() && n < self.payload_len() {
            self.truncate(self.lead() + n);
        }
    }

    /// Bytes of the payload.
    pub(crate) fn payload_len(&self) -> usize {
        match self.pages() {
            Some(pages) => pages.len(),
            None => self.payload().len(),
        }
    }

    /// The payload, if it is not in a process's pages.
    pub(crate) fn payload(&self) -> &[u8] {
        match self.buffer() {
            Some(buffer) => buffer,
            None => self.bytes().get(TxHeader::LEN..).unwrap_or(&[]),
        }
    }

    /// Says where in the tx stream the payload stands.
    pub(crate) fn place(&mut self, position: u64) {
        self.meta.position = position;
    }

    /// Position in the tx stream after the last payload byte.
    pub(crate) fn tx_end(&self) -> u64 {
        self.meta.position + self.payload_len() as u64
    }

    /// Writes the header, with `rx_consumed` as of now, and lets the device read the message.
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
}
