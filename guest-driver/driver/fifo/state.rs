// SPDX-License-Identifier: GPL-2.0-only

//! What a FIFO's lock protects, and the rules of it: who may read and write, and which events hold.
//!
//! Plain state: must not know how tasks are woken or signalled. [`State::readiness`] is the one
//! place that says what is ready. A change of the state is made by [`Fifo::change`](super::Fifo),
//! which compares the readiness before and after it: what rose is an edge, and is announced. So no
//! edge can be forgotten where a change is made.
//!
//! A call that was told "not ready" while something was ready in fact, because it was another's
//! turn, makes that turn [`Turn::Contended`]. Readiness is then false until the turn ends, and its
//! end is an edge.

pub(crate) use super::turn::{
    Reader,
    Turn, //
};

use super::{
    pump::Pumped,
    requests::Requests,
    rx::{
        Broken,
        RxSide, //
    },
    tx::TxSide, //
};
use crate::{
    driver::{
        buffers::TxBuffer,
        chain::Chain,
        policy::Await,
        stats::Stats,
        tunables::REQUESTS, //
    },
    kapi::wait::Events,
    trace::Tracer,
    virtio_fifo::{
        State as Told,
        MAX_CAPACITY,
        MAX_POSITION,
        STATE_ERROR,
        STATE_HANGUP,
        STATE_LOOPBACK,
        STATE_RX_END, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Life cycle of a FIFO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// In service.
    Live,
    /// The device is being reset and set up again: no queues. Calls and requests wait, writes
    /// within the credit are kept.
    Suspended,
    /// Failed by the device, or the device broke the specification: `EIO` until it is bound anew.
    Failed(&'static str),
    /// The device is gone: `ENODEV` for good.
    Gone,
}

/// Consequences of a change, to be carried out after unlocking.
#[derive(Default)]
pub(crate) struct Effects {
    /// Edges that readiness does not show: data has come while there was some; a short read or
    /// write with something left.
    pub(crate) edges: Events,
    /// Messages came back, or never will: those who wait for that are woken.
    pub(crate) drained: bool,
    /// The budget is used up: the work queue goes on.
    pub(crate) more: bool,
    /// Microseconds after which to pump the transmit queue.
    pub(crate) timer: Option<u32>,
    /// The delay of an acknowledgment is to be started.
    pub(crate) ack_timer: bool,
    /// Messages that are done, to be freed.
    pub(crate) messages: Chain<TxBuffer>,
    /// Failure to be logged.
    pub(crate) failure: Option<&'static str>,
}

/// What was left for the work queue to go on with; interrupts of that queue are ignored until it
/// has.
#[derive(Default)]
pub(crate) struct Deferred {
    pub(crate) rx: bool,
    pub(crate) tx: bool,
}

/// The state of a FIFO.
pub(crate) struct State {
    pub(crate) stats: Arc<Stats>,
    trace: Tracer,
    pub(crate) life: Life,
    pub(crate) rx: RxSide,
    pub(crate) tx: TxSide,
    pub(crate) requests: Requests,
    /// Right to take buffers out of the FIFO.
    pub(crate) reader: Turn,
    /// Right to write, while a write consists of several pieces that stay together.
    pub(crate) writer: Turn,
    /// Calls that sleep until there is space.
    pub(crate) space_waiters: u32,
    /// Number of clears.
    pub(crate) clears: u64,
    pub(crate) deferred: Deferred,
    /// Edges caused by a cancel, which runs under AIO's lock: the server notifies of them.
    pub(crate) owed: Events,
    /// From a suspension until the server runs again, no request is served: [`super::life`].
    pub(crate) requests_rest: bool,
    /// A task polls for data: the receive queue does not interrupt.
    pub(crate) polling: bool,
    #[cfg(GLOBALFIFO_FAST)]
    pub(crate) patience: crate::driver::policy::patience::Patience,
}

impl State {
    /// A FIFO that stands where the device says, with no queues yet.
    pub(crate) fn new(told: &Told, stats: Arc<Stats>, trace: Tracer) -> Result<Self> {
        Ok(Self {
            stats,
            trace,
            life: Life::Live,
            rx: RxSide::new(told),
            tx: TxSide::new(told)?,
            requests: Requests::new(),
            reader: Turn::Free,
            writer: Turn::Free,
            space_waiters: 0,
            clears: 0,
            deferred: Deferred::default(),
            owed: Events::NONE,
            requests_rest: false,
            polling: false,
            #[cfg(GLOBALFIFO_FAST)]
            patience: crate::driver::policy::patience::Patience::NONE,
        })
    }

    /// Whether there is a FIFO to read from: `EIO` or `ENODEV` otherwise.
    pub(crate) fn check(&self) -> Result {
        match self.life {
            Life::Live | Life::Suspended => Ok(()),
            Life::Failed(_) => Err(EIO),
            Life::Gone => Err(ENODEV),
        }
    }

    /// As [`State::check`], for a write: `EPIPE` when the other side is gone.
    pub(crate) fn check_writing(&self) -> Result {
        self.check()?;
        if self.rx.hung_up() {
            return Err(EPIPE);
        }
        Ok(())
    }

    /// As [`State::check`], for bytes that were written before: they still go to a device that is
    /// being taken away, until its queues are.
    pub(crate) fn check_sending(&self) -> Result {
        match self.life {
            Life::Gone if self.tx.is_attached() => Ok(()),
            _ => self.check(),
        }
    }

    /// Bytes that may be written.
    pub(crate) fn credit(&self) -> u64 {
        self.tx.credit(self.rx.acknowledged())
    }

    /// Whether a read would find something: data, or the end.
    fn has_data(&self) -> bool {
        self.rx.level() > 0 || self.rx.at_end()
    }

    /// As [`State::has_data`], for a call: requests come first.
    pub(crate) fn has_data_for_calls(&self) -> bool {
        self.has_data() && !self.requests.want_data()
    }

    /// Bytes that a call may write: requests come first, and whose turn it is.
    pub(crate) fn credit_for_calls(&self) -> u64 {
        if self.writer != Turn::Free || self.requests.want_space() {
            0
        } else {
            self.credit()
        }
    }

    /// As [`State::credit_for_calls`], for a caller that relies on an edge where it is 0.
    pub(crate) fn credit_noting_caller(&mut self) -> u64 {
        self.writer.is_anothers();
        self.credit_for_calls()
    }

    /// Events that hold. Pure: who learns of them follows from its differences.
    pub(crate) fn readiness(&self) -> Events {
        let mut events = match self.life {
            Life::Live | Life::Suspended => Events::NONE,
            Life::Failed(_) => Events::ERR,
            Life::Gone => return Events::ERR | Events::HUP,
        };
        // A turn that is not contended is invisible to callers.
        if self.has_data_for_calls() && self.reader != Turn::Contended {
            events |= Events::IN;
        }
        let writable = self.writer != Turn::Contended && !self.requests.want_space();
        if writable && self.credit() > 0 {
            events |= Events::OUT;
        }
        if self.rx.hung_up() {
            events |= Events::HUP;
        } else if self.rx.ended() {
            events |= Events::READ_HUP;
        }
        events
    }

    /// As [`State::readiness`], for a caller that relies on an edge for what is missing.
    pub(crate) fn readiness_noting_caller(&mut self) -> Events {
        self.reader.is_anothers();
        self.writer.is_anothers();
        self.readiness()
    }

    /// Whether there are data and space for requests.
    pub(crate) fn for_requests(&self) -> (bool, bool) {
        let live = self.check().is_ok() && !self.requests_rest;
        (
            live && self.reader == Turn::Free && self.has_data(),
            live && self.writer == Turn::Free && self.credit() > 0,
        )
    }

    /// Whether the server of requests has something to do.
    pub(crate) fn have_work(&self) -> bool {
        let (data, space) = self.for_requests();
        self.owed != Events::NONE || self.requests.have_work(data, space)
    }

    /// Begins a reader's turn, unless it is another's; whether it did.
    pub(crate) fn begin_reading(&mut self, reader: Reader) -> bool {
        if self.reader.is_anothers() {
            return false;
        }
        match reader {
            Reader::Call => !self.requests.want_data(),
            // Its answer must not overtake the completion of an earlier one either.
            Reader::Submission => !self.requests.want_data() && !self.requests.is_serving(),
            Reader::Server => true,
        }
    }

    /// A read has ended short of what was asked for: its caller takes that for all there was, so an
    /// edge follows if there is more.
    pub(crate) fn end_short_read(&mut self, effects: &mut Effects) {
        if self.has_data_for_calls() {
            effects.edges |= Events::IN;
        }
    }

    /// Ends a reader's turn: consumes what it got, and acknowledges that. For a `short` read, as
    /// [`State::end_short_read`].
    pub(crate) fn end_reading(&mut self, short: bool, effects: &mut Effects) {
        self.rx.consume_given();
        self.reader = Turn::Free;
        if short {
            self.end_short_read(effects);
        }
        let empty = self.rx.level() == 0;
        self.tx.note_consumed(self.rx.acknowledged(), empty);
        self.pump(effects);
    }

    /// Queues `n` bytes of `messages` or as many as `credit` allows, in one piece; how many. To be
    /// pumped. A `short` write, which takes less than `asked`, is followed by an edge if there is
    /// space: its caller takes it for none.
    pub(crate) fn enqueue(
        &mut self,
        messages: &mut Chain<TxBuffer>,
        (n, asked): (usize, usize),
        credit: u64,
        effects: &mut Effects,
    ) -> usize {
        let most = n.min(usize::try_from(credit).unwrap_or(usize::MAX));
        let position = self.tx.positions().0;
        let sent = self.tx.enqueue(messages, most);
        if sent > 0 {
            self.trace.write(position, sent as u64);
        }
        self.tx.keep(messages);
        self.stats.tx_bytes.add(sent as u64);
        if sent < asked && self.credit_for_calls() > 0 {
            effects.edges |= Events::OUT;
        }
        sent
    }

    /// Moves messages on.
    pub(crate) fn pump(&mut self, effects: &mut Effects) {
        let others = match self.requests.want_acceptance() {
            0 => Await::None,
            1 => Await::Interrupt,
            _ => Await::Batched,
        };
        let consumed = self.rx.acknowledged();
        match self.tx.pump(consumed, others, &mut effects.messages) {
            Ok(Pumped {
                messages,
                progress,
                more,
                timer,
                ack_timer,
            }) => {
                effects.timer = timer.or(effects.timer);
                effects.ack_timer |= ack_timer;
                self.stats.tx_messages.add(messages);
                if messages > 0 {
                    self.trace.send(messages, self.tx.positions().1);
                    // After the event: what the device does may be traced on another CPU.
                    self.tx.kick();
                }
                if progress {
                    self.trace.accept(self.tx.accepted());
                }
                effects.drained |= progress;
                let more = self.requests.accept(self.tx.accepted(), REQUESTS) || more;
                effects.more |= more;
                self.deferred.tx = more;
            }
            Err(broken) => self.fail(broken, effects),
        }
    }

    /// Writes `bytes` by adding them to the message that is held, if nothing else is to be done;
    /// the position after them. Lowers the credit, and not to 0: so there is nothing to announce.
    #[cfg(GLOBALFIFO_FAST)]
    pub(crate) fn join(&mut self, bytes: &[u8]) -> Option<u64> {
        let fits = self.check_writing().is_ok() && self.credit_for_calls() > bytes.len() as u64;
        if !fits || self.requests.want_acceptance() > 0 {
            return None;
        }
        let end = self.tx.join(bytes)?;
        let length = bytes.len() as u64;
        self.stats.tx_bytes.add(length);
        self.trace.write(end - length, length);
        Some(end)
    }

    /// As [`State::pump`], unless the work queue is to do that.
    pub(crate) fn pump_unless_deferred(&mut self, effects: &mut Effects) {
        if !self.deferred.tx {
            self.pump(effects);
        }
    }

    /// Takes what the device sent.
    pub(crate) fn receive(&mut self, effects: &mut Effects) {
        self.deferred.rx = false;
        if self.check().is_err() {
            // Nobody can read it. If the device is only being taken away, it keeps the bytes.
            self.rx.silence();
            return;
        }
        let acknowledged = self.rx.acknowledged();
        match self.rx.receive(self.polling) {
            Ok(received) => {
                if self.rx.acknowledged() > acknowledged {
                    // Bytes that were read before the device sent them again.
                    self.tx.demand_ack(self.rx.acknowledged());
                    self.pump_unless_deferred(effects);
                }
                self.stats.rx_bytes.add(received.bytes);
                self.stats.rx_messages.add(received.messages);
                if received.messages > 0 {
                    self.trace.receive(received.messages, self.rx.received());
                }
                if received.bytes > 0 {
                    effects.edges |= Events::IN;
                    self.tx.coalescer.note_answer();
                }
                effects.more |= received.more;
                self.deferred.rx = received.more;
                self.learn(received.tx_limit, self.rx.received(), effects);
            }
            Err(broken) => self.fail(broken, effects),
        }
    }

    /// As [`State::receive`], unless the work queue is to do that.
    pub(crate) fn receive_unless_deferred(&mut self, effects: &mut Effects) {
        if !self.deferred.rx {
            self.receive(effects);
        }
    }

    /// Takes a limit, and checks a position of the rx stream that the device told (DRV-12).
    fn learn(&mut self, tx_limit: u64, rx_position: u64, effects: &mut Effects) {
        if self.tx.is_beyond(rx_position) {
            self.fail(Broken("bytes that were never written"), effects);
            return;
        }
        match self.tx.raise_limit(tx_limit) {
            Ok(true) => self.trace.credit(tx_limit, self.credit()),
            Ok(false) => {}
            Err(broken) => self.fail(broken, effects),
        }
    }

    /// Takes the counters of a state that was checked. Not its flags: those of an event and of an
    /// answer to a request have no order between them, so only events count.
    pub(crate) fn apply(&mut self, told: &Told, effects: &mut Effects) {
        if told.rx_floor > self.rx.consumed() {
            self.rx.discard(told.rx_floor);
        }
        self.learn(told.tx_limit, told.rx_end, effects);
    }

    /// Takes the flags of a state that was checked.
    pub(crate) fn apply_flags(&mut self, told: &Told, effects: &mut Effects) {
        let was_hung_up = self.rx.hung_up();
        let hung_up = told.flags & STATE_HANGUP != 0;
        let rx_end = told.flags & STATE_RX_END != 0;
        self.rx.set_end(hung_up, rx_end, told.rx_end);
        // Edge-triggered pollers were told that a write fails. The end of the hang-up is an edge
        // for them.
        if was_hung_up && !hung_up && self.credit() > 0 {
            effects.edges |= Events::OUT;
        }
        if told.flags & STATE_ERROR != 0 {
            self.fail(Broken("STATE_ERROR"), effects);
        }
    }

    /// A task is about to wait for data: messages that were written before are held no longer.
    pub(crate) fn expect_data(&mut self, effects: &mut Effects) {
        if self.tx.stop_holding() {
            self.pump_unless_deferred(effects);
        }
    }

    /// Fails the FIFO: nothing that the device sends for it is accepted any more.
    pub(crate) fn fail(&mut self, Broken(what): Broken, effects: &mut Effects) {
        if self.check().is_err() {
            return;
        }
        self.stats.protocol_errors.add(1);
        effects.failure = Some(what);
        self.life = Life::Failed(what);
        self.rx.silence();
        effects.messages.append(self.tx.abandon());
        effects.drained = true;
    }

    /// Ends requests that the FIFO cannot serve any more, a bounded number.
    pub(crate) fn sweep(&mut self, effects: &mut Effects) {
        let requests = &mut self.requests;
        let accepted = self.tx.accepted();
        effects.more |= match self.life {
            Life::Live | Life::Suspended if self.rx.hung_up() => {
                requests.abort_writes(EPIPE, REQUESTS)
            }
            Life::Live | Life::Suspended => false,
            Life::Failed(_) => {
                requests.abort(EIO, REQUESTS) | requests.abort_sent(accepted, EIO, REQUESTS)
            }
            Life::Gone if self.tx.is_attached() => requests.abort(ENODEV, REQUESTS),
            Life::Gone => {
                requests.abort(ENODEV, REQUESTS) | requests.abort_sent(accepted, ENODEV, REQUESTS)
            }
        };
    }
}

/// Checks a state that the device told (DRV-12, DRV-16).
pub(crate) fn check_told(told: &Told, index: u16, capacity: u32) -> Result {
    let level = told.rx_end.checked_sub(told.rx_floor);
    let credit = told.tx_limit.checked_sub(told.tx_accepted);
    let capacity_ok = (1..=MAX_CAPACITY).contains(&told.capacity) && told.capacity == capacity;
    let within = |bytes: Option<u64>| bytes.is_some_and(|bytes| bytes <= u64::from(capacity));
    let positions_ok = told.rx_end.max(told.tx_limit) < MAX_POSITION
        && (told.flags & STATE_LOOPBACK == 0 || told.rx_end <= told.tx_accepted);
    let index_ok = told.fifo == u32::from(index);
    if index_ok && capacity_ok && positions_ok && within(level) && within(credit) {
        Ok(())
    } else {
        Err(EIO)
    }
}
