// SPDX-License-Identifier: GPL-2.0-only

//! One FIFO: the lock around its two halves, and who is woken and signalled when they change.
//!
//! Knows nothing of files. An open file keeps its FIFO alive, so a FIFO outlives its device: from
//! [`Fifo::close`] on it is an empty shell that answers `ENODEV`.
//!
//! # Contexts and races
//!
//! [`Fifo::inner`] is taken in the queues' hard interrupts and in process context, so always with
//! interrupts off ([`SpinLockIrq`]). Nothing sleeps, wakes, signals or copies from or to user space
//! under it: what has to happen is collected as [`Events`] and done by [`Fifo::notify`] afterwards.
//! User data is copied without a lock: a reader takes a buffer out of the FIFO and is the only one to
//! do so ([`Inner::reading`]); a writer fills messages of its own.
//!
//! The device going away: [`Fifo::close`] sets [`Life::Gone`] under the lock. I/O that finds it
//! fails; a read that is copying at that moment fails too, and its bytes stay with the device, which
//! will deliver them again. Then the queues are drained, and [`Fifo::detach`] takes them out.

use super::{
    buffers::{
        Chain,
        Rx,
        RxBuffer,
        Tx,
        TxBuffer, //
    },
    control::Control,
    rx::{
        Broken,
        RxSide, //
    },
    stats::Stats,
    tx::{
        Pumped,
        TxSide,
        MAX_PAYLOAD,
        SHARED_PAYLOAD, //
    },
};
use crate::{
    kapi::{
        fasync::{
            Band,
            FasyncList, //
        },
        iter::Source,
        virtio::Queue,
        wait::{
            new_wait_queue,
            Events,
            Signals,
            WaitFor,
            WaitQueue,
            Waited, //
        },
    },
    virtio_fifo::{
        CtrlRequest,
        State,
        CTRL_CLEAR,
        CTRL_GET_STATE,
        MAX_CAPACITY,
        STATE_ERROR,
        STATE_HANGUP, //
    },
};
use kernel::{
    iov::IovIterDest,
    prelude::*,
    sync::{
        new_spinlock_irq,
        Arc,
        SpinLockIrq, //
    },
};

/// Bound of the waits for the device to take what was written (DEV-10: it does so at once).
const DRAIN_SECONDS: u8 = 5;

/// Whether a FIFO works.
#[derive(Clone, Copy)]
enum Life {
    /// It does.
    Live,
    /// The device failed it, or broke the specification: `EIO` until it is bound anew.
    Failed,
    /// The device is gone: `ENODEV` for good.
    Gone,
}

/// What the lock protects.
struct Inner {
    life: Life,
    rx: RxSide,
    tx: TxSide,
    /// A reader has a buffer out.
    reading: bool,
    /// Another reader found that, and waits.
    read_contended: bool,
}

impl Inner {
    fn check(&self) -> Result {
        match self.life {
            Life::Live => Ok(()),
            Life::Failed => Err(EIO),
            Life::Gone => Err(ENODEV),
        }
    }

    fn credit(&self) -> u64 {
        self.tx.credit(self.rx.consumed())
    }

    /// The events that hold, for poll.
    fn events(&self) -> Events {
        let mut events = match self.life {
            Life::Live => Events::NONE,
            Life::Failed => Events::ERR,
            Life::Gone => return Events::ERR | Events::HUP,
        };
        if self.rx.level() > 0 || self.rx.hung_up() {
            events |= Events::IN;
        }
        if self.credit() > 0 {
            events |= Events::OUT;
        }
        if self.rx.hung_up() {
            events |= Events::HUP;
        }
        events
    }
}

/// One FIFO.
#[pin_data]
pub(crate) struct Fifo {
    /// Which one of its device.
    index: u16,
    /// Bytes each direction holds.
    capacity: u32,
    control: Arc<Control>,
    stats: Arc<Stats>,
    /// See the module. No other lock of ours is held when it is taken, and none is taken under it.
    #[pin]
    inner: SpinLockIrq<Inner>,
    /// Readers, writers, poll. Woken without `inner`.
    #[pin]
    wait: WaitQueue,
    /// Those who wait for messages to be used: fsync, and removal. Woken without `inner`.
    #[pin]
    drained: WaitQueue,
    readers: FasyncList,
    writers: FasyncList,
}

