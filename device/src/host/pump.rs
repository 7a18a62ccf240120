// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Moves bytes between one FIFO and one open thing outside, a bounded amount a turn.
//!
//! Descriptors are watched edge-triggered, so the pump remembers what is ready until a call would
//! block. Nothing is read for which the rx stream has no room, and nothing is asked for while there
//! is nothing to do: the FIFO's bell tells of room and of bytes. System calls are made without the
//! FIFO's lock, for some of them may take long (a disk). This file must not know what the thing is.

use std::io;
use std::sync::Arc;

use event_manager::EventSet;

use super::HostError;
use crate::bell::Bell;
use crate::device::Device;
use crate::fifo::Connection;
use crate::fifo::Fifo;
use crate::outlet::Outlet;

/// Most bytes that one turn reads, and that it writes.
const TURN: usize = 65_536;

/// What is watched of a descriptor.
pub fn interest() -> EventSet {
    EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED
}

/// Something open, whose calls never wait for a peer.
pub trait Stream {
    /// As [`io::Read::read`]; 0 means that nothing more will come.
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize>;

    /// As [`io::Write::write`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Whether a `write` that moved less than it was asked to has moved all that fits: then an event will
    /// tell when that changes. (Of a `read` that cannot be said: a socket's may end early at a message with
    /// descriptors, or urgent data.)
    fn short_is_all(&self) -> bool {
        false
    }

    /// Whether a `read` would return 0 or fail; asked only when the other side has said so, and
    /// there is no room to read into.
    fn at_end(&self) -> bool;
}

/// What came of one direction in a turn.
#[derive(Debug)]
pub enum Flow {
    /// Nothing could be moved, or something was.
    Open,
    /// Nothing can be moved from now on.
    Ended,
    /// The call failed, and may again; nothing was moved.
    Failed(io::Error),
}

/// One direction.
#[derive(Clone, Copy, Debug)]
struct Half {
    open: bool,
    ready: bool,
}

impl Half {
    const CLOSED: Self = Self {
        open: false,
        ready: false,
    };
    const BLOCKED: Self = Self {
        open: true,
        ready: false,
    };
    const READY: Self = Self {
        open: true,
        ready: true,
    };

    fn usable(self) -> bool {
        self.open && self.ready
    }
}

/// See the module.
#[derive(Debug)]
pub struct Pump {
    device: Arc<Device>,
    index: u16,
    /// For more than one turn holds, and for the FIFO.
    pub bell: Bell,
    buffer: Box<[u8]>,
    input: Half,
    output: Half,
    /// The other side has announced an end.
    ending: bool,
    /// The other side is gone for both directions.
    gone: bool,
}

impl Pump {
    /// A pump of FIFO `index`, closed.
    pub fn new(device: &Arc<Device>, index: u16, capacity: usize) -> Result<Self, HostError> {
        let bell = Bell::new("event loop").map_err(HostError::system("create an eventfd"))?;
        if let Some(mut fifo) = device.fifo(index) {
            fifo.set_bell(bell.ringer());
        }
        Ok(Self {
            device: Arc::clone(device),
            index,
            bell,
            buffer: vec![0; capacity.clamp(1, TURN)].into_boxed_slice(),
            input: Half::CLOSED,
            output: Half::CLOSED,
            ending: false,
            gone: false,
        })
    }

    /// Which FIFO of the device it serves.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Something new is open whose descriptor is watched: events will tell what is ready. By `outlet`
    /// bytes may leave even so.
    pub fn open(&mut self, outlet: Option<Arc<dyn Outlet>>) {
        // The one before is dropped, and may be closed, without the FIFO's lock.
        drop(self.with_fifo(|fifo| {
            fifo.set_taker(true);
            fifo.set_outlet(outlet)
        }));
        self.input = Half::BLOCKED;
        self.output = Half::BLOCKED;
        self.ending = false;
        self.gone = false;
    }

    /// It is closed in both directions.
    pub fn close(&mut self) {
        self.input = Half::CLOSED;
        self.close_output();
    }

    /// Nothing can be written any more; what comes in still does.
    pub fn close_output(&mut self) {
        self.output = Half::CLOSED;
        // As above.
        drop(self.with_fifo(|fifo| {
            fifo.set_taker(false);
            fifo.set_outlet(None)
        }));
    }

    /// Input is open; `watched` if events will tell when it is ready, which it else always is.
    pub fn open_input(&mut self, watched: bool) {
        self.input = if watched { Half::BLOCKED } else { Half::READY };
        self.bell.ring();
    }

    /// As [`Pump::open_input`], for output.
    pub fn open_output(&mut self, watched: bool) {
        self.output = if watched { Half::BLOCKED } else { Half::READY };
        self.with_fifo(|fifo| fifo.set_taker(true));
        self.bell.ring();
    }

