// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One FIFO: its streams, its credit and its state, as section 6 of the specification has them.
//!
//! The rx stream is a [`Ring`]. In a loopback FIFO the tx stream is the same ring; otherwise it is
//! a ring of its own that ends, like the rx stream, at an [`Endpoint`] or outside of the device
//! (`outside.rs`).
//! It decides what a message means; it must not know virtqueues, guest memory or sockets.

#![forbid(unsafe_code)]

mod by_hand;
mod outside;
mod reset;

use std::io::Write;
use std::sync::Arc;

use tracing::debug;
use tracing::warn;
use virtio_fifo_protocol::virtio_fifo::RxHeader;
use virtio_fifo_protocol::virtio_fifo::STATE_ERROR;
use virtio_fifo_protocol::virtio_fifo::STATE_HANGUP;
use virtio_fifo_protocol::virtio_fifo::STATE_LOOPBACK;
use virtio_fifo_protocol::virtio_fifo::STATE_RX_END;
use virtio_fifo_protocol::virtio_fifo::State;
use virtio_fifo_protocol::virtio_fifo::TxHeader;

use crate::endpoint::Endpoint;
use crate::outlet::Payload;
use crate::refusal::Refusal;
use crate::refusal::Refusals;
use crate::ring::Ring;
use crate::ring::RingError;
use crate::trace::Tracer;
use crate::trace::What;

pub use self::by_hand::NotByHand;
use self::outside::Doorbell;
use self::outside::LEAVE_AT;
pub use self::reset::ResetPolicy;

/// What the host side of a FIFO is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// There, and will be as long as the device: a loopback, a file …
    #[default]
    Lasting,
    /// Nobody was there yet: bytes wait for the first who comes.
    Awaited,
    /// A peer is there.
    Connected,
    /// What is there sends nothing more, but takes what it is sent.
    HalfClosed,
    /// What was there is gone; the next peer may come.
    Gone,
}

/// One direction of a FIFO, at one moment. All but the level counts since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that came in.
    pub entered: u64,
    /// Bytes that went out at the other end, or were discarded.
    pub left: u64,
    /// Bytes inside.
    pub level: usize,
    /// Messages to or from the driver that carried any of them.
    pub messages: u64,
}

/// A FIFO at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Which one of the device.
    pub index: u16,
    /// Bytes that each direction holds.
    pub capacity: usize,
    /// `STATE_LOOPBACK`, `STATE_HANGUP` …, as the driver is told.
    pub flags: u32,
    /// The host side.
    pub connection: Connection,
    /// How many peers there were, the present one included.
    pub peers: u64,
    /// From the host side to the driver.
    pub rx: Traffic,
    /// From the driver to the host side; in a loopback FIFO it enters `rx` at once.
    pub tx: Traffic,
}

/// Where the streams of a FIFO end that is no loopback.
#[derive(Debug)]
enum End {
    /// Within the device.
    Inside(Endpoint),
    /// At something that the event loop serves.
    Outside(Doorbell),
}

/// The tx stream of a FIFO that is no loopback.
#[derive(Debug)]
struct Host {
    end: End,
    tx: Ring,
    /// The highest `tx_limit` that the driver was told.
    told: u64,
}

impl Host {
    /// The highest `tx_limit` that can be told.
    fn limit(&self) -> u64 {
        limit(&self.tx, self.tx.consumed())
    }

    /// DEV-16, DEV-17: whether the driver runs out of credit and there is more to give.
    fn credit_due(&self) -> bool {
        let capacity = self.tx.capacity() as u64;
        let accepted = self.tx.written();
        let left = self.told.saturating_sub(accepted);
        let free = self.limit().saturating_sub(accepted);
        self.limit() > self.told && (left == 0 || (2 * left < capacity && 2 * free >= capacity))
    }
}

/// One FIFO of the device.
#[derive(Debug)]
pub struct Fifo {
    index: u16,
    rx: Ring,
    /// `None` in a loopback FIFO.
    host: Option<Host>,
    /// `STATE_ERROR`
    failed: bool,
    /// Hung up by hand: as `cut_off`, until that is taken back.
    hung_up: bool,
    /// Something happened that an event must tell.
    changed: bool,
    /// Told to be slow: nothing is moved between driver and host side.
    held_up: bool,
    /// Told to seem hung up: nothing is moved between FIFO and host side.
    cut_off: bool,
    reset: ResetPolicy,
    refusals: Refusals,
    connection: Connection,
    peers: u64,
    rx_messages: u64,
    tx_messages: u64,
    tracer: Arc<Tracer>,
}

