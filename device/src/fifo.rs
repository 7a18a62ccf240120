// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One FIFO: its streams, its credit and its state, as section 6 of the specification has them.
//!
//! The rx stream is a [`Ring`]. In a loopback FIFO the tx stream is the same ring; otherwise it is
//! a ring of its own that ends, like the rx stream, at an [`Endpoint`] or outside of the device. For
//! what is outside, the event loop moves the bytes between host and rings, and this file rings its
//! bell when there is something to move; or bytes leave by an [`Outlet`] as soon as they are accepted.
//! It decides what a message means; it must not know virtqueues, guest memory or sockets.

#![forbid(unsafe_code)]

mod by_hand;

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
use vmm_sys_util::event::EventNotifier;

use crate::endpoint::Endpoint;
use crate::outlet::Outlet;
use crate::outlet::Payload;
use crate::refusal::Refusal;
use crate::refusal::Refusals;
use crate::ring::Ring;
use crate::ring::RingError;

pub use self::by_hand::NotByHand;

/// What a device reset does with bytes that the driver has not consumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ResetPolicy {
    /// They stay and are delivered again.
    #[default]
    Keep,
    /// They are discarded.
    Clear,
}

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

/// Most bytes that wait for the end of a pass before they leave by an [`Outlet`].
const LEAVE_AT: usize = 16_384;

/// Least payload that is offered to an [`Outlet`] where it is. That spares a copy, but the driver has its
/// message back only after it.
const LEAVE_FROM: usize = 65536;

/// How the event loop learns that there is something to move.
#[derive(Debug, Default)]
struct Doorbell {
    bell: Option<Arc<EventNotifier>>,
    /// By this, bytes leave without the event loop, …
    outlet: Option<Arc<dyn Outlet>>,
    /// … except while it is taking some out itself: later ones must not overtake them.
    leaving: bool,
    /// The outlet has not taken all it was offered in this pass.
    narrow: bool,
    /// It found the rx ring full, …
    wants_space: bool,
    /// … or the tx ring empty, and does not look again before the bell.
    wants_bytes: bool,
}

impl Doorbell {
    fn ring(&mut self) {
        self.wants_space = false;
        self.wants_bytes = false;
        if let Some(bell) = &self.bell
            && let Err(error) = bell.notify()
        {
            warn!(%error, "cannot wake the event loop");
        }
    }
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

    /// Offers the outlet the `len` bytes of a large payload where they are; how many it took.
    fn let_through(&mut self, payload: &mut impl Payload, len: usize) -> usize {
        if len < LEAVE_FROM || !self.leaves_at_once() || self.is_narrow() {
            return 0;
        }
        if self.untaken() > 0 {
            self.let_out();
        }
        let Some(Host {
            end: End::Outside(doorbell),
            tx,
            ..
        }) = &mut self.host
        else {
            return 0;
        };
        let Some(outlet) = doorbell.outlet.as_ref().filter(|_| tx.is_empty()) else {
            return 0;
        };
        let mut narrow = false;
        let taken = payload.show(len, |pieces| {
            let taken = outlet.offer_pieces(pieces).unwrap_or(0);
            narrow = taken < len;
            taken
        });
        tx.pass_through(taken);
        doorbell.narrow = narrow;
        taken
    }

    /// A pass over tx messages is over: what can leave at once does.
    pub fn pass_over(&mut self) {
        if self.leaves_at_once() {
            if self.is_narrow() {
                self.ring_bell();
            } else {
                self.let_out();
            }
        }
        if let Some(doorbell) = self.doorbell() {
            doorbell.narrow = false;
        }
    }

    fn is_narrow(&mut self) -> bool {
        self.doorbell().is_some_and(|doorbell| doorbell.narrow)
    }