    /// Whether everything that will ever come in has.
    pub fn over(&self) -> bool {
        !self.input.open && (self.gone || !self.output.open)
    }

    /// Takes what the loop says of a descriptor for both directions.
    pub fn note(&mut self, events: EventSet) {
        let end = EventSet::READ_HANG_UP | EventSet::HANG_UP | EventSet::ERROR;
        self.input.ready |= events.intersects(EventSet::IN | end);
        self.output.ready |= events.intersects(EventSet::OUT | EventSet::HANG_UP | EventSet::ERROR);
        self.ending |= events.intersects(end);
        self.gone |= events.contains(EventSet::HANG_UP);
    }

    /// Takes what the loop says of a descriptor that is for input alone.
    pub fn note_input(&mut self, events: EventSet) {
        let end = EventSet::HANG_UP | EventSet::ERROR;
        self.input.ready |= events.intersects(EventSet::IN | end);
        self.ending |= events.intersects(end);
    }

    /// Takes what the loop says of a descriptor that is for output alone.
    pub fn note_output(&mut self, events: EventSet) {
        self.output.ready |= events.intersects(EventSet::OUT | EventSet::ERROR);
    }

    /// Tells the FIFO what its host side is like, and the driver.
    pub fn set_connection(&self, connection: Connection) {
        self.with_fifo(|fifo| fifo.set_connection(connection));
        self.device.serve_fifo(self.index);
    }

    /// Changes the FIFO.
    pub fn with_fifo<T>(&self, change: impl FnOnce(&mut Fifo) -> T) -> Option<T> {
        self.device
            .fifo(self.index)
            .map(|mut fifo| change(&mut fifo))
    }

    /// Wakes the queue worker for the FIFO.
    pub fn serve_fifo(&self) {
        self.device.serve_fifo(self.index);
    }

    /// Moves what one call moves in each direction; rings for another turn if there is more to do
    /// at once. What came of input, and of output.
    pub fn turn(&mut self, stream: &mut impl Stream) -> (Flow, Flow) {
        let mut moved = false;
        let input = self.receive(stream, &mut moved);
        let output = self.send(stream, &mut moved);
        if moved {
            self.device.serve_fifo(self.index);
        }
        let (bytes, room) = self.with_fifo(Fifo::has_work).unwrap_or_default();
        if (room && self.input.usable()) || (bytes && self.output.usable()) {
            self.bell.ring();
        }
        (input, output)
    }

    fn receive(&mut self, stream: &mut impl Stream, moved: &mut bool) -> Flow {
        if !self.input.usable() {
            return Flow::Open;
        }
        let room = self.with_fifo(Fifo::room).unwrap_or_default();
        let most = room.min(self.buffer.len());
        let (space, _) = self.buffer.split_at_mut(most);
        if !space.is_empty() {
            match stream.read(space) {
                Ok(0) => return self.end_input(),
                Ok(len) => {
                    let (bytes, _) = self.buffer.split_at(len.min(most));
                    // Nobody else puts anything into the stream, so there still is the room.
                    if let Some(mut fifo) = self.device.fifo(self.index) {
                        fifo.put(bytes);
                    }
                    *moved = true;
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => {
                        self.input.ready = false;
                        self.ending = false;
                    }
                    _ => return Flow::Failed(error),
                },
            }
        }
        // A hang-up is told at once even if the rx stream is full, unless something is left to read.
        if self.ending
            && self.input.usable()
            && self.with_fifo(Fifo::room) == Some(0)
            && stream.at_end()
        {
            return self.end_input();
        }
        Flow::Open
    }

    fn end_input(&mut self) -> Flow {
        self.input = Half::CLOSED;
        Flow::Ended
    }

    fn send(&mut self, stream: &mut impl Stream, moved: &mut bool) -> Flow {
        if !self.output.usable() {
            return Flow::Open;
        }
        let Some(mut fifo) = self.device.fifo(self.index) else {
            return Flow::Open;
        };
        let (position, len) = fifo.peek(&mut self.buffer);
        drop(fifo);
        let (bytes, _) = self.buffer.split_at(len);
        if bytes.is_empty() {
            return Flow::Open;
        }
        let written = stream.write(bytes);
        let end = position + *written.as_ref().unwrap_or(&0) as u64;
        self.with_fifo(|fifo| fifo.taken(end));
        match written {
            Ok(0) => self.output.ready = false,
            Ok(written) => {
                *moved = true;
                if written < len && stream.short_is_all() {
                    self.output.ready = false;
                }
            }
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => self.output.ready = false,
                io::ErrorKind::BrokenPipe => {
                    self.close_output();
                    return Flow::Ended;
                }
                _ => return Flow::Failed(error),
            },
        }
        Flow::Open
    }
}