impl Fifo {
    /// A FIFO whose tx stream is its rx stream.
    pub fn loopback(index: u16, capacity: usize, reset: ResetPolicy) -> Self {
        Self {
            index,
            rx: Ring::new(capacity),
            host: None,
            failed: false,
            hung_up: false,
            changed: false,
            held_up: false,
            cut_off: false,
            reset,
            refusals: Refusals::default(),
            connection: Connection::default(),
            peers: 0,
            rx_messages: 0,
            tx_messages: 0,
            tracer: Arc::default(),
        }
    }

    /// A FIFO whose streams end at `endpoint`, each `capacity` bytes deep.
    pub fn with_endpoint(
        index: u16,
        capacity: usize,
        reset: ResetPolicy,
        endpoint: Endpoint,
    ) -> Self {
        Self::with_end(index, capacity, reset, End::Inside(endpoint))
    }

    /// A FIFO whose streams end at something that the event loop serves.
    pub fn with_outside(index: u16, capacity: usize, reset: ResetPolicy) -> Self {
        Self::with_end(index, capacity, reset, End::Outside(Doorbell::default()))
    }

    fn with_end(index: u16, capacity: usize, reset: ResetPolicy, end: End) -> Self {
        let host = Host {
            end,
            tx: Ring::new(capacity),
            told: 0,
        };
        let rx = match &host.end {
            End::Inside(endpoint) if endpoint.makes() => Ring::of_made_bytes(capacity),
            End::Inside(_) | End::Outside(_) => Ring::new(capacity),
        };
        Self {
            rx,
            host: Some(host),
            ..Self::loopback(index, capacity, reset)
        }
    }

    /// Records its events in `tracer`.
    #[must_use]
    pub fn traced_by(self, tracer: Arc<Tracer>) -> Self {
        Self { tracer, ..self }
    }

    /// Which FIFO of the device it is.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// What was refused from its driver so far.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// What it is like now.
    pub fn status(&self) -> Status {
        let traffic = |ring: &Ring, messages| Traffic {
            entered: ring.written(),
            left: ring.consumed(),
            level: ring.len(),
            messages,
        };
        let tx = match &self.host {
            Some(host) => traffic(&host.tx, self.tx_messages),
            None => Traffic {
                entered: self.rx.written(),
                left: self.rx.written(),
                level: 0,
                messages: self.tx_messages,
            },
        };
        Status {
            index: self.index,
            capacity: self.rx.capacity(),
            flags: self.state_flags(),
            connection: self.connection,
            peers: self.peers,
            rx: traffic(&self.rx, self.rx_messages),
            tx,
        }
    }

    /// Takes one tx message: `len` payload bytes from `payload`, or nothing at all.
    ///
    /// # Errors
    ///
    /// The reason of the refusal; it is for the caller to [`Fifo::refuse`].
    pub fn accept(
        &mut self,
        header: TxHeader,
        payload: &mut impl Payload,
        len: usize,
    ) -> Result<(), Refusal> {
        let fifo = self.index;
        self.tracer.record(|| What::Pop {
            fifo,
            position: header.offset,
            bytes: len,
        });
        if self.failed {
            return Err(Refusal::Failed);
        }
        if header.offset != self.tx_accepted() {
            return Err(Refusal::WrongOffset);
        }
        if header.rx_consumed > self.rx.sent() {
            return Err(Refusal::NotSent);
        }
        let limit = match &self.host {
            Some(host) => host.told,
            None => limit(&self.rx, header.rx_consumed.max(self.rx.consumed())),
        };
        let end = header.offset.checked_add(len as u64);
        if end.is_none_or(|end| end > limit) {
            return Err(Refusal::OverLimit);
        }
        // DEV-9: the room that the payload needs may be what this header gives back.
        self.rx
            .consume_to(header.rx_consumed)
            .map_err(|_| Refusal::NotSent)?;
        let left = len - self.let_through(payload, len);
        let ring = match &mut self.host {
            Some(host) => &mut host.tx,
            None => &mut self.rx,
        };
        ring.push_from(payload, left).map_err(|error| match error {
            RingError::Full { .. } | RingError::NotSent { .. } => Refusal::OverLimit,
            RingError::Io(_) => Refusal::InvalidChain,
        })?;
        self.tx_messages += u64::from(len > 0);
        if !self.leaves_at_once() {
            self.ring_bell();
        } else if self.untaken() >= LEAVE_AT && !self.is_narrow() {
            self.let_out();
        } else {
            self.ring_bell_for(false);
        }
        Ok(())
    }