    /// Whether what comes in leaves by the outlet.
    fn leaves_at_once(&self) -> bool {
        match &self.host {
            Some(Host {
                end: End::Outside(doorbell),
                ..
            }) => doorbell.outlet.is_some() && !doorbell.leaving && !self.stands_still(),
            _ => false,
        }
    }

    /// Offers the outlet what waits; what stays is for the event loop.
    fn let_out(&mut self) {
        if let Some(Host {
            end: End::Outside(doorbell),
            tx,
            ..
        }) = &mut self.host
            && let Some(outlet) = &doorbell.outlet
            && tx.unsent() > 0
        {
            let (first, second) = tx.unsent_parts();
            if let Ok(len) = outlet.offer(first, second) {
                tx.drop_to(tx.sent().saturating_add(len as u64));
            }
            doorbell.narrow = tx.unsent() > 0;
        }
        self.ring_bell();
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
        let index = self.index;
        self.refusals.add(format_args!("{queue} {index}"), reason);
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
        let mut wrong = None;
        tx.drain_with(|position, bytes| {
            if let Err(mismatch) = endpoint.take(position, bytes) {
                wrong.get_or_insert(mismatch);
            }
        });
        if endpoint.makes() {
            self.rx.claim();
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

    /// Sets what is rung when there is something to move to or from the outside.
    pub fn set_bell(&mut self, bell: Arc<EventNotifier>) {
        if let Some(doorbell) = self.doorbell() {
            doorbell.bell = Some(bell);
        }
    }

    /// Sets the way by which bytes may leave from now on without the event loop, or that there is none;
    /// the one until now, to be dropped without the lock.
    pub fn set_outlet(&mut self, outlet: Option<Arc<dyn Outlet>>) -> Option<Arc<dyn Outlet>> {
        let doorbell = self.doorbell()?;
        doorbell.narrow = false;
        std::mem::replace(&mut doorbell.outlet, outlet)
    }

    /// How many bytes can be [`Fifo::put`]; if none, the bell tells when that changes. A FIFO that
    /// has failed stands still until it is reset.
    pub fn room(&mut self) -> usize {
        let room = if self.stands_still() {
            0
        } else {
            self.rx.free()
        };
        if let Some(doorbell) = self.doorbell() {
            doorbell.wants_space |= room == 0;
        }
        room
    }

    /// Takes bytes for the driver; how many of them.
    pub fn put(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(self.rx.free());
        let mut source = bytes;
        match self.rx.push_from(&mut source, len) {
            Ok(()) => len,
            Err(_) => 0,
        }
    }

    /// Copies bytes of the driver that wait to go outside: the position of the first, and how many.
    /// If there are none, the bell tells when that changes; otherwise [`Fifo::taken`] has to follow.
    pub fn peek(&mut self, bytes: &mut [u8]) -> (u64, usize) {
        let still = self.stands_still();
        let Some(host) = &mut self.host else {
            return (0, 0);
        };
        let bytes = if still { &mut [] } else { bytes };
        let (position, len) = host.tx.peek(bytes);
        if let End::Outside(doorbell) = &mut host.end {
            doorbell.wants_bytes |= len == 0;
            doorbell.leaving = len > 0;
        }
        (position, len)
    }

    /// The bytes below `position` of the tx stream are outside, of those that [`Fifo::peek`] gave. (A
    /// clear may have been faster.)
    pub fn taken(&mut self, position: u64) {
        if let Some(host) = &mut self.host {
            host.tx.drop_to(position);
        }
        if let Some(doorbell) = self.doorbell() {
            doorbell.leaving = false;
        }
    }

    /// Whether bytes of the driver wait to go outside, and whether there is room for more for it.
    /// What there is not, the bell tells of.
    pub fn has_work(&mut self) -> (bool, bool) {
        let bytes = self.untaken() > 0 && !self.stands_still();
        if let Some(doorbell) = self.doorbell() {
            doorbell.wants_bytes |= !bytes;
        }
        (bytes, self.room() > 0)
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

    fn doorbell(&mut self) -> Option<&mut Doorbell> {
        match &mut self.host {
            Some(Host {
                end: End::Outside(doorbell),
                ..
            }) => Some(doorbell),
            _ => None,
        }
    }

    /// Tells the event loop of what it wants to know, if that is so now.
    fn ring_bell(&mut self) {
        self.ring_bell_for(true);
    }

    /// As [`Fifo::ring_bell`], of `bytes` only if they do not leave by themselves.
    fn ring_bell_for(&mut self, bytes: bool) {
        if self.stands_still() {
            return;
        }
        let space = self.rx.free() > 0;
        let bytes = bytes && self.untaken() > 0;
        if let Some(doorbell) = self.doorbell()
            && (doorbell.wants_space && space || doorbell.wants_bytes && bytes)
        {
            doorbell.ring();
        }
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
        self.ring_bell();
        count
    }

    /// DEV-6, DEV-21: what a device reset means for this FIFO. The counters run on.
    pub fn reset(&mut self) {
        match self.reset {
            ResetPolicy::Keep => self.rx.rewind(),
            ResetPolicy::Clear => {
                self.clear();
            }
        }
        self.failed = false;
        // Whatever the old driver was not told, the new one asks for (DRV-4).
        self.changed = false;
        self.ring_bell();
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
            self.changed = true;
        }
    }
}

/// The limit of a stream that is stored in `ring` when all below `consumed` has left it.
fn limit(ring: &Ring, consumed: u64) -> u64 {
    consumed.saturating_add(ring.capacity() as u64)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::io::Read;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;

    use rstest::rstest;
    use vm_memory::VolatileSlice;
    use vmm_sys_util::event::EventConsumer;
    use vmm_sys_util::event::EventFlag;
    use vmm_sys_util::event::new_event_consumer_and_notifier;

    use super::*;
    use crate::pattern::Pattern;

    /// A FIFO with an outside, and the bell by which it calls for the event loop.
    fn outside(capacity: usize) -> (Fifo, EventConsumer) {
        let flags = EventFlag::NONBLOCK | EventFlag::CLOEXEC;
        let (rung, bell) = new_event_consumer_and_notifier(flags).unwrap();
        let mut fifo = Fifo::with_outside(0, capacity, ResetPolicy::Keep);
        fifo.set_bell(Arc::new(bell));
        fifo.tell_state();
        (fifo, rung)
    }

    /// What the host takes.
    fn take(fifo: &mut Fifo, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; most];
        let (position, len) = fifo.peek(&mut bytes);
        fifo.taken(position + len as u64);
        bytes.truncate(len);
        bytes
    }

    fn send(fifo: &mut Fifo, payload: &[u8]) -> Result<(), Refusal> {
        let header = TxHeader {
            offset: fifo.tx_accepted(),
            rx_consumed: fifo.rx.sent(),
        };
        let mut source = payload;
        fifo.accept(header, &mut source, payload.len())
    }

    fn receive(fifo: &mut Fifo) -> Vec<u8> {
        let mut message = Vec::new();
        fifo.deliver(&mut message, 1000).unwrap();
        message.split_off(RxHeader::LEN)
    }

    /// DEV-10, DEV-20: a host that takes little holds nothing up; credit is what it took.
    #[test]
    fn a_slow_host_limits_credit() {
        let (mut fifo, _) = outside(8);
        send(&mut fifo, b"12345678").unwrap();
        assert_eq!(take(&mut fifo, 3), b"123");
        // DEV-16: the limit told is reached, and a higher one can be given.
        assert!(fifo.event_due());
        assert_eq!(send(&mut fifo, b"9"), Err(Refusal::OverLimit));
        assert_eq!(fifo.tell_state().tx_limit, 11);
        assert!(!fifo.event_due());
        send(&mut fifo, b"9ab").unwrap();
        assert!(!fifo.event_due());
        assert_eq!(take(&mut fifo, 99), b"456789ab");
    }

    /// DEV-16: each change of the host side is an event, if the driver can see it.
    #[rstest]
    #[case(Connection::Lasting, 0)]
    #[case(Connection::Awaited, 0)]
    #[case(Connection::Connected, 0)]
    #[case(Connection::HalfClosed, STATE_RX_END)]
    #[case(Connection::Gone, STATE_HANGUP)]
    fn the_driver_is_told_of_the_host_side(#[case] connection: Connection, #[case] flags: u32) {
        let (mut fifo, _) = outside(8);
        fifo.put(b"last");
        fifo.set_connection(connection);
        assert_eq!(fifo.event_due(), flags != 0);
        let state = fifo.tell_state();
        assert_eq!((state.flags, state.rx_end), (flags, 4));
        fifo.event_told();
        assert_eq!(receive(&mut fifo), b"last");
        fifo.set_connection(Connection::Connected);
        assert_eq!(fifo.event_due(), flags != 0);
        assert_eq!(fifo.tell_state().flags, 0);
    }

    #[test]
    fn peers_are_counted() {
        let (mut fifo, _) = outside(8);
        for connection in [
            Connection::Awaited,
            Connection::Connected,
            Connection::HalfClosed,
            Connection::Connected,
            Connection::Gone,
            Connection::Connected,
        ] {
            fifo.set_connection(connection);
        }
        assert_eq!(fifo.status().peers, 2);
    }

    /// A hang-up on demand, of any kind of FIFO.
    #[test]
    fn hang_up_on_demand() {
        let mut fifo = Fifo::loopback(0, 8, ResetPolicy::Keep);
        fifo.hang_up(true);
        assert!(fifo.event_due());
        assert_eq!(fifo.tell_state().flags, STATE_LOOPBACK | STATE_HANGUP);
        fifo.hang_up(false);
        assert_eq!(fifo.tell_state().flags, STATE_LOOPBACK);
    }

    /// DEV-4: no more is taken from the host than there is room, and the bell tells of more room
    /// and of bytes, each once, and only to a loop that found none.
    #[test]
    fn the_bell_rings_for_who_waits() {
        let (mut fifo, rung) = outside(4);
        send(&mut fifo, b"x").unwrap();
        assert!(rung.consume().is_err());
        assert_eq!(take(&mut fifo, 9), b"x");
        assert_eq!(fifo.has_work(), (false, true));
        send(&mut fifo, b"").unwrap();
        assert!(rung.consume().is_err());
        send(&mut fifo, b"y").unwrap();
        send(&mut fifo, b"z").unwrap();
        rung.consume().unwrap();
        assert_eq!(fifo.put(b"abcdef"), 4);
        assert_eq!(fifo.put(b"ef"), 0);
        assert_eq!(fifo.has_work(), (true, false));
        assert_eq!(receive(&mut fifo), b"abcd");
        assert!(fifo.is_full());
        // The report makes room.
        send(&mut fifo, b"").unwrap();
        rung.consume().unwrap();
        assert_eq!(fifo.room(), 4);
    }

    /// A way out that takes `most` bytes at a time.
    #[derive(Debug)]
    struct Gate {
        most: AtomicUsize,
        taken: Mutex<Vec<u8>>,
        /// Those of them from where a guest has them.
        in_pieces: AtomicUsize,
    }

    impl Gate {
        fn new(most: usize) -> Arc<Self> {
            Arc::new(Self {
                most: AtomicUsize::new(most),
                taken: Mutex::default(),
                in_pieces: AtomicUsize::new(0),
            })
        }

        fn open(&self, most: usize) {
            self.most.store(most, Ordering::Relaxed);
        }

        fn taken(&self) -> Vec<u8> {
            std::mem::take(&mut *self.taken.lock().unwrap())
        }
    }

    impl Outlet for Gate {
        fn offer_pieces(&self, pieces: &[VolatileSlice<'_>]) -> io::Result<usize> {
            let mut bytes = Vec::new();
            for piece in pieces {
                let mut copy = vec![0; piece.len()];
                piece.copy_to(&mut copy);
                bytes.extend(copy);
            }
            let len = self.offer(&bytes, &[])?;
            self.in_pieces.fetch_add(len, Ordering::Relaxed);
            Ok(len)
        }

        fn offer(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
            let bytes = [first, second].concat();
            let len = bytes.len().min(self.most.load(Ordering::Relaxed));
            if len == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.taken.lock().unwrap().extend_from_slice(&bytes[..len]);
            Ok(len)
        }
    }

    /// Bytes leave when the pass is over, and the loop does not hear of it.
    #[test]
    fn bytes_leave_by_the_outlet() {
        let (mut fifo, rung) = outside(8);
        let gate = Gate::new(usize::MAX);
        fifo.set_outlet(Some(gate.clone()));
        fifo.has_work();
        for _ in 0..3 {
            send(&mut fifo, b"12345").unwrap();
            send(&mut fifo, b"678").unwrap();
            assert_eq!(gate.taken(), b"");
            fifo.pass_over();
            assert_eq!(gate.taken(), b"12345678");
            assert_eq!(fifo.untaken(), 0);
            fifo.tell_state();
        }
        assert!(rung.consume().is_err());
        fifo.set_outlet(None);
        send(&mut fifo, b"x").unwrap();
        rung.consume().unwrap();
        fifo.pass_over();
        assert_eq!(take(&mut fifo, 9), b"x");
    }

    /// A payload in two pieces of a guest's memory.
    struct Shown {
        bytes: Vec<u8>,
        at: usize,
    }

    impl Read for Shown {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let len = (&self.bytes[self.at..]).read(bytes)?;
            self.at += len;
            Ok(len)
        }
    }

    impl Payload for Shown {
        fn show(&mut self, len: usize, take: impl FnOnce(&[VolatileSlice<'_>]) -> usize) -> usize {
            let (first, second) = self.bytes[self.at..][..len].split_at_mut(len / 3);
            let taken = take(&[VolatileSlice::from(first), VolatileSlice::from(second)]);
            self.at += taken;
            taken
        }
    }

    /// Large payloads leave from where they are, unless others are before them; what the outlet does not take
    /// stays, and what follows waits behind it.
    #[rstest]
    #[case(LEAVE_FROM, b"", usize::MAX, (0, LEAVE_FROM))]
    #[case(LEAVE_FROM, b"before", usize::MAX, (6, LEAVE_FROM))]
    #[case(LEAVE_FROM, b"before", LEAVE_FROM - 1, (6, LEAVE_FROM - 1))]
    #[case(LEAVE_FROM, b"before", 3, (3, 0))]
    #[case(LEAVE_FROM, b"", 0, (0, 0))]
    #[case(LEAVE_FROM - 1, b"", usize::MAX, (LEAVE_FROM - 1, 0))]
    fn large_payloads_leave_from_where_they_are(
        #[case] len: usize,
        #[case] before: &[u8],
        #[case] most: usize,
        #[case] (copied, in_pieces): (usize, usize),
    ) {
        let (mut fifo, rung) = outside(2 * LEAVE_FROM);
        let gate = Gate::new(most);
        fifo.set_outlet(Some(gate.clone()));
        fifo.has_work();
        send(&mut fifo, before).unwrap();
        let mut bytes = vec![0; len];
        Pattern::new(3).fill(0, &mut bytes);
        let mut payload = Shown {
            bytes: bytes.clone(),
            at: 0,
        };
        let header = TxHeader {
            offset: fifo.tx_accepted(),
            rx_consumed: 0,
        };
        fifo.accept(header, &mut payload, len).unwrap();
        assert_eq!(payload.at, len);
        let mut taken = gate.taken();
        assert_eq!(taken.len(), copied + in_pieces);
        assert_eq!(gate.in_pieces.load(Ordering::Relaxed), in_pieces);
        let status = fifo.status().tx;
        assert_eq!(status.entered, (before.len() + len) as u64);
        assert_eq!(status.level, before.len() + len - copied - in_pieces);
        send(&mut fifo, b"after").unwrap();
        fifo.pass_over();
        taken.extend(gate.taken());
        let (at_end, all) = (taken.len(), [before, &bytes, b"after"].concat());
        assert_eq!(rung.consume().is_ok(), at_end < all.len());
        taken.extend(take(&mut fifo, usize::from(u16::MAX) * 3));
        assert_eq!(taken, all);
    }

    /// What the outlet does not take stays, in order, and the loop is called.
    #[test]
    fn what_does_not_fit_through_the_outlet_is_for_the_loop() {
        let (mut fifo, rung) = outside(8);
        let gate = Gate::new(3);
        fifo.set_outlet(Some(gate.clone()));
        fifo.has_work();
        send(&mut fifo, b"12345").unwrap();
        fifo.pass_over();
        assert_eq!(gate.taken(), b"123");
        rung.consume().unwrap();
        gate.open(0);
        send(&mut fifo, b"6").unwrap();
        fifo.pass_over();
        assert_eq!(take(&mut fifo, 9), b"456");
    }

    /// Nothing overtakes what the loop has in hand, a clear or not.
    #[rstest]
    #[case(false)]
    #[case(true)]
    fn the_outlet_waits_for_what_the_loop_takes_out(#[case] clear: bool) {
        let (mut fifo, rung) = outside(8);
        let gate = Gate::new(0);
        fifo.set_outlet(Some(gate.clone()));
        send(&mut fifo, b"1234").unwrap();
        fifo.pass_over();
        let (position, len) = fifo.peek(&mut [0; 2]);
        assert_eq!((position, len), (0, 2));
        gate.open(usize::MAX);
        if clear {
            fifo.clear();
        }
        send(&mut fifo, b"56").unwrap();
        fifo.pass_over();
        assert_eq!(gate.taken(), b"");
        fifo.taken(2);
        // The loop is at it, and sees that there is more.
        assert_eq!(fifo.has_work(), (true, true));
        assert!(rung.consume().is_err());
        fifo.pass_over();
        let expected: &[u8] = if clear { b"56" } else { b"3456" };
        assert_eq!(gate.taken(), expected);
    }

    /// A FIFO that stands still lets nothing out; then the loop is called.
    #[test]
    fn nothing_leaves_a_fifo_that_is_held_up() {
        let (mut fifo, rung) = outside(8);
        let gate = Gate::new(usize::MAX);
        fifo.set_outlet(Some(gate.clone()));
        fifo.has_work();
        fifo.hold_up(true);
        send(&mut fifo, b"12").unwrap();
        fifo.pass_over();
        assert_eq!(gate.taken(), b"");
        assert!(rung.consume().is_err());
        fifo.hold_up(false);
        rung.consume().unwrap();
        assert_eq!(take(&mut fifo, 9), b"12");
    }

    /// A FIFO that has failed stands still: its bytes stay, and the reset tells the loop.
    #[test]
    fn a_failed_fifo_keeps_its_bytes_until_the_reset() {
        let (mut fifo, rung) = outside(8);
        send(&mut fifo, b"kept").unwrap();
        fifo.fail("host side of fifo", Refusal::Endpoint);
        assert_eq!(fifo.tell_state().flags, STATE_ERROR);
        assert_eq!(fifo.has_work(), (false, false));
        assert!(rung.consume().is_err());
        fifo.reset();
        rung.consume().unwrap();
        assert_eq!(fifo.tell_state().flags, 0);
        assert_eq!(take(&mut fifo, 9), b"kept");
    }

    /// DEV-23: clear discards what the host has not taken, too, and gives its room back; news of
    /// bytes that were on their way meanwhile change nothing.
    #[test]
    fn clear_discards_both_directions() {
        let (mut fifo, rung) = outside(4);
        fifo.put(b"abcd");
        fifo.room();
        send(&mut fifo, b"wxyz").unwrap();
        let (position, len) = fifo.peek(&mut [0; 2]);
        fifo.clear();
        rung.consume().unwrap();
        fifo.taken(position + len as u64);
        let state = fifo.tell_state();
        assert_eq!((state.rx_floor, state.rx_end), (4, 4));
        assert_eq!((state.tx_accepted, state.tx_limit), (4, 8));
        assert_eq!(take(&mut fifo, 9), b"");
    }

    /// Reads are the pattern from its start, writes must be, and the first that is not fails the
    /// FIFO; after the reset it goes on where it is.
    #[test]
    fn a_pattern_is_given_and_demanded() {
        let pattern = Pattern::new(5);
        let endpoint = Endpoint::Pattern(pattern);
        let mut fifo = Fifo::with_endpoint(0, 100, ResetPolicy::Keep, endpoint);
        fifo.tell_state();
        let mut expected = [0; 300];
        pattern.fill(0, &mut expected);
        let mut received = Vec::new();
        for chunk in expected.chunks(75) {
            fifo.exchange();
            received.extend(receive(&mut fifo));
            send(&mut fifo, chunk).unwrap();
            fifo.exchange();
            assert_eq!(fifo.tell_state().flags, 0);
        }
        assert_eq!(received[..300], expected);
        send(&mut fifo, b"no").unwrap();
        fifo.exchange();
        assert_eq!(fifo.tell_state().flags, STATE_ERROR);
        assert_eq!(fifo.refusals().count(Refusal::Mismatch), 1);
        assert_eq!(send(&mut fifo, b"x"), Err(Refusal::Failed));
        fifo.reset();
        let mut rest = [0; 10];
        pattern.fill(302, &mut rest);
        send(&mut fifo, &rest).unwrap();
        fifo.exchange();
        assert_eq!(fifo.tell_state().flags, 0);
    }

    /// Levels and counters, of both streams and of a loopback's one.
    #[test]
    fn status_counts_what_enters_and_leaves() {
        let (mut fifo, _) = outside(8);
        fifo.put(b"abc");
        send(&mut fifo, b"wxyz").unwrap();
        send(&mut fifo, b"").unwrap();
        take(&mut fifo, 1);
        receive(&mut fifo);
        let status = fifo.status();
        let rx = Traffic {
            entered: 3,
            left: 0,
            level: 3,
            messages: 1,
        };
        let tx = Traffic {
            entered: 4,
            left: 1,
            level: 3,
            messages: 1,
        };
        assert_eq!((status.rx, status.tx), (rx, tx));
        assert_eq!((status.capacity, status.flags), (8, 0));
        let mut fifo = Fifo::loopback(3, 8, ResetPolicy::Keep);
        send(&mut fifo, b"ab").unwrap();
        let status = fifo.status();
        assert_eq!((status.index, status.flags), (3, STATE_LOOPBACK));
        assert_eq!((status.rx.level, status.tx.level), (2, 0));
        assert_eq!((status.tx.entered, status.tx.left), (2, 2));
    }

    /// DEV-11: a payload that ends early is refused as a whole.
    #[test]
    fn a_payload_that_ends_early_is_refused() {
        let mut fifo = Fifo::loopback(0, 8, ResetPolicy::Keep);
        let header = TxHeader {
            offset: 0,
            rx_consumed: 0,
        };
        let mut short: &[u8] = b"ab";
        let refused = fifo.accept(header, &mut short, 3);
        assert_eq!(refused, Err(Refusal::InvalidChain));
        assert_eq!(fifo.tx_accepted(), 0);
    }
}
