// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Faults of messages to the driver: limits, headers and payloads that are not the truth. A decorator of what
//! [`crate::handlers`] writes; it must not know rings.

use std::io;
use std::io::Read;
use std::io::Write;

use virtio_fifo_protocol::virtio_fifo::RxHeader;
use virtio_fifo_protocol::virtio_fifo::State;

use super::Tap;
use crate::chain::ChainWriter;
use crate::fifo::Fifo;
use crate::refusal::Refusal;

/// The state of FIFO `fifo` for the driver, as faults want it.
pub fn state(tap: Tap<'_>, fifo: u16, mut state: State) -> [u8; State::LEN] {
    state.tx_limit = tap.tx_limit(fifo, state.tx_limit);
    let mut bytes = state.to_bytes();
    tap.content(&mut bytes);
    bytes
}

/// Rx messages of one pass. An overrun takes several of them: bytes that are not in the FIFO, more than it holds.
#[derive(Debug, Default)]
pub struct FaultyMessages {
    sent: u64,
    left: u64,
}

impl FaultyMessages {
    /// Writes the next rx message of `fifo` as the faults want it, within `space` bytes; its length.
    ///
    /// # Errors
    ///
    /// As [`Fifo::deliver`].
    pub fn deliver(
        &mut self,
        tap: Tap<'_>,
        fifo: &mut Fifo,
        writer: ChainWriter<'_>,
        mut space: usize,
    ) -> Result<usize, Refusal> {
        if self.left == 0 {
            let message = tap.message(fifo.pending());
            space = space.min(RxHeader::LEN.saturating_add(message.most));
            if let Some(bytes) = message.overrun {
                self.overrun(fifo, bytes);
            }
        }
        let mut sink = FaultyWriter {
            sink: writer,
            tap,
            fifo: fifo.index(),
            after_header: false,
        };
        if self.left > 0 {
            self.deliver_excess(fifo, &mut sink, space)
        } else {
            fifo.deliver(&mut sink, space)
        }
    }

    fn overrun(&mut self, fifo: &Fifo, bytes: u32) {
        let capacity = fifo.status().capacity as u64;
        self.sent = 0;
        self.left = capacity.saturating_add(bytes.into());
    }

    fn deliver_excess(
        &mut self,
        fifo: &Fifo,
        sink: &mut impl Write,
        space: usize,
    ) -> Result<usize, Refusal> {
        let room = space
            .checked_sub(RxHeader::LEN)
            .filter(|room| *room > 0)
            .ok_or(Refusal::WrongLength)?;
        let len = self.left.min(room as u64);
        let truth = fifo.rx_header();
        let header = RxHeader {
            offset: truth.offset.saturating_add(self.sent),
            ..truth
        };
        sink.write_all(&header.to_bytes())
            .and_then(|()| io::copy(&mut io::repeat(b'!').take(len), sink))
            .map_err(|_| Refusal::InvalidChain)?;
        self.sent += len;
        self.left -= len;
        Ok(RxHeader::LEN + usize::try_from(len).unwrap_or(room))
    }
}

/// Writes an rx message whose header says what the faults want it to.
struct FaultyWriter<'a> {
    sink: ChainWriter<'a>,
    tap: Tap<'a>,
    fifo: u16,
    /// The header is through.
    after_header: bool,
}

impl Write for FaultyWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let header = bytes.first_chunk().filter(|_| !self.after_header);
        let Some(header) = header else {
            return self.sink.write(bytes);
        };
        self.after_header = true;
        let mut header = RxHeader::from_bytes(*header);
        header.tx_limit = self.tap.tx_limit(self.fifo, header.tx_limit);
        let mut header = header.to_bytes();
        self.tap.content(&mut header);
        self.sink.write_all(&header)?;
        Ok(header.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