    /// DEV-11: counts a refused tx message, or a corrupt queue, and fails the FIFO.
    pub fn fail(&mut self, queue: &'static str, reason: Refusal) {
        self.refuse(queue, reason);
        self.change(|fifo| fifo.failed = true);
    }

    /// Puts the FIFO into `STATE_ERROR` though its driver did nothing wrong.
    pub fn break_down(&mut self) {
        self.change(|fifo| fifo.failed = true);
    }

    /// Puts off what is to be moved between driver and host side, or stops that.
    pub fn hold_up(&mut self, on: bool) {
        self.held_up = on;
        self.ring_bell();
    }

    /// Cuts the FIFO off from its host side, which the driver sees as a hang-up, or stops that.
    pub fn cut_off(&mut self, on: bool) {
        self.change(|fifo| fifo.cut_off = on);
        self.ring_bell();
    }

    /// Counts something refused that does the FIFO no harm.
    pub fn refuse(&mut self, queue: &'static str, reason: Refusal) {
        let fifo = self.index;
        self.tracer.record(|| What::Refused { fifo, reason });
        self.refusals.add(format_args!("{queue} {fifo}"), reason);
    }

    /// Bytes that wait to be delivered to the driver; none while the FIFO has failed.
    pub fn pending(&self) -> usize {
        if self.failed || self.held_up {
            0
        } else {
            self.rx.unsent()
        }
    }

    /// Whether nothing is moved between FIFO and host side.
    fn stands_still(&self) -> bool {
        self.failed || self.held_up || self.cut_off || self.hung_up
    }

    /// Writes one rx message of at most `space` bytes to `sink`; returns its length.
    ///
    /// # Errors
    ///
    /// [`Refusal::WrongLength`] if header and one byte do not fit (DEV-15), `InvalidChain` if
    /// `sink` fails. Nothing of the stream is lost with the buffer.
    pub fn deliver(&mut self, sink: &mut impl Write, space: usize) -> Result<usize, Refusal> {
        let payload = space.saturating_sub(RxHeader::LEN).min(self.pending());
        if payload == 0 {
            return Err(Refusal::WrongLength);
        }
        let header = self.rx_header();
        sink.write_all(&header.to_bytes())
            .map_err(|_| Refusal::InvalidChain)?;
        let sent = match &self.host {
            Some(Host {
                end: End::Inside(endpoint),
                ..
            }) if endpoint.makes() => self.rx.make_to(sink, payload, |position, bytes| {
                endpoint.make(position, bytes);
            }),
            _ => self.rx.send_to(sink, payload),
        };
        sent.map_err(|_| Refusal::InvalidChain)?;
        self.told(header.tx_limit);
        self.rx_messages += 1;
        self.tracer.record(|| What::Push {
            fifo: self.index,
            position: header.offset,
            bytes: payload,
        });
        Ok(RxHeader::LEN + payload)
    }

    /// The header of the next rx message.
    pub fn rx_header(&self) -> RxHeader {
        RxHeader {
            offset: self.rx.sent(),
            rx_floor: self.rx.consumed(),
            tx_limit: self.tx_limit(),
        }
    }

    /// Moves what can be moved now between the rings and an endpoint within the device.
    pub fn exchange(&mut self) {
        if self.stands_still() {
            return;
        }
        let Some(Host {
            end: End::Inside(endpoint),
            tx,
            ..
        }) = &mut self.host
        else {
            return;
        };
        let (mut wrong, begun, fifo) = (None, self.tracer.begin(), self.index);
        tx.drain_with(|position, bytes| {
            trace_moved(&self.tracer, begun, bytes.len(), |bytes| {
                What::EndpointWrite {
                    fifo,
                    position,
                    bytes,
                }
            });
            if let Err(mismatch) = endpoint.take(position, bytes) {
                wrong.get_or_insert(mismatch);
            }
        });
        if endpoint.makes() {
            let position = self.rx.written();
            let bytes = self.rx.claim();
            trace_moved(&self.tracer, begun, bytes, |bytes| What::EndpointRead {
                fifo,
                position,
                bytes,
            });
        }
        if let Some(mismatch) = wrong {
            // The first is what matters; the rest is counted with the refusals.
            if self.refusals.count(Refusal::Mismatch) == 0 {
                warn!(fifo = self.index, %mismatch, "the driver sent what is not the pattern");
            }
            self.fail("tx", Refusal::Mismatch);
        }
    }

