// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One FIFO: its streams, its credit and its state, as section 6 of the specification has them.
//!
//! The rx stream is a [`Ring`]. In a loopback FIFO the tx stream is the same ring; otherwise it is
//! a ring of its own that ends, like the rx stream, at an [`Endpoint`]. This file decides what a
//! message means; it must not know virtqueues, guest memory or sockets.

use std::io;
use std::io::Read;
use std::io::Write;

use tracing::debug;
use virtio_fifo_protocol::virtio_fifo::RxHeader;
use virtio_fifo_protocol::virtio_fifo::STATE_ERROR;
use virtio_fifo_protocol::virtio_fifo::STATE_HANGUP;
use virtio_fifo_protocol::virtio_fifo::STATE_LOOPBACK;
use virtio_fifo_protocol::virtio_fifo::State;
use virtio_fifo_protocol::virtio_fifo::TxHeader;

use crate::endpoint::Endpoint;
use crate::refusal::Refusal;
use crate::refusal::Refusals;
use crate::ring::Ring;
use crate::ring::RingError;

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
    /// A peer is there that sends nothing more, but takes what it is sent.
    HalfClosed,
    /// The last peer is gone, and the next one may come.
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
    /// `STATE_LOOPBACK`, `STATE_HANGUP`, `STATE_ERROR`, as the driver is told.
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

/// The tx stream of a FIFO that ends at an endpoint.
#[derive(Debug)]
struct Host {
    endpoint: Box<dyn Endpoint>,
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
    /// `STATE_HANGUP` and `STATE_ERROR`.
    flags: u32,
    /// Something happened that an event must tell.
    changed: bool,
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
            flags: 0,
            changed: false,
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
        endpoint: Box<dyn Endpoint>,
    ) -> Self {
        let host = Host {
            endpoint,
            tx: Ring::new(capacity),
            told: 0,
        };
        Self {
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
        payload: &mut impl Read,
        len: usize,
    ) -> Result<(), Refusal> {
        if self.failed() {
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
        let ring = match &mut self.host {
            Some(host) => &mut host.tx,
            None => &mut self.rx,
        };
        ring.push_from(payload, len).map_err(|error| match error {
            RingError::Full { .. } | RingError::NotSent { .. } => Refusal::OverLimit,
            RingError::Io(_) => Refusal::InvalidChain,
        })?;
        self.tx_messages += u64::from(len > 0);
        Ok(())
    }

    /// DEV-11: counts a refused tx message, or a corrupt queue, and fails the FIFO.
    pub fn fail(&mut self, queue: &'static str, reason: Refusal) {
        self.refuse(queue, reason);
        self.set_flag(STATE_ERROR, true);
    }

    /// Counts something refused that does the FIFO no harm.
    pub fn refuse(&mut self, queue: &'static str, reason: Refusal) {
        let index = self.index;
        self.refusals.add(format_args!("{queue} {index}"), reason);
    }

    /// Bytes that wait to be delivered to the driver; none while the FIFO has failed.
    pub fn pending(&self) -> usize {
        if self.failed() { 0 } else { self.rx.unsent() }
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
        let header = RxHeader {
            offset: self.rx.sent(),
            rx_floor: self.rx.consumed(),
            tx_limit: self.tx_limit(),
        };
        sink.write_all(&header.to_bytes())
            .map_err(|_| Refusal::InvalidChain)?;
        self.rx
            .send_to(sink, payload)
            .map_err(|_| Refusal::InvalidChain)?;
        self.told(header.tx_limit);
        self.rx_messages += 1;
        Ok(RxHeader::LEN + payload)
    }

    /// Moves what can be moved now between the endpoint and the rings.
    pub fn exchange(&mut self) {
        let Some(host) = &mut self.host else {
            return;
        };
        let sent = pump(|| (host.tx.unsent() > 0).then(|| host.tx.drain_to(&mut host.endpoint)));
        let received = pump(|| (self.rx.free() > 0).then(|| self.rx.fill_from(&mut host.endpoint)));
        match (sent, received) {
            (Flow::Ended, _) | (_, Flow::Ended) => self.set_flag(STATE_HANGUP, true),
            (_, Flow::Moved) => self.set_flag(STATE_HANGUP, false),
            _ => {}
        }
    }

    /// Whether the endpoint could give more if only the rx ring had room (DEV-12).
    pub fn is_full(&self) -> bool {
        self.host.is_some() && self.rx.free() == 0
    }

    /// DEV-23: discards every byte in both directions.
    pub fn clear(&mut self) {
        let mut count = self.rx.clear();
        if let Some(host) = &mut self.host {
            count += host.tx.clear();
        }
        debug!(fifo = self.index, bytes = count, "cleared");
    }

    /// DEV-6, DEV-21: what a device reset means for this FIFO. The counters run on.
    pub fn reset(&mut self) {
        match self.reset {
            ResetPolicy::Keep => self.rx.rewind(),
            ResetPolicy::Clear => self.clear(),
        }
        self.flags &= !STATE_ERROR;
        // Whatever the old driver was not told, the new one asks for (DRV-4).
        self.changed = false;
    }

    /// The state to tell the driver; from now on it counts as told.
    pub fn tell_state(&mut self) -> State {
        let state = State {
            fifo: self.index.into(),
            flags: self.state_flags(),
            capacity: u32::try_from(self.rx.capacity()).unwrap_or(u32::MAX),
            rx_floor: self.rx.consumed(),
            rx_end: self.rx.written(),
            tx_accepted: self.tx_accepted(),
            tx_limit: self.tx_limit(),
        };
        self.told(state.tx_limit);
        state
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
        match self.host {
            Some(_) => self.flags,
            None => self.flags | STATE_LOOPBACK,
        }
    }

    fn failed(&self) -> bool {
        self.flags & STATE_ERROR != 0
    }

    fn set_flag(&mut self, flag: u32, on: bool) {
        let flags = if on {
            self.flags | flag
        } else {
            self.flags & !flag
        };
        if flags != self.flags {
            // A guest can do this as often as it likes: no line of its own in the log.
            debug!(
                fifo = self.index,
                from = self.flags,
                to = flags,
                "state flags changed"
            );
            self.flags = flags;
            self.changed = true;
        }
    }
}

/// The limit of a stream that is stored in `ring` when all below `consumed` has left it.
fn limit(ring: &Ring, consumed: u64) -> u64 {
    consumed.saturating_add(ring.capacity() as u64)
}

/// What came of moving bytes between a ring and an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Idle,
    Moved,
    Ended,
}