impl Fifo {
    /// Asks the device where FIFO `index` stands, and starts there. No data flows before
    /// [`Fifo::attach`] (DRV-4).
    pub(crate) fn new(index: u16, control: Arc<Control>) -> Result<Arc<Self>> {
        let state = control.request(CtrlRequest {
            kind: CTRL_GET_STATE,
            fifo: u32::from(index),
            tx_sent: 0,
        })?;
        check_state(&state, u32::from(index), state.capacity)?;
        let life = if state.flags & STATE_ERROR != 0 {
            Life::Failed
        } else {
            Life::Live
        };
        let mut rx = RxSide::new(&state);
        rx.set_hangup(state.flags & STATE_HANGUP != 0, state.rx_end);
        let tx = TxSide::new(&state)?;
        let stats = Arc::new(Stats::new(), GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                index,
                capacity: state.capacity,
                control,
                stats,
                inner <- new_spinlock_irq!(
                    Inner { life, rx, tx, reading: false, read_contended: false },
                    "Fifo::inner"
                ),
                wait <- new_wait_queue!("Fifo::wait"),
                drained <- new_wait_queue!("Fifo::drained"),
                readers: FasyncList::new(),
                writers: FasyncList::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Its counters.
    pub(crate) fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Starts the flow of data.
    pub(crate) fn attach(&self, rx: Queue<Rx>, tx: Queue<Tx>) -> Result {
        let (size, count) = RxSide::buffers_for(self.capacity);
        let count = count.min(rx.size() as usize);
        let mut buffers = Chain::new();
        for _ in 0..count {
            buffers.push_back(RxBuffer::for_rx(size)?);
        }
        let mut inner = self.inner.lock();
        inner.rx.attach(rx);
        inner.tx.attach(tx);
        while let Some(buffer) = buffers.pop_front() {
            if !inner.rx.post(buffer) {
                break;
            }
        }
        inner.rx.kick();
        Ok(())
    }

    /// Ends all I/O: from here on it fails with `ENODEV`. The device still has to be told what was
    /// written and read so far, see [`Fifo::drain`].
    pub(crate) fn close(&self) {
        let mut done = Chain::new();
        let mut inner = self.inner.lock();
        inner.life = Life::Gone;
        let consumed = inner.rx.consumed();
        inner.tx.demand_ack(consumed);
        inner.tx.begin_wait();
        self.pump(&mut inner, &mut done);
        drop(inner);
        self.notify(Events::HUP | Events::ERR);
    }

    /// Waits until the device has taken everything (DRV-9), for a bounded time; false when it did
    /// not.
    pub(crate) fn drain(&self) -> bool {
        matches!(
            self.drained.wait(
                WaitFor::Writable,
                Signals::Ignore,
                Some(DRAIN_SECONDS),
                || { self.inner.lock().tx.is_drained() }
            ),
            Ok(Waited::Done)
        )
    }

    /// Takes the queues out. They must be dropped by the caller, which stops the device.
    pub(crate) fn detach(&self) -> (Option<Queue<Rx>>, Option<Queue<Tx>>) {
        let mut inner = self.inner.lock();
        let queues = (inner.rx.detach(), inner.tx.detach());
        drop(inner);
        self.drained.wake(Events::HUP);
        queues
    }

    /// The receive queue has used buffers. Called in hard interrupt context.
    pub(crate) fn rx_interrupt(&self) {
        self.stats.interrupts.add(1);
        let mut inner = self.inner.lock();
        let was_full = inner.credit() == 0;
        let received = inner.rx.receive();
        let mut events = Events::NONE;
        match received {
            Ok(received) => {
                self.stats.rx_bytes.add(received.bytes);
                self.stats.rx_messages.add(received.messages);
                if received.bytes > 0 {
                    events |= Events::IN;
                }
                if let Err(broken) = inner.tx.raise_limit(received.tx_limit) {
                    events |= self.fail(&mut inner, broken);
                }
                if was_full && inner.credit() > 0 {
                    events |= Events::OUT;
                }
            }
            Err(broken) => events |= self.fail(&mut inner, broken),
        }
        drop(inner);
        self.notify(events);
    }

    /// The transmit queue has used buffers. Called in hard interrupt context.
    pub(crate) fn tx_interrupt(&self) {
        self.stats.interrupts.add(1);
        let mut done = Chain::new();
        let mut inner = self.inner.lock();
        let (progress, events) = self.pump(&mut inner, &mut done);
        drop(inner);
        if progress {
            self.drained.wake(Events::OUT);
        }
        self.notify(events);
    }

    /// The device told where it stands. Called in hard interrupt context.
    pub(crate) fn state_event(&self, state: &State) {
        let mut inner = self.inner.lock();
        let mut events = Events::NONE;
        if check_state(state, u32::from(self.index), self.capacity).is_err() {
            events |= self.fail(&mut inner, Broken("an impossible state"));
        } else {
            events |= self.apply(&mut inner, state);
            let was_hung_up = inner.rx.hung_up();
            let hung_up = state.flags & STATE_HANGUP != 0;
            inner.rx.set_hangup(hung_up, state.rx_end);
            if hung_up && !was_hung_up {
                events |= Events::HUP;
            }
            if state.flags & STATE_ERROR != 0 {
                events |= self.fail(&mut inner, Broken("an error"));
            }
        }
        drop(inner);
        self.notify(events);
    }

    /// Takes the counters of a state that was checked. Not its flags: those of an event and of an
    /// answer to a request have no order between them, so only events count.
    fn apply(&self, inner: &mut Inner, state: &State) -> Events {
        let was_full = inner.credit() == 0;
        if state.rx_floor > inner.rx.consumed() {
            inner.rx.discard_below(state.rx_floor);
        }
        if let Err(broken) = inner.tx.raise_limit(state.tx_limit) {
            return self.fail(inner, broken);
        }
        if was_full && inner.credit() > 0 {
            Events::OUT
        } else {
            Events::NONE
        }
    }

    /// The device is not to be trusted with this FIFO any more.
    fn fail(&self, inner: &mut Inner, Broken(what): Broken) -> Events {
        self.stats.protocol_errors.add(1);
        if !matches!(inner.life, Life::Live) {
            return Events::NONE;
        }
        pr_err!(
            "FIFO {} fails with EIO until its device is bound anew: the device sent {what}\n",
            self.index
        );
        inner.life = Life::Failed;
        Events::ERR
    }

    /// Moves messages on; returns whether some came back, and what happened.
    fn pump(&self, inner: &mut Inner, done: &mut Chain<TxBuffer>) -> (bool, Events) {
        let consumed = inner.rx.consumed();
        match inner.tx.pump(consumed, done) {
            Ok(Pumped { messages, progress }) => {
                self.stats.tx_messages.add(messages);
                (progress, Events::NONE)
            }
            Err(broken) => (true, self.fail(inner, broken)),
        }
    }

    /// Wakes and signals. Called from any context, without the lock.
    fn notify(&self, events: Events) {
        if events == Events::NONE {
            return;
        }
        if self.wait.wake(events) {
            self.stats.wakeups.add(1);
        }
        let bands = [
            (Events::ERR, Band::Err, true, true),
            (Events::HUP, Band::Hup, true, true),
            (Events::IN, Band::In, true, false),
            (Events::OUT, Band::Out, false, true),
        ];
        for (event, band, to_readers, to_writers) in bands {
            if events.contains(event) {
                if to_readers {
                    self.signal(&self.readers, band);
                }
                if to_writers {
                    self.signal(&self.writers, band);
                }
            }
        }
    }

    fn signal(&self, list: &FasyncList, band: Band) {
        if !list.is_empty() {
            self.stats.signals.add(1);
            list.signal(band);
        }
    }

    /// Those who want `POLL_IN`.
    pub(crate) fn readers(&self) -> &FasyncList {
        &self.readers
    }

    /// Those who want `POLL_OUT`.
    pub(crate) fn writers(&self) -> &FasyncList {
        &self.writers
    }

    /// What poll registers with.
    pub(crate) fn wait_queue(&self) -> &WaitQueue {
        &self.wait
    }

    /// The events that hold.
    pub(crate) fn events(&self) -> Events {
        self.inner.lock().events()
    }

    /// Reads what is there, or waits until something is.
    ///
    /// # Errors
    ///
    /// `EAGAIN` when it would have to wait and must not, `ERESTARTSYS` on a signal, `EFAULT` when not
    /// a single byte could be copied, `EIO` and `ENODEV` by the FIFO's life.
    pub(crate) fn read(&self, to: &mut IovIterDest<'_>, wait: bool) -> Result<usize> {
        loop {
            if let Some(read) = self.try_read(to)? {
                return Ok(read);
            }
            if !wait {
                return Err(EAGAIN);
            }
            self.wait
                .wait(WaitFor::Readable, Signals::Interrupt, None, || {
                    let inner = self.inner.lock();
                    inner.check().is_err()
                        || !inner.reading && (inner.rx.level() > 0 || inner.rx.at_end())
                })?;
        }
    }

    /// `None` when there is nothing to read, or somebody else is reading.
    fn try_read(&self, to: &mut IovIterDest<'_>) -> Result<Option<usize>> {
        let mut buffer = {
            let mut inner = self.inner.lock();
            inner.check()?;
            if inner.reading {
                inner.read_contended = true;
                return Ok(None);
            }
            let Some(buffer) = inner.rx.take() else {
                return Ok(inner.rx.at_end().then_some(0));
            };
            inner.reading = true;
            buffer
        };
        let mut total = 0;
        let mut done = Chain::new();
        // What is not accounted for before the device is taken away has not been read.
        let mut error = EFAULT;
        let (events, next_reader) = loop {
            let wanted = buffer.unread().len().min(to.len());
            let read = buffer
                .unread()
                .get(..wanted)
                .map_or(0, |bytes| to.copy_to_iter(bytes));

            let mut inner = self.inner.lock();
            let alive = inner.check();
            if let Err(gone) = alive {
                inner.rx.give_back(buffer, 0);
                error = gone;
                break self.end_read(&mut inner, false, &mut done);
            }
            let was_full = inner.credit() == 0;
            inner.rx.give_back(buffer, read);
            total += read;
            let space = was_full && inner.credit() > 0;
            if read == wanted && !to.is_empty() {
                if let Some(next) = inner.rx.take() {
                    buffer = next;
                    drop(inner);
                    if space {
                        self.notify(Events::OUT);
                    }
                    continue;
                }
            }
            break self.end_read(&mut inner, space, &mut done);
        };
        self.notify(events);
        if next_reader {
            self.wait.wake(Events::IN);
        }
        if total == 0 {
            return Err(error);
        }
        Ok(Some(total))
    }

    /// Ends a turn of reading and tells the device what was read. Returns what to notify of, and
    /// whether another reader waits for its turn.
    fn end_read(
        &self,
        inner: &mut Inner,
        space: bool,
        done: &mut Chain<TxBuffer>,
    ) -> (Events, bool) {
        inner.reading = false;
        let (consumed, empty) = (inner.rx.consumed(), inner.rx.level() == 0);
        inner.tx.note_consumed(consumed, empty);
        let (_, mut events) = self.pump(inner, done);
        if space {
            events |= Events::OUT;
        }
        (events, core::mem::take(&mut inner.read_contended))
    }

    /// Writes what fits, or waits until something does.
    ///
    /// # Errors
    ///
    /// As for [`Fifo::read`], `ENOMEM`, and `EPIPE` when the other side is gone.
    pub(crate) fn write(&self, from: &mut Source<'_, '_>, wait: bool) -> Result<usize> {
        loop {
            let (credit, congested) = {
                let inner = self.inner.lock();
                inner.check()?;
                if inner.rx.hung_up() {
                    return Err(EPIPE);
                }
                (inner.credit(), inner.tx.is_congested())
            };
            let wanted = usize::try_from(credit)
                .unwrap_or(usize::MAX)
                .min(from.len());
            if wanted > 0 {
                let (mut messages, copied) = copy_messages(from, wanted, congested)?;
                let written = self.send(&mut messages, copied)?;
                from.put_back(copied - written);
                if written > 0 {
                    return Ok(written);
                }
            }
            // Somebody else took the space, or there was none.
            if !wait {
                return Err(EAGAIN);
            }
            self.wait
                .wait(WaitFor::Writable, Signals::Interrupt, None, || {
                    let inner = self.inner.lock();
                    inner.check().is_err() || inner.rx.hung_up() || inner.credit() > 0
                })?;
        }
    }

    /// Sends what fits of `copied` bytes in `messages`, in one piece; returns how many.
    fn send(&self, messages: &mut Chain<TxBuffer>, copied: usize) -> Result<usize> {
        let mut done = Chain::new();
        let mut inner = self.inner.lock();
        inner.check()?;
        let credit = usize::try_from(inner.credit()).unwrap_or(usize::MAX);
        let sent = copied.min(credit);
        inner.tx.enqueue(messages, sent);
        let (_, events) = self.pump(&mut inner, &mut done);
        drop(inner);
        self.stats.tx_bytes.add(sent as u64);
        self.notify(events);
        Ok(sent)
    }

    /// Waits until the device has accepted all that was written before (DEV-10).
    ///
    /// # Errors
    ///
    /// `EIO` when it does not in time, `ERESTARTSYS` on a signal, `EIO` and `ENODEV` by the FIFO's
    /// life.
    pub(crate) fn flush(&self) -> Result {
        let mut done = Chain::new();
        let target = {
            let mut inner = self.inner.lock();
            inner.check()?;
            inner.tx.begin_wait();
            let (target, _) = inner.tx.positions();
            self.pump(&mut inner, &mut done);
            target
        };
        let mut life = Ok(());
        let waited = self.drained.wait(
            WaitFor::Writable,
            Signals::Interrupt,
            Some(DRAIN_SECONDS),
            || {
                let inner = self.inner.lock();
                life = inner.check();
                life.is_err() || inner.tx.has_accepted(target)
            },
        );
        self.inner.lock().tx.end_wait();
        match waited? {
            Waited::Done => life,
            Waited::TimedOut => Err(EIO),
        }
    }

    /// Empties the FIFO, here and in the device, and lets writers go on.
    ///
    /// # Errors
    ///
    /// Those of [`Control::request`], and those of the FIFO's life.
    pub(crate) fn clear(&self) -> Result {
        let (posted, unsent) = {
            let mut inner = self.inner.lock();
            inner.check()?;
            let unsent = inner.tx.unsend_pending();
            (inner.tx.positions().1, unsent)
        };
        drop(unsent);
        let state = self.control.request(CtrlRequest {
            kind: CTRL_CLEAR,
            fifo: u32::from(self.index),
            tx_sent: posted,
        })?;
        check_state(&state, u32::from(self.index), self.capacity)?;
        let mut done = Chain::new();
        let mut inner = self.inner.lock();
        let mut events = self.apply(&mut inner, &state);
        // Also when the space came from the writes that had not been posted.
        if inner.credit() > 0 {
            events |= Events::OUT;
        }
        let consumed = inner.rx.consumed();
        inner.tx.note_consumed(consumed, false);
        events |= self.pump(&mut inner, &mut done).1;
        drop(inner);
        self.notify(events);
        Ok(())
    }

    /// Bytes that can be read without waiting.
    pub(crate) fn level(&self) -> Result<u64> {
        let inner = self.inner.lock();
        inner.check()?;
        Ok(inner.rx.level())
    }
}

/// Copies up to `wanted` bytes into new messages. Some bytes, or an error.
fn copy_messages(
    from: &mut Source<'_, '_>,
    wanted: usize,
    congested: bool,
) -> Result<(Chain<TxBuffer>, usize)> {
    let mut messages = Chain::new();
    let mut copied = 0;
    while copied < wanted {
        let part = (wanted - copied).min(MAX_PAYLOAD);
        // With a queue to stand in, leave room for the next small write to join.
        let size = if congested {
            part.max(SHARED_PAYLOAD)
        } else {
            part
        };
        let mut message = match TxBuffer::for_tx(size) {
            Ok(message) => message,
            Err(_) if copied > 0 => break,
            Err(error) => return Err(error),
        };
        let got = from.copy(message.room(part));
        message.added(got);
        copied += got;
        if got > 0 {
            messages.push_back(message);
        }
        if got < part {
            break;
        }
    }
    if copied == 0 {
        return Err(EFAULT);
    }
    Ok((messages, copied))
}

/// Checks a state the device sent (DRV-12, DRV-16).
fn check_state(state: &State, index: u32, capacity: u32) -> Result {
    let level = state.rx_end.checked_sub(state.rx_floor);
    let credit = state.tx_limit.checked_sub(state.tx_accepted);
    let capacity_ok = (1..=MAX_CAPACITY).contains(&state.capacity) && state.capacity == capacity;
    let within = |bytes: Option<u64>| bytes.is_some_and(|bytes| bytes <= u64::from(capacity));
    if state.fifo == index && capacity_ok && within(level) && within(credit) {
        Ok(())
    } else {
        Err(EIO)
    }
}