    /// Whether its rx stream is made here.
    fn makes_bytes(&self) -> bool {
        matches!(
            &self.host,
            Some(Host { end: End::Inside(endpoint), .. }) if endpoint.makes()
        )
    }

    /// What the host side is like from now on.
    pub fn set_connection(&mut self, connection: Connection) {
        let was_there = matches!(
            self.connection,
            Connection::Connected | Connection::HalfClosed
        );
        if connection == Connection::Connected && !was_there {
            self.peers += 1;
        }
        self.change(|fifo| fifo.connection = connection);
    }

    /// Whether the endpoint could give more if only the rx ring had room (DEV-12).
    pub fn is_full(&self) -> bool {
        self.host.is_some() && self.rx.free() == 0
    }

    /// DEV-23: discards every byte in both directions; returns how many there were.
    pub fn clear(&mut self) -> usize {
        let mut count = self.rx.clear();
        if let Some(host) = &mut self.host {
            count += host.tx.clear();
        }
        debug!(fifo = self.index, bytes = count, "cleared");
        self.tracer.record(|| What::Clear {
            fifo: self.index,
            bytes: count,
        });
        self.ring_bell();
        count
    }

    /// The state to tell the driver; from now on it counts as told.
    pub fn tell_state(&mut self) -> State {
        let state = self.state();
        self.told(state.tx_limit);
        state
    }

    /// The state of now.
    pub fn state(&self) -> State {
        State {
            fifo: self.index.into(),
            flags: self.state_flags(),
            capacity: u32::try_from(self.rx.capacity()).unwrap_or(u32::MAX),
            rx_floor: self.rx.consumed(),
            rx_end: self.rx.written(),
            tx_accepted: self.tx_accepted(),
            tx_limit: self.tx_limit(),
        }
    }

    /// Whether the driver must be told something by an event (DEV-16, DEV-17).
    pub fn event_due(&self) -> bool {
        self.changed || self.host.as_ref().is_some_and(Host::credit_due)
    }

    /// The state of now has been written to an event buffer.
    pub fn event_told(&mut self) {
        self.changed = false;
    }

    /// Position of the next tx byte.
    pub fn tx_accepted(&self) -> u64 {
        match &self.host {
            Some(host) => host.tx.written(),
            None => self.rx.written(),
        }
    }

    fn tx_limit(&self) -> u64 {
        match &self.host {
            Some(host) => host.limit(),
            None => limit(&self.rx, self.rx.consumed()),
        }
    }

    fn told(&mut self, limit: u64) {
        if let Some(host) = &mut self.host {
            host.told = host.told.max(limit);
        }
    }

    fn state_flags(&self) -> u32 {
        let mut flags = match self.connection {
            Connection::Lasting | Connection::Awaited | Connection::Connected => 0,
            Connection::HalfClosed => STATE_RX_END,
            Connection::Gone => STATE_HANGUP,
        };
        for (flag, on) in [
            (STATE_LOOPBACK, self.host.is_none()),
            (STATE_HANGUP, self.hung_up || self.cut_off),
            (STATE_ERROR, self.failed),
        ] {
            flags |= if on { flag } else { 0 };
        }
        flags
    }

    /// Changes what the flags are made of; the driver must be told if they differ.
    fn change(&mut self, change: impl FnOnce(&mut Self)) {
        let from = self.state_flags();
        change(self);
        let to = self.state_flags();
        if from != to {
            // A guest can do this as often as it likes: no line of its own in the log.
            debug!(fifo = self.index, from, to, "state flags changed");
            let fifo = self.index;
            self.tracer.record(|| What::State { fifo, from, to });
            self.changed = true;
        }
    }
}

/// Records bytes that were moved, if there were any, by something that began when the tracer says.
fn trace_moved(
    tracer: &Tracer,
    begun: Option<u64>,
    bytes: usize,
    what: impl FnOnce(usize) -> What,
) {
    tracer.record_at(begun.filter(|_| bytes > 0), || what(bytes));
}

/// The limit of a stream that is stored in `ring` when all below `consumed` has left it.
fn limit(ring: &Ring, consumed: u64) -> u64 {
    consumed.saturating_add(ring.capacity() as u64)
}

#[cfg(test)]
mod tests;