/// Repeats `step` until the ring has no more to move (`None`), or the endpoint blocks or hangs up.
fn pump(mut step: impl FnMut() -> Option<io::Result<usize>>) -> Flow {
    let mut flow = Flow::Idle;
    while let Some(moved) = step() {
        match moved {
            Ok(0) => return Flow::Ended,
            Ok(_) => flow = Flow::Moved,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return flow,
            Err(error) => {
                debug!(%error, "endpoint failed");
                return Flow::Ended;
            }
        }
    }
    flow
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::sync::Mutex;

    use super::*;

    /// What a host side does, call by call; it blocks when there is no more.
    #[derive(Clone, Debug, Default)]
    struct Script {
        reads: Arc<Mutex<VecDeque<io::Result<Vec<u8>>>>>,
        writes: Arc<Mutex<VecDeque<io::Result<usize>>>>,
    }

    impl Script {
        fn will_give(&self, step: io::Result<&[u8]>) {
            self.reads
                .lock()
                .unwrap()
                .push_back(step.map(<[u8]>::to_vec));
        }

        fn will_take(&self, step: io::Result<usize>) {
            self.writes.lock().unwrap().push_back(step);
        }
    }

    impl Read for Script {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let step = self.reads.lock().unwrap().pop_front();
            let given = step.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))?;
            bytes[..given.len()].copy_from_slice(&given);
            Ok(given.len())
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let step = self.writes.lock().unwrap().pop_front();
            let most = step.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))?;
            Ok(most.min(bytes.len()))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn scripted(capacity: usize) -> (Fifo, Script) {
        let script = Script::default();
        let endpoint = Box::new(script.clone());
        let mut fifo = Fifo::with_endpoint(0, capacity, ResetPolicy::Keep, endpoint);
        fifo.tell_state();
        (fifo, script)
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
        let (mut fifo, script) = scripted(8);
        send(&mut fifo, b"12345678").unwrap();
        script.will_take(Err(io::ErrorKind::Interrupted.into()));
        script.will_take(Ok(1));
        script.will_take(Ok(2));
        fifo.exchange();
        assert_eq!(fifo.host.as_ref().unwrap().tx.len(), 5);
        // DEV-16: the limit told is reached, and a higher one can be given.
        assert!(fifo.event_due());
        assert_eq!(send(&mut fifo, b"9"), Err(Refusal::OverLimit));
        assert_eq!(fifo.tell_state().tx_limit, 11);
        assert!(!fifo.event_due());
        send(&mut fifo, b"9ab").unwrap();
        assert!(!fifo.event_due());
    }

    /// DEV-16, DRV-13: the host goes, what it wrote can be read; it comes back, the FIFO works.
    #[test]
    fn hang_up_and_return() {
        let (mut fifo, script) = scripted(8);
        script.will_give(Ok(b"last"));
        script.will_give(Ok(b""));
        fifo.exchange();
        assert!(fifo.event_due());
        assert_eq!(fifo.tell_state().flags, STATE_HANGUP);
        fifo.event_told();
        assert_eq!(receive(&mut fifo), b"last");
        fifo.exchange();
        assert!(!fifo.event_due());
        script.will_give(Ok(b"back"));
        fifo.exchange();
        assert!(fifo.event_due());
        assert_eq!(fifo.tell_state().flags, 0);
        assert_eq!(receive(&mut fifo), b"back");
    }

    /// A host that cannot be written to has hung up.
    #[test]
    fn a_broken_host_has_hung_up() {
        let (mut fifo, script) = scripted(8);
        send(&mut fifo, b"x").unwrap();
        script.will_take(Err(io::ErrorKind::BrokenPipe.into()));
        fifo.exchange();
        assert_eq!(fifo.tell_state().flags, STATE_HANGUP);
    }

    /// DEV-4: the host is read no further than there is room.
    #[test]
    fn a_full_fifo_does_not_read_on() {
        let (mut fifo, script) = scripted(4);
        script.will_give(Ok(b"abcd"));
        script.will_give(Ok(b"ef"));
        fifo.exchange();
        assert!(fifo.is_full());
        assert_eq!(receive(&mut fifo), b"abcd");
        fifo.exchange();
        assert_eq!(fifo.pending(), 0);
        // The report makes room.
        send(&mut fifo, b"").unwrap();
        fifo.exchange();
        assert_eq!(receive(&mut fifo), b"ef");
    }

    /// DEV-23: clear discards what the host has not taken, too, and gives its room back.
    #[test]
    fn clear_discards_both_directions() {
        let (mut fifo, script) = scripted(4);
        script.will_give(Ok(b"ab"));
        fifo.exchange();
        send(&mut fifo, b"wxyz").unwrap();
        fifo.clear();
        let state = fifo.tell_state();
        assert_eq!((state.rx_floor, state.rx_end), (2, 2));
        assert_eq!((state.tx_accepted, state.tx_limit), (4, 8));
        script.will_take(Ok(9));
        fifo.exchange();
        assert_eq!(fifo.tx_accepted(), 4);
        assert_eq!(fifo.host.as_ref().unwrap().tx.len(), 0);
    }

    /// Levels and counters, of both streams and of a loopback's one.
    #[test]
    fn status_counts_what_enters_and_leaves() {
        let (mut fifo, script) = scripted(8);
        script.will_give(Ok(b"abc"));
        script.will_take(Ok(1));
        send(&mut fifo, b"wxyz").unwrap();
        send(&mut fifo, b"").unwrap();
        fifo.exchange();
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
