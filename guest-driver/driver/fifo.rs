// SPDX-License-Identifier: GPL-2.0-only

//! One FIFO: the lock around its two halves, and who is woken and signalled when they change.
//!
//! Knows nothing of files. An open file keeps its FIFO alive, so a FIFO outlives its device: from
//! [`Fifo::close`] on it is an empty shell that answers `ENODEV`.
//!
//! # Contexts and races
//!
//! [`Fifo::inner`] is taken in the queues' hard interrupts and in process context, so always with
//! interrupts off ([`SpinLockIrq`]). Nothing sleeps, wakes or signals under it, and nothing is copied
//! from or to user space but a few bytes with page faults off: what has to happen is collected as
//! [`Effects`] and done after it, by [`Fifo::change`]. All other user data is copied without a lock: a
//! reader takes a buffer out of the FIFO and is the only one to do so ([`Inner::reading`]); a writer
//! fills messages of its own, or pins the pages ([`UserPages`]) and waits until the device has read
//! them. A reader that expects data soon looks for it instead of being interrupted
//! ([`Fifo::look_for_data`]).
//!
//! A read that was put aside is served by the worker, which enters the memory of its process; or in place
//! ([`Fifo::serve_in_place`]), where its memory is pinned: in an interrupt as well, as that neither sleeps
//! nor takes long, and if it is short in the hold of the lock that finds the data ([`Inner::land`]). One of the
//! two at a time ([`Requests::begin_serving`]), so that reads end in order. Once the worker had to serve one,
//! it pins the next in line ([`Fifo::pin_next`]).
//!
//! AIO's own lock is held around [`Cancel::cancel`], which takes `inner`; so nothing of AIO is called
//! under `inner`, and requests are completed after it is released ([`Fifo::complete_accepted`]). A reader's or a
//! writer's turn is decided under `inner`: requests that wait come before calls.
//!
//! A device may use buffers as fast as they are posted, so what one hold of the lock does is bounded
//! ([`super::rx::BUDGET`]), and what is completed after it ([`COMPLETIONS`]). Where more is to be done,
//! it is noted under the lock ([`Deferred`]), and the work queue goes on, a part at a time and without
//! interrupts of that queue; the interrupt handler leaves it alone until then. That work never waits,
//! so it is apart from the one that serves requests, which waits for user memory.
//!
//! The device going away: [`Fifo::close`] sets [`Life::Gone`] under the lock. I/O that finds it
//! fails; a read that is copying at that moment fails too, and its bytes stay with the device, which
//! will deliver them again. Then the queues are drained, and [`Fifo::detach`] takes them out.

use super::{
    aio::{
        Armed,
        Completion,
        Job,
        Requests,
        Reservation,
        Wants,
        PINNED, //
    },
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
        Await,
        Pumped,
        TxSide,
        ACK_MICROSECONDS,
        DIRECT, //
    },
    watch::{
        Lookout,
        Watch, //
    },
};
use crate::{
    kapi::{
        aio::{
            Cancel,
            FileId,
            Id,
            UserDest,
            UserSource, //
        },
        fasync::{
            Band,
            FasyncList, //
        },
        iter::{
            Request,
            Source,
            UserBytes, //
        },
        pages::UserPages,
        timer::{
            Timer,
            TimerCallback, //
        },
        virtio::{
            Look,
            Queue, //
        },
        wait::{
            new_wait_queue,
            others_want_cpu,
            relax,
            Deadline,
            Events,
            NoPreemption,
            Signals,
            WaitFor,
            WaitQueue,
            Waited, //
        },
    },
    registry::Queues,
    virtio_fifo::{
        CtrlRequest,
        State,
        CTRL_CLEAR,
        CTRL_GET_STATE,
        MAX_CAPACITY,
        MAX_POSITION,
        STATE_ERROR,
        STATE_HANGUP,
        STATE_LOOPBACK,
        STATE_RX_END, //
    },
};
use kernel::{
    iov::IovIterDest,
    prelude::*,
    sync::{
        new_spinlock_irq,
        Arc,
        ArcBorrow,
        SpinLockIrq,
        SpinLockIrqGuard, //
    },
    time::{
        Instant,
        Monotonic, //
    },
    workqueue::{
        impl_has_work,
        new_work,
        Work,
        WorkItem, //
    },
};

/// Bound of the waits for the device to take what was written (DEV-10: it does so at once).
pub(crate) const DRAIN_SECONDS: u8 = 5;

/// How long to look for what the device does at once before sleeping.
const SPIN_MICROSECONDS: i64 = 200;

/// Least bytes of a write that looks for events while it copies: they come for each half of what the FIFO
/// holds, and an interrupt costs more than to copy so much.
const LOOKOUT: usize = 16 << 10;

/// Most bytes that are copied under the lock at a time.
const ALONG: usize = 512;

/// Requests to complete at a time.
const COMPLETIONS: usize = 64;

/// Requests to serve before other work gets its turn.
const JOBS: usize = 64;

/// Reads to serve in place, which may be an interrupt.
const LANDINGS: usize = 8;

/// Names of a FIFO's works: the one that serves requests, and the one that goes on where an interrupt
/// has left off.
const SERVE: u64 = 0;
const CONTINUE: u64 = 1;

/// Names of its timers: the one that looks at the transmit queue, and the one that has the device
/// told what was read.
const LOOK: u64 = 0;
const ACK: u64 = 1;

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

/// What a change under the lock leads to after it.
struct Effects {
    /// Whom to wake and signal.
    events: Events,
    /// Messages came back.
    drained: bool,
    /// A reader's turn is over, and others wait for theirs.
    next_reader: bool,
    /// It is an interrupt that does this.
    interrupt: bool,
    /// Accepted requests are to be completed by whoever does this.
    complete: bool,
    /// Reads can go on where this happens.
    land: bool,
    /// The first of them, which is done.
    landed: Option<Completion>,
    /// Requests can go on.
    work: bool,
    /// There is more to do than may be done at once.
    more: bool,
    /// The transmit queue is to be looked at after so many microseconds.
    timer: Option<u32>,
    /// The device is to be told what was read, in a longer while.
    ack_timer: bool,
    /// Messages that are done, to be freed.
    messages: Chain<TxBuffer>,
}

/// What was left for the work queue to go on with.
#[derive(Default)]
struct Deferred {
    rx: bool,
    tx: bool,
    completions: bool,
}

/// What the lock protects.
struct Inner {
    /// Which FIFO of its device.
    index: u16,
    stats: Arc<Stats>,
    life: Life,
    rx: RxSide,
    tx: TxSide,
    aio: Requests,
    /// A reader has a buffer out.
    reading: bool,
    /// Another reader found that, and waits.
    read_contended: bool,
    /// A writer is at it piece by piece, and its bytes stay together.
    writing: bool,
    /// Another writer found that, and waits.
    write_contended: bool,
    /// How many calls sleep until there is space.
    space_waiters: u32,
    /// How often the FIFO was cleared.
    clears: u64,
    /// A reader looks for data again and again, so that no interrupt needs to tell of it.
    looking: bool,
    /// How long to do that.
    patience: Patience,
    deferred: Deferred,
    /// What a cancelled request left for calls, which the worker is to tell them.
    left_by_cancel: Events,
    /// So many bytes of a call can join the message that waits for more, with nothing else to be looked at:
    /// what [`Inner::may_go_along`] was when this was last changed by [`Fifo::change`], less what has joined
    /// since. 0 after any other hold of the lock, see [`Fifo::lock`].
    along: usize,
}

impl Inner {
    fn check(&self) -> Result {
        match self.life {
            Life::Live => Ok(()),
            Life::Failed => Err(EIO),
            Life::Gone => Err(ENODEV),
        }
    }

    /// As [`Inner::check`], for who writes: `EPIPE` when the other side is gone.
    fn check_writing(&self) -> Result {
        self.check()?;
        if self.rx.hung_up() {
            return Err(EPIPE);
        }
        Ok(())
    }

    /// As [`Inner::check`], for what was written before: it still goes to a device that is being taken
    /// away, until its queues are.
    fn check_sending(&self) -> Result {
        match self.life {
            Life::Gone if self.tx.is_attached() => Ok(()),
            _ => self.check(),
        }
    }

    /// Bytes that may be written.
    fn credit(&self) -> u64 {
        self.tx.credit(self.rx.consumed())
    }

    /// Whether a read can do something: there is data, or the end.
    fn has_data(&self) -> bool {
        self.rx.level() > 0 || self.rx.at_end()
    }

    /// As [`Inner::has_data`], for a call: requests that wait come first.
    fn has_data_for_calls(&self) -> bool {
        self.has_data() && !self.aio.want_data()
    }

    /// How many bytes of a call can join the message that waits for more.
    fn may_go_along(&mut self) -> usize {
        let room = self.tx.room_to_join();
        if room == 0 || self.check().is_err() || self.rx.hung_up() {
            return 0;
        }
        usize::try_from(self.credit_for_calls()).map_or(room, |credit| credit.min(room))
    }

    /// As [`Inner::credit_for_calls`], for one who will wait, or come back: if it is somebody's turn, its end
    /// tells.
    fn credit_or_wait(&mut self) -> u64 {
        self.write_contended |= self.writing;
        self.credit_for_calls()
    }

    /// As [`Inner::credit`], for a call: requests that wait come first, and who is writing.
    fn credit_for_calls(&self) -> u64 {
        if self.writing || self.aio.want_space() {
            0
        } else {
            self.credit()
        }
    }

    /// The events that hold, for poll.
    fn events(&self) -> Events {
        let mut events = match self.life {
            Life::Live => Events::NONE,
            Life::Failed => Events::ERR,
            Life::Gone => return Events::ERR | Events::HUP,
        };
        // Not while another reads: a read would find nothing, and whoever polls again at once (as
        // io_uring does) would not get anywhere. The end of that reader's turn wakes.
        if self.has_data_for_calls() && !self.reading || self.rx.hung_up() {
            events |= Events::IN;
        }
        if self.credit_for_calls() > 0 {
            events |= Events::OUT;
        }
        if self.rx.hung_up() {
            events |= Events::HUP;
        } else if self.rx.ended() {
            events |= Events::READ_HUP;
        }
        events
    }

    /// Whether requests come before calls, in reading and in writing.
    fn precedence(&self) -> (bool, bool) {
        (self.aio.want_data(), self.aio.want_space())
    }

    /// What there is for calls, and was not while requests had the `precedence`: what they left.
    fn left_by_requests(&mut self, precedence: (bool, bool)) -> Events {
        let (reads, writes) = precedence;
        let mut events = Events::NONE;
        // Not yet: the end of that writer's turn tells.
        self.write_contended |= self.writing && writes;
        if reads && self.has_data_for_calls() {
            events |= Events::IN;
        }
        if writes && self.credit_for_calls() > 0 {
            events |= Events::OUT;
        }
        events
    }

    /// Whether there is data for requests, and space.
    fn for_requests(&self) -> (bool, bool) {
        let live = matches!(self.life, Life::Live);
        (
            live && !self.reading && self.has_data(),
            live && !self.writing && self.credit() > 0,
        )
    }

    /// Whether the caller is to serve reads in place.
    fn begin_landing(&mut self) -> bool {
        let (data, _) = self.for_requests();
        self.aio.begin_landing(data)
    }

    /// Serves the read that is first in line and to be served in place, if it is short and there is enough in one
    /// buffer: to be completed after the lock is released, before anything else is served.
    fn land(&mut self, effects: &mut Effects) -> Option<Completion> {
        if !self.for_requests().0 {
            return None;
        }
        let to = self.aio.take_landing(ALONG)?;
        let read = to
            .with_landing(|to| self.read_at_once(to, effects))
            .flatten();
        self.put_back_landing(to, read.map(Ok))
    }

    /// Reads all that is there, or as much as `to` takes, if that is in one buffer and somewhere.
    fn read_at_once(&mut self, to: &mut IovIterDest<'_>, effects: &mut Effects) -> Option<usize> {
        let wanted = usize::try_from(self.rx.level()).map_or(to.len(), |level| level.min(to.len()));
        let buffer = self.rx.take()?;
        let read = match buffer.unread().get(..wanted) {
            Some(bytes) => to.copy_to_iter(bytes),
            None => 0,
        };
        self.rx.give_back(buffer, read);
        if read > 0 {
            self.end_read(effects);
        }
        (read > 0).then_some(read)
    }

    /// The read that was first in line has been served in place, or could not be.
    fn put_back_landing(
        &mut self,
        to: UserDest,
        result: Option<Result<usize>>,
    ) -> Option<Completion> {
        let result = result.or(self.check().err().map(Err));
        let done = self.aio.put_back_landing(to, result)?;
        // Counted first, so that whoever sees a completion sees it counted.
        if let Some(Ok(_)) = result {
            self.stats.aio_in_place.add(1);
            self.stats.aio_by_interrupt.add(1);
        } else {
            self.stats.aio_ended.add(1);
        }
        Some(done)
    }

    /// Whether the worker is to go on with requests.
    fn have_work(&self) -> bool {
        let (data, space) = self.for_requests();
        self.left_by_cancel != Events::NONE || self.aio.have_work(data, space)
    }

    /// Runs a change that may make space, and notes if it did.
    fn watch_space(&mut self, effects: &mut Effects, change: impl FnOnce(&mut Self, &mut Effects)) {
        let was_full = self.credit() == 0;
        change(self, effects);
        if was_full && self.credit() > 0 {
            effects.events |= Events::OUT;
        }
    }

    /// Moves messages on.
    fn pump(&mut self, effects: &mut Effects) {
        let consumed = self.rx.consumed();
        let wanted = if self.aio.many_want_acceptance() {
            Await::Together
        } else if self.aio.want_acceptance() {
            Await::Interrupt
        } else {
            Await::None
        };
        match self.tx.pump(consumed, wanted, &mut effects.messages) {
            Ok(Pumped {
                messages,
                joined,
                progress,
                more,
                timer,
                ack_timer,
                ..
            }) => {
                effects.timer = timer.or(effects.timer);
                effects.ack_timer |= ack_timer;
                self.stats.tx_messages.add(messages);
                self.stats.tx_bytes.add(joined);
                effects.drained |= progress;
                effects.more |= more;
                self.deferred.tx = more;
                let accepted = self.tx.accepted();
                self.aio.accept(accepted);
            }
            Err(broken) => self.fail(broken, effects),
        }
    }

    /// Somebody is to wait for data: what was written before is not held back any longer.
    fn expect_data(&mut self, effects: &mut Effects) {
        if self.tx.hurry_up() && !self.deferred.tx {
            self.pump(effects);
        }
    }

    /// The device is not to be trusted with this FIFO any more, and not listened to.
    fn fail(&mut self, Broken(what): Broken, effects: &mut Effects) {
        if !matches!(self.life, Life::Live) {
            return;
        }
        self.stats.protocol_errors.add(1);
        pr_err!(
            "FIFO {} fails with EIO until its device is bound anew: the device sent {what}\n",
            self.index
        );
        self.life = Life::Failed;
        self.aio.abort(EIO);
        self.aio.abort_sent(self.tx.accepted(), EIO);
        self.rx.silence();
        let mut unsent = self.tx.abandon();
        while let Some(message) = unsent.pop_front() {
            effects.messages.push_back(message);
        }
        effects.events |= Events::ERR;
        effects.drained = true;
    }

    /// Takes what the device sent.
    fn receive(&mut self, effects: &mut Effects) {
        self.deferred.rx = false;
        if !matches!(self.life, Life::Live) {
            // Nobody can read it. If the device is only being taken away, it keeps the bytes.
            self.rx.silence();
            return;
        }
        self.watch_space(effects, |this, effects| {
            match this.rx.receive(this.looking) {
                Ok(received) => {
                    this.stats.rx_bytes.add(received.bytes);
                    this.stats.rx_messages.add(received.messages);
                    if received.bytes > 0 {
                        effects.events |= Events::IN;
                        this.tx.note_answer();
                    }
                    effects.more |= received.more;
                    this.deferred.rx = received.more;
                    this.learn(received.tx_limit, this.rx.received(), effects);
                }
                Err(broken) => this.fail(broken, effects),
            }
        });
    }

    /// Takes a limit, and checks a position of the rx stream that the device told (DRV-12).
    fn learn(&mut self, tx_limit: u64, rx_position: u64, effects: &mut Effects) {
        if self.tx.is_beyond(rx_position) {
            self.fail(Broken("bytes that were never written"), effects);
        } else if let Err(broken) = self.tx.raise_limit(tx_limit) {
            self.fail(broken, effects);
        }
    }

    /// Takes the counters of a state that was checked. Not its flags: those of an event and of an
    /// answer to a request have no order between them, so only events count.
    fn apply(&mut self, state: &State, effects: &mut Effects) {
        self.watch_space(effects, |this, effects| {
            if state.rx_floor > this.rx.consumed() {
                this.rx.discard_below(state.rx_floor);
            }
            this.learn(state.tx_limit, state.rx_end, effects);
        });
    }

    /// Takes the flags of a state that was checked.
    fn apply_flags(&mut self, state: &State, effects: &mut Effects) {
        let (was_hung_up, had_ended) = (self.rx.hung_up(), self.rx.ended());
        let hung_up = state.flags & STATE_HANGUP != 0;
        let rx_end = state.flags & STATE_RX_END != 0;
        self.rx.set_end(hung_up, rx_end, state.rx_end);
        if hung_up && !was_hung_up {
            self.aio.abort_writes(EPIPE);
            effects.events |= Events::HUP;
        } else if rx_end && !had_ended {
            effects.events |= Events::READ_HUP;
        }
        // Those who poll for edges heard of the end, and are to hear that it is over.
        if was_hung_up && !hung_up && self.credit() > 0 {
            effects.events |= Events::OUT;
        }
        if state.flags & STATE_ERROR != 0 {
            self.fail(Broken("an error"), effects);
        }
    }

    /// Ends a reader's turn, and tells the device what was read.
    fn end_read(&mut self, effects: &mut Effects) {
        self.watch_space(effects, |this, _| this.rx.consume_given());
        self.reading = false;
        effects.next_reader |= core::mem::take(&mut self.read_contended);
        let (consumed, empty) = (self.rx.consumed(), self.rx.level() == 0);
        self.tx.note_consumed(consumed, empty);
        self.pump(effects);
    }

    /// Goes on with a writer's turn, or ends it: then those who found it hear of what it left.
    fn turn_of_writer(&mut self, goes_on: bool, effects: &mut Effects) {
        self.writing = goes_on;
        let others = !goes_on && core::mem::take(&mut self.write_contended);
        if others && self.credit_for_calls() > 0 {
            effects.events |= Events::OUT;
        }
    }

    /// Queues what fits of the `copied` bytes of `messages`, in one piece; how many. To be pumped.
    fn enqueue(&mut self, messages: &mut Chain<TxBuffer>, copied: usize, credit: u64) -> usize {
        let most = copied.min(usize::try_from(credit).unwrap_or(usize::MAX));
        let sent = self.tx.enqueue(messages, most);
        self.tx.keep(messages);
        self.stats.tx_bytes.add(sent as u64);
        sent
    }
}

/// For how long a reader looks for data before it sleeps: as long as the last one would have had to,
/// if that is not too long.
struct Patience {
    microseconds: i64,
    /// How often in a row it was at its most, and in vain.
    failures: u32,
    /// So many waits that might have been short, but for the interrupt, until it is at its most again.
    until_try: u32,
}

impl Patience {
    const NONE: Self = Self {
        microseconds: 0,
        failures: 0,
        until_try: 0,
    };
    /// More is never worth it: to sleep and to be woken costs less.
    const MOST: i64 = 300;
    /// What took no longer, sleep and interrupt included, may be found within [`Patience::MOST`].
    const PERHAPS: i64 = 2 * Self::MOST;
    /// It is tried one time in two to the power of this, at least.
    const MOST_FAILURES: u32 = 8;

    /// Somebody had to wait for so many microseconds.
    fn learn(&mut self, waited: i64) {
        if waited <= Self::MOST {
            *self = Self {
                microseconds: Self::MOST,
                ..Self::NONE
            };
            return;
        }
        if self.microseconds == Self::MOST {
            self.failures = Self::MOST_FAILURES.min(self.failures + 1);
            self.until_try = 1 << self.failures;
        }
        self.microseconds /= 2;
        if waited <= Self::PERHAPS {
            match self.until_try.checked_sub(1) {
                Some(left) => self.until_try = left,
                None => self.microseconds = Self::MOST,
            }
        }
    }
}

/// Who reads: those who wait longer come first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// A system call.
    Call,
    /// One that is a request, and can be put aside.
    Request,
    /// The worker, for the request that is first in line.
    Worker,
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
    /// Serves requests in process context.
    #[pin]
    worker: Work<Fifo, SERVE>,
    /// Goes on with what an interrupt left.
    #[pin]
    continuation: Work<Fifo, CONTINUE>,
    queues: Queues,
    /// Looks at the transmit queue in place of an interrupt.
    #[pin]
    timer: Timer<Self, LOOK>,
    /// Has the device told what was read, if no message did.
    #[pin]
    ack_timer: Timer<Self, ACK>,
    /// Of its device.
    watch: Arc<Watch>,
}

impl TimerCallback<LOOK> for Fifo {
    fn expired(self: ArcBorrow<'_, Self>) {
        self.tx_timer(TxSide::look_expired);
    }
}

impl TimerCallback<ACK> for Fifo {
    fn expired(self: ArcBorrow<'_, Self>) {
        self.tx_timer(TxSide::ack_expired);
    }
}

impl_has_work! {
    impl HasWork<Self, SERVE> for Fifo { self.worker }
    impl HasWork<Self, CONTINUE> for Fifo { self.continuation }
}

impl WorkItem<CONTINUE> for Fifo {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.as_arc_borrow().go_on();
    }
}

impl WorkItem<SERVE> for Fifo {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.as_arc_borrow().serve_requests();
    }
}

impl Fifo {
    /// Asks the device where FIFO `index` stands, and starts there. No data flows before
    /// [`Fifo::attach`] (DRV-4). Work is done in `queues`; `watch` hears of open files.
    pub(crate) fn new(
        index: u16,
        control: Arc<Control>,
        queues: Queues,
        watch: Arc<Watch>,
    ) -> Result<Arc<Self>> {
        let stats = Arc::new(Stats::new(), GFP_KERNEL)?;
        let request = CtrlRequest {
            kind: CTRL_GET_STATE,
            fifo: u32::from(index),
            tx_sent: 0,
        };
        let state = control.request(Control::prepare()?, request, &stats.missed_interrupts)?;
        check_state(&state, u32::from(index), state.capacity).inspect_err(|_| {
            pr_err!("FIFO {index} is not used: the device sent an impossible state\n");
        })?;
        let mut inner = Inner {
            index,
            stats: stats.clone(),
            life: Life::Live,
            rx: RxSide::new(&state),
            tx: TxSide::new(&state)?,
            aio: Requests::new(),
            reading: false,
            read_contended: false,
            writing: false,
            write_contended: false,
            space_waiters: 0,
            clears: 0,
            looking: false,
            patience: Patience::NONE,
            deferred: Deferred::default(),
            left_by_cancel: Events::NONE,
            along: 0,
        };
        inner.apply_flags(&state, &mut Effects::new());
        Arc::pin_init(
            pin_init!(Self {
                index,
                capacity: state.capacity,
                control,
                stats,
                inner <- new_spinlock_irq!(inner, "Fifo::inner"),
                wait <- new_wait_queue!("Fifo::wait"),
                drained <- new_wait_queue!("Fifo::drained"),
                readers: FasyncList::new(),
                writers: FasyncList::new(),
                worker <- new_work!("Fifo::worker"),
                continuation <- new_work!("Fifo::continuation"),
                queues,
                timer <- Timer::new(),
                ack_timer <- Timer::new(),
                watch,
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
        let mut inner = self.lock();
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
    pub(crate) fn close(self: ArcBorrow<'_, Self>) {
        self.change(|inner, effects| {
            inner.life = Life::Gone;
            inner.aio.abort(ENODEV);
            inner.rx.silence();
            let consumed = inner.rx.consumed();
            inner.tx.demand_ack(consumed);
            inner.tx.begin_wait();
            inner.pump(effects);
            effects.events |= Events::HUP | Events::ERR;
        });
    }

    /// Waits until the device has taken everything (DRV-9), or until `deadline`; false when it did
    /// not.
    pub(crate) fn drain(self: ArcBorrow<'_, Self>, deadline: Deadline) -> bool {
        let waited = self.drained.wait_looking(
            WaitFor::Writable,
            Signals::Ignore,
            deadline,
            || {
                self.look();
            },
            || self.lock().tx.is_drained(),
        );
        matches!(waited, Ok(Waited::Done))
    }

    /// Takes the queues out. They must be dropped by the caller, which stops the device.
    pub(crate) fn detach(self: ArcBorrow<'_, Self>) -> (Option<Queue<Rx>>, Option<Queue<Tx>>) {
        let queues = self.change(|inner, effects| {
            effects.drained = true;
            let accepted = inner.tx.accepted();
            inner.aio.abort_sent(accepted, ENODEV);
            (inner.rx.detach(), inner.tx.detach())
        });
        // Without a queue nobody starts them again.
        self.timer.cancel();
        self.ack_timer.cancel();
        queues
    }

    /// The receive queue has used buffers. Called in hard interrupt context.
    pub(crate) fn rx_interrupt(self: ArcBorrow<'_, Self>) {
        self.stats.interrupts.add(1);
        self.change(|inner, effects| {
            if !inner.deferred.rx {
                inner.receive(effects);
            }
        });
    }

    /// The transmit queue has used buffers. Called in hard interrupt context.
    pub(crate) fn tx_interrupt(self: ArcBorrow<'_, Self>) {
        self.stats.interrupts.add(1);
        self.change(|inner, effects| {
            effects.interrupt = true;
            if !inner.deferred.tx {
                inner.pump(effects);
            }
        });
    }

    /// As [`Fifo::tx_interrupt`], in place of one.
    fn tx_timer(self: ArcBorrow<'_, Self>, expired: fn(&mut TxSide)) {
        self.change(|inner, effects| {
            expired(&mut inner.tx);
            if !inner.deferred.tx {
                inner.pump(effects);
            }
        });
    }

    /// Goes on where an interrupt has left off, for as much again. In the work queue.
    fn go_on(self: ArcBorrow<'_, Self>) {
        let completions = self.change(|inner, effects| {
            effects.interrupt = true;
            let deferred = core::mem::take(&mut inner.deferred);
            if deferred.rx {
                inner.receive(effects);
            }
            if deferred.tx {
                inner.pump(effects);
            }
            deferred.completions
        });
        if completions {
            self.complete_accepted(true);
        }
    }

    /// Does the work of interrupts that did not come; whether it is to look again soon, because they
    /// may yet.
    pub(crate) fn look(self: ArcBorrow<'_, Self>) -> bool {
        self.change(|inner, effects| {
            let looks = (inner.rx.look(), inner.tx.look());
            effects.interrupt = true;
            if looks.0 == Look::Missed {
                self.stats.missed_interrupts.add(1);
                inner.receive(effects);
            }
            if looks.1 == Look::Missed {
                self.stats.missed_interrupts.add(1);
            }
            let left_behind = inner.tx.is_left_behind() && !inner.deferred.tx;
            self.stats.left_behind.add(left_behind.into());
            // Messages that the core had no memory to post have no interrupt to wait for.
            if looks.1 == Look::Missed || inner.tx.is_congested() {
                inner.pump(effects);
            }
            looks.0 == Look::Pending || looks.1 == Look::Pending
        })
    }

    /// The device broke what all its FIFOs rely on.
    pub(crate) fn fail(self: ArcBorrow<'_, Self>, broken: Broken) {
        self.change(|inner, effects| inner.fail(broken, effects));
    }

    /// A file of it was opened.
    pub(crate) fn opened(&self) {
        self.watch.as_arc_borrow().opened();
    }

    /// An open file of it is gone.
    pub(crate) fn closed(&self) {
        self.watch.closed();
    }

    /// The device told where it stands. Any context.
    pub(crate) fn state_event(self: ArcBorrow<'_, Self>, state: &State) {
        self.change(|inner, effects| {
            if check_state(state, u32::from(self.index), self.capacity).is_err() {
                inner.fail(Broken("an impossible state"), effects);
                return;
            }
            inner.apply(state, effects);
            inner.apply_flags(state, effects);
        });
    }

    /// Changes something under the lock, and does after it what the change leads to.
    fn change<R>(
        self: ArcBorrow<'_, Self>,
        change: impl FnOnce(&mut Inner, &mut Effects) -> R,
    ) -> R {
        let mut effects = Effects::new();
        let mut inner = self.inner.lock();
        let precedence = inner.precedence();
        let result = change(&mut inner, &mut effects);
        effects.land = inner.begin_landing();
        if effects.land {
            effects.landed = inner.land(&mut effects);
        }
        effects.events |= inner.left_by_requests(precedence);
        effects.work = inner.have_work();
        effects.complete = inner.aio.begin_completing();
        inner.along = inner.may_go_along();
        if let Some(microseconds) = effects.timer {
            // Under the lock, so that none starts after the queues are taken out.
            self.timer.start(self.into(), microseconds);
        }
        if effects.ack_timer {
            self.ack_timer.start(self.into(), ACK_MICROSECONDS);
        }
        drop(inner);
        self.perform(effects);
        result
    }

    /// For a change that wakes nobody, and leads to nothing else.
    fn lock(&self) -> SpinLockIrqGuard<'_, Inner> {
        let mut inner = self.inner.lock();
        inner.along = 0;
        inner
    }

    /// See [`Fifo::change`]. Called from any context, without the lock.
    fn perform(self: ArcBorrow<'_, Self>, effects: Effects) {
        if effects.complete {
            self.complete_accepted(effects.interrupt);
        }
        if let Some(landed) = effects.landed {
            landed.complete();
        }
        if effects.land {
            self.serve_in_place();
        }
        if effects.work {
            self.start_worker();
        }
        if effects.more {
            self.stats.deferrals.add(1);
            self.continue_later();
        }
        if effects.drained {
            self.drained.wake(Events::OUT);
        }
        if effects.next_reader {
            self.wait.wake(Events::IN);
        }
        self.notify(effects.events);
    }

    /// Has the worker look at requests, soon. From any context.
    fn start_worker(self: ArcBorrow<'_, Self>) {
        // An error says that it is to run already; it looks at everything when it does.
        let _ = self
            .queues
            .requests
            .queue()
            .enqueue::<_, SERVE>(Arc::from(self));
    }

    /// Has the work queue go on with what is deferred. From any context.
    fn continue_later(self: ArcBorrow<'_, Self>) {
        // As above.
        let _ = self
            .queues
            .rest
            .queue()
            .enqueue::<_, CONTINUE>(Arc::from(self));
    }

    /// Completes accepted requests until there are none, or [`COMPLETIONS`] are done: the work queue
    /// goes on with the rest. One caller at a time does, so that they complete in order.
    fn complete_accepted(self: ArcBorrow<'_, Self>, interrupt: bool) {
        let stats = &self.stats;
        let counter = if interrupt {
            &stats.aio_by_interrupt
        } else {
            &stats.aio_in_passing
        };
        let mut left = COMPLETIONS;
        while left > 0 {
            let batch = self.lock().aio.next_accepted(left);
            // Counted first, so that whoever sees a completion sees it counted.
            let Some(batch) = batch else {
                return;
            };
            let count = batch.len();
            counter.add(count as u64);
            batch.complete();
            left = left.saturating_sub(count);
        }
        self.lock().deferred.completions = true;
        self.continue_later();
    }

    /// Wakes and signals.
    fn notify(&self, events: Events) {
        if events == Events::NONE {
            return;
        }
        // The end of the data alone: readers learn of it as they do of data, except that the band of
        // a signal tells the two apart.
        let ended = events.contains(Events::READ_HUP) && !events.contains(Events::HUP);
        let wakes = if ended { events | Events::IN } else { events };
        if self.wait.wake(wakes) {
            self.stats.wakeups.add(1);
        }
        if ended {
            self.signal(&self.readers, Band::Hup);
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

    /// The events that hold; `for_data` if somebody may then wait for data.
    pub(crate) fn events(self: ArcBorrow<'_, Self>, for_data: bool) -> Events {
        self.change(|inner, effects| {
            let (reading, writing) = (inner.reading, inner.writing);
            inner.read_contended |= reading;
            inner.write_contended |= writing;
            let events = inner.events();
            if for_data && !events.contains(Events::IN) {
                inner.expect_data(effects);
            }
            events
        })
    }

    /// Reads what is there, or waits until something is; a request that can be put aside is.
    ///
    /// # Errors
    ///
    /// `EAGAIN` when it would have to wait and must not, `ERESTARTSYS` on a signal, `EFAULT` when not
    /// a single byte could be copied, `EIO` and `ENODEV` by the FIFO's life; `EIOCBQUEUED`.
    pub(crate) fn read(
        self: ArcBorrow<'_, Self>,
        request: &Request,
        to: &mut IovIterDest<'_>,
    ) -> Result<usize> {
        loop {
            let reader = if request.can_be_deferred() {
                Reader::Request
            } else {
                Reader::Call
            };
            if let Some(read) = self.try_read(to, reader)? {
                if reader == Reader::Request {
                    self.stats.aio_at_submit.add(1);
                }
                return Ok(read);
            }
            if request.must_not_wait() {
                return Err(EAGAIN);
            }
            let may_pin = self.change(|inner, effects| {
                inner.expect_data(effects);
                inner.aio.may_pin()
            });
            if request.can_be_deferred() {
                if !may_pin {
                    self.pin_ahead();
                }
                let to = UserDest::remember(to, may_pin)?;
                return self.defer(request, |_| Ok(Some(Wants::Data(to))));
            }
            let began = Instant::now();
            if !self.look_for_data(began) {
                self.wait
                    .wait(WaitFor::Readable, Signals::Interrupt, None, || {
                        let mut inner = self.lock();
                        // Whoever reads now may leave something, and wakes those who said so.
                        let reading = inner.reading;
                        inner.read_contended |= reading;
                        inner.check().is_err() || !reading && inner.has_data_for_calls()
                    })?;
            }
            let waited = began.elapsed().as_micros_ceil();
            self.lock().patience.learn(waited);
        }
    }

    /// Looks for data for a while instead of waiting for an interrupt, if that was worthwhile the last
    /// time; whether there is something to read, or an error.
    ///
    /// Meanwhile the receive queue does not interrupt: whatever others wait for, the one who looks
    /// tells them. So it is not preempted, and stops when others want the CPU.
    fn look_for_data(self: ArcBorrow<'_, Self>, began: Instant<Monotonic>) -> bool {
        let patience = {
            let mut inner = self.lock();
            let able = inner.check().is_ok() && !inner.looking && !inner.reading;
            let patience = inner.patience.microseconds;
            if !able || patience == 0 {
                return false;
            }
            inner.looking = true;
            patience
        };
        let no_preemption = NoPreemption::new();
        let mut over = false;
        while !over && began.elapsed().as_micros_ceil() < patience && !relax() {
            over = self.change(|inner, effects| {
                if !inner.deferred.rx {
                    inner.receive(effects);
                }
                inner.check().is_err() || inner.has_data_for_calls()
            });
        }
        self.change(|inner, effects| {
            inner.looking = false;
            if !inner.deferred.rx {
                inner.receive(effects);
            }
        });
        drop(no_preemption);
        self.stats.looks.add(over.into());
        over
    }

    /// `None` when there is nothing to read, or it is somebody else's turn.
    fn try_read(
        self: ArcBorrow<'_, Self>,
        to: &mut IovIterDest<'_>,
        reader: Reader,
    ) -> Result<Option<usize>> {
        let mut buffer = {
            let mut inner = self.lock();
            inner.check()?;
            if inner.reading {
                inner.read_contended = true;
                return Ok(None);
            }
            let behind = match reader {
                Reader::Call => inner.aio.want_data(),
                // Its answer must not overtake the completion of an earlier one either.
                Reader::Request => inner.aio.want_data() || inner.aio.is_serving(),
                Reader::Worker => false,
            };
            if behind {
                return Ok(None);
            }
            let Some(buffer) = inner.rx.take() else {
                return Ok(inner.rx.at_end().then_some(0));
            };
            inner.reading = true;
            buffer
        };
        let mut total = 0;
        // A read that is not over when the device is taken away has not happened.
        let mut error = EFAULT;
        loop {
            let wanted = buffer.unread().len().min(to.len());
            let read = buffer
                .unread()
                .get(..wanted)
                .map_or(0, |bytes| to.copy_to_iter(bytes));
            let more = read == wanted && !to.is_empty();

            let next = self.change(|inner, effects| {
                if let Err(gone) = inner.check() {
                    (total, error) = (0, gone);
                    inner.reading = false;
                    return None;
                }
                inner.rx.give_back(buffer, read);
                total += read;
                let next = if more { inner.rx.take() } else { None };
                if next.is_none() {
                    inner.end_read(effects);
                }
                next
            });
            match next {
                Some(next) => buffer = next,
                None if total == 0 => return Err(error),
                None => return Ok(Some(total)),
            }
        }
    }

    /// Writes what fits, or waits until something does; a request that can be put aside is, until
    /// the device has accepted its bytes.
    ///
    /// # Errors
    ///
    /// As for [`Fifo::read`], `ENOMEM`, and `EPIPE` when the other side is gone.
    pub(crate) fn write(
        self: ArcBorrow<'_, Self>,
        request: &Request,
        from: &mut Source<'_, '_>,
    ) -> Result<usize> {
        loop {
            let (wanted, direct, spares, least_look) = {
                let mut inner = self.lock();
                inner.check_writing()?;
                let credit = usize::try_from(inner.credit_or_wait()).unwrap_or(usize::MAX);
                let wanted = credit.min(from.len());
                // Not what is put aside: it can end, by a cancel, before the device has read it.
                let waits = !request.must_not_wait() && !request.can_be_deferred();
                let direct = (wanted >= DIRECT && waits)
                    .then(|| inner.tx.direct_pages())
                    .flatten();
                let spares = direct.is_none().then(|| inner.tx.take_spares(wanted));
                // A loopback FIFO has no events of credit, and who makes room may wait for this CPU.
                let least_look = if inner.tx.is_loopback() {
                    DIRECT
                } else {
                    LOOKOUT
                };
                (wanted, direct, spares, least_look)
            };
            let written = match direct {
                Some(num_pages) => self.write_direct(from, wanted, num_pages)?,
                None => None,
            };
            if let Some(written @ 1..) = written {
                return Ok(written);
            }
            if wanted > 0 && written.is_none() {
                let spares = spares.unwrap_or_else(|| self.lock().tx.take_spares(wanted));
                let mut events = (wanted >= least_look).then(|| self.watch.lookout());
                let mut outgoing = copy_messages(from, wanted, spares, &mut events)?;
                let written = if request.can_be_deferred() {
                    self.send_request(request, &mut outgoing)?
                } else {
                    self.send(&mut outgoing)?
                };
                from.put_back(outgoing.bytes - written.bytes);
                if written.bytes > 0 {
                    return written.answer;
                }
            }
            // Somebody else took the space, or there was none.
            if request.must_not_wait() {
                return Err(EAGAIN);
            }
            if request.can_be_deferred() {
                let from = UserSource::remember(from.iter())?;
                return self.defer(request, |inner| {
                    inner.check_writing()?;
                    Ok(Some(Wants::Space(from)))
                });
            }
            // Who fills a smaller FIFO looks longer than it takes to be woken.
            if from.len() >= least_look && self.capacity as usize >= 2 * DIRECT {
                let lookout = self.watch.lookout();
                if self.look_for_credit(from.len(), &lookout) > 0 {
                    continue;
                }
            }
            self.lock().space_waiters += 1;
            let waited = self
                .wait
                .wait(WaitFor::Writable, Signals::Interrupt, None, || {
                    let mut inner = self.lock();
                    inner.check().is_err() || inner.rx.hung_up() || inner.credit_or_wait() > 0
                });
            self.lock().space_waiters -= 1;
            waited?;
        }
    }

    /// Writes up to `wanted` bytes that the device reads where they are, or more if they come to fit, and
    /// waits until it has; how many, which is 0 when somebody else took the space. `None` when it cannot be
    /// done like that.
    ///
    /// Piece by piece, so that the device is at the first while the next is being pinned. Meanwhile it is
    /// this writer's turn, which as that of a reader lasts as long as its page faults.
    fn write_direct(
        self: ArcBorrow<'_, Self>,
        from: &mut Source<'_, '_>,
        mut wanted: usize,
        num_pages: usize,
    ) -> Result<Option<usize>> {
        let (mut total, mut end) = (0, 0);
        let (mut my_turn, mut pinned, mut clears) = (false, false, 0);
        let mut lookout = None;
        loop {
            // Nobody's events wait for page faults.
            if from.is_at_hand(wanted - total, num_pages) {
                lookout.get_or_insert_with(|| self.watch.lookout());
            } else {
                lookout = None;
            }
            let Some(message) = pin_message(from, wanted - total, num_pages) else {
                break;
            };
            pinned = true;
            let length = message.payload_len();
            let mut messages = Chain::new();
            messages.push_back(message);
            let events = lookout.get_or_insert_with(|| self.watch.lookout());
            let sent = self.change(|inner, effects| {
                let credit = if my_turn {
                    inner.credit()
                } else {
                    clears = inner.clears;
                    inner.credit_or_wait()
                };
                // What was cleared in between took a part of this write with it: the rest is another's.
                let able = inner.check().is_ok() && !inner.rx.hung_up() && inner.clears == clears;
                let sent = if able {
                    inner.enqueue(&mut messages, length, credit)
                } else {
                    0
                };
                end = inner.tx.positions().0;
                if my_turn || sent > 0 {
                    my_turn = sent == length && !from.is_empty();
                    inner.turn_of_writer(my_turn, effects);
                }
                inner.pump(effects);
                sent
            });
            total += sent;
            events.look();
            if !my_turn {
                from.put_back(length - sent);
                break;
            }
            if total == wanted {
                let more = self.look_for_credit(from.len(), events);
                if more == 0 {
                    break;
                }
                wanted += more;
            }
        }
        if my_turn {
            // What follows does not fit, or cannot be pinned.
            self.change(|inner, effects| inner.turn_of_writer(false, effects));
        }
        if total > 0 {
            self.stats.tx_direct.add(total as u64);
            self.wait_for_acceptance(end, lookout)?;
        }
        Ok(pinned.then_some(total))
    }

    /// Looks for credit for (more of) a write, while the device is at what came before; for how many of `most`
    /// bytes. None if others wait for their turn, or for the CPU: who makes room may be among them.
    fn look_for_credit(self: ArcBorrow<'_, Self>, most: usize, events: &Lookout) -> usize {
        // The device tells credit when half of what the FIFO holds is free; a little is not worth pinning.
        let least = most.min(DIRECT).min(self.capacity as usize / 2);
        let began = Instant::<Monotonic>::now();
        while !relax() && !others_want_cpu() {
            let credit = self.change(|inner, effects| {
                if !inner.deferred.tx {
                    inner.pump(effects);
                }
                let goes_on = inner.check().is_ok()
                    && !inner.rx.hung_up()
                    && !inner.write_contended
                    && inner.space_waiters == 0
                    && !inner.aio.want_space();
                goes_on.then(|| inner.credit())
            });
            let Some(credit) = credit else {
                break;
            };
            let fits = usize::try_from(credit).map_or(most, |credit| credit.min(most));
            if fits >= least {
                return fits;
            }
            if began.elapsed().as_micros_ceil() >= SPIN_MICROSECONDS {
                break;
            }
            events.look();
        }
        0
    }

    /// Writes by the way: all of it goes with the message that just waits for more, if there is one.
    #[inline]
    pub(crate) fn write_along(self: ArcBorrow<'_, Self>, from: &UserBytes) -> Option<usize> {
        let length = from.len();
        if length == 0 || length > ALONG {
            return None;
        }
        let enough = {
            let mut inner = self.inner.lock();
            inner.along = inner.along.checked_sub(length)?;
            // Nothing can follow it without credit.
            inner.tx.join(from)? || inner.along == 0
        };
        if enough {
            self.change(Inner::pump);
        }
        Some(length)
    }

    /// Sends what fits of `outgoing`, in one piece.
    fn send(self: ArcBorrow<'_, Self>, outgoing: &mut Outgoing) -> Result<Written> {
        self.change(|inner, effects| {
            inner.check_writing()?;
            let credit = inner.credit_or_wait();
            let bytes = inner.enqueue(&mut outgoing.messages, outgoing.bytes, credit);
            inner.pump(effects);
            Ok(Written {
                bytes,
                answer: Ok(bytes),
            })
        })
    }

    /// As [`Fifo::send`], for a request that is then put aside until the device has the bytes.
    fn send_request(
        self: ArcBorrow<'_, Self>,
        request: &Request,
        outgoing: &mut Outgoing,
    ) -> Result<Written> {
        let mut bytes = 0;
        let answer = self.defer(request, |inner| {
            inner.check_writing()?;
            let credit = inner.credit_or_wait();
            bytes = inner.enqueue(&mut outgoing.messages, outgoing.bytes, credit);
            let end = inner.tx.positions().0;
            Ok((bytes > 0).then_some(Wants::Acceptance { end, bytes }))
        });
        match answer {
            Err(error) if error != EIOCBQUEUED => Err(error),
            answer => Ok(Written { bytes, answer }),
        }
    }

    /// Puts a request aside until it gets what it `wants`, which is decided under the lock; 0 if
    /// that is nothing.
    fn defer(
        self: ArcBorrow<'_, Self>,
        request: &Request,
        wants: impl FnOnce(&mut Inner) -> Result<Option<Wants>>,
    ) -> Result<usize> {
        let memory = Reservation::new(GFP_KERNEL)?;
        let id = {
            let mut inner = self.lock();
            inner.check()?;
            let Some(wants) = wants(&mut inner)? else {
                return Ok(0);
            };
            let id = inner.aio.next_id();
            let pending = request.defer(id)?;
            inner.aio.add(memory, id, pending, wants);
            id
        };
        request.allow_cancel::<Self>();
        let armed = self.change(|inner, effects| {
            let armed = inner.aio.arm(
                id,
                inner.check(),
                inner.check_writing(),
                inner.check_sending(),
                inner.tx.accepted(),
                inner.tx.positions().0,
            );
            inner.pump(effects);
            armed
        });
        match armed {
            Armed::Yes => Err(EIOCBQUEUED),
            Armed::Answer(answer) => {
                self.stats.aio_at_submit.add(1);
                answer
            }
        }
    }

    /// Serves reads whose memory is pinned, [`LANDINGS`] at most; the worker does all others, and what is
    /// left. From any context, without the lock.
    fn serve_in_place(self: ArcBorrow<'_, Self>) {
        for _ in 0..LANDINGS {
            let (goes_on, work) = {
                let mut inner = self.lock();
                let (data, _) = inner.for_requests();
                let goes_on = inner.aio.goes_on_landing(data);
                (goes_on, inner.have_work())
            };
            if !goes_on {
                // From here on it is somebody else's turn.
                if work {
                    self.start_worker();
                }
                return;
            }
            let (landed, next) = self.change(|inner, effects| match inner.land(effects) {
                Some(landed) => (Some(landed), None),
                None => (None, inner.aio.take_landing(usize::MAX)),
            });
            if let Some(landed) = landed {
                landed.complete();
            }
            if let Some(to) = next {
                self.serve_landing(to);
            }
        }
        let work = {
            let mut inner = self.lock();
            inner.aio.end_serving();
            inner.have_work()
        };
        if work {
            self.start_worker();
        }
    }

    /// Serves a read whose memory is pinned, that [`Inner::land`] does not: as any other reader, piece by piece.
    fn serve_landing(self: ArcBorrow<'_, Self>, mut to: UserDest) {
        let result = to.with_landing(|to| self.try_read(to, Reader::Worker).transpose());
        if result.is_none() {
            to.forget_landing();
        }
        // `None` if the memory is elsewhere by now, or it is somebody's turn.
        let result = result.flatten();
        let (landed, left) = {
            let mut inner = self.lock();
            let precedence = inner.precedence();
            let landed = inner.put_back_landing(to, result);
            (landed, inner.left_by_requests(precedence))
        };
        if let Some(landed) = landed {
            landed.complete();
        }
        self.notify(left);
    }

    /// Serves requests as long as there is something for them; after some, others in the work queue
    /// come first. Only one such call runs at a time.
    fn serve_requests(self: ArcBorrow<'_, Self>) {
        if !self.lock().aio.begin_serving() {
            // Who is at it starts this again.
            return;
        }
        // That a read had to be served here says that those behind it may have to be.
        let mut pin = false;
        for _ in 0..JOBS {
            let (finished, left, job) = {
                let mut inner = self.lock();
                let (data, space) = inner.for_requests();
                let left = core::mem::replace(&mut inner.left_by_cancel, Events::NONE);
                let finished = inner.aio.take_finished();
                (finished, left, inner.aio.take_job(data, space, pin))
            };
            self.notify(left);
            self.stats.aio_ended.add(finished.len() as u64);
            finished.complete();
            match job {
                Some(Job::Read(id, to)) => {
                    pin |= to.pinned_len().is_none();
                    self.serve_read(id, to);
                }
                Some(Job::Write(id, from)) => self.serve_write(id, from),
                Some(Job::Pin) => {
                    pin = false;
                    self.pin_next();
                }
                None => return,
            }
        }
        self.lock().aio.end_serving();
        self.start_worker();
    }

    fn serve_read(self: ArcBorrow<'_, Self>, id: Id, mut to: UserDest) {
        let result = match to.with(|to| self.try_read(to, Reader::Worker)) {
            Some(Ok(Some(read))) => Some(Ok(read)),
            // Somebody's turn came in between: this request stays first in line.
            Some(Ok(None)) => None,
            Some(Err(error)) => Some(Err(error)),
            // The process is gone: nothing was read.
            None => Some(Err(EFAULT)),
        };
        self.put_back(id, Wants::Data(to), result);
    }

    /// Pins the memory of the reads that are next in line, so that they are served in place. Only what is in
    /// reach: no read without data is to keep the worker from others.
    fn pin_next(self: ArcBorrow<'_, Self>) {
        let Ok(mut next) = KVec::with_capacity(PINNED, GFP_KERNEL) else {
            return;
        };
        self.lock().aio.take_untried(&mut next);
        UserDest::pin_together(next.iter_mut().map(|(_, to)| to));
        let (done, left) = {
            let mut inner = self.lock();
            let precedence = inner.precedence();
            let result = inner.check().err().map(Err);
            for (id, to) in next {
                inner.aio.put_back(id, Wants::Data(to), result);
            }
            let left = inner.left_by_requests(precedence);
            (inner.aio.take_finished(), left)
        };
        self.stats.aio_ended.add(done.len() as u64);
        done.complete();
        self.notify(left);
    }

    /// As [`Fifo::pin_next`], one, by a task of the same process that queues another: who submits a read for each
    /// that is completed never needs the worker.
    fn pin_ahead(self: ArcBorrow<'_, Self>) {
        let Some((id, mut to)) = self.lock().aio.take_untried_of_current() else {
            return;
        };
        to.pin_by_current();
        // If data came for it meanwhile, nobody could serve it.
        self.change(|inner, _| {
            let result = inner.check().err().map(Err);
            inner.aio.put_back(id, Wants::Data(to), result);
        });
    }

    fn serve_write(self: ArcBorrow<'_, Self>, id: Id, mut from: UserSource) {
        let (wanted, spares) = {
            let mut inner = self.lock();
            let credit = usize::try_from(inner.credit()).unwrap_or(usize::MAX);
            let wanted = credit.min(from.len());
            (wanted, inner.tx.take_spares(wanted))
        };
        if wanted == 0 {
            return self.put_back(id, Wants::Space(from), None);
        }
        let copied =
            from.with(|iter| copy_messages(&mut Source::new(iter), wanted, spares, &mut None));
        let mut outgoing = match copied {
            Some(Ok(copied)) => copied,
            Some(Err(error)) => return self.put_back(id, Wants::Space(from), Some(Err(error))),
            None => return self.put_back(id, Wants::Space(from), Some(Err(EFAULT))),
        };
        // Nobody else writes while a request is first in line, so all of it still fits.
        let sent = self.change(|inner, effects| {
            let credit = inner.credit();
            inner.check_writing()?;
            let bytes = inner.enqueue(&mut outgoing.messages, outgoing.bytes, credit);
            let end = inner.tx.positions().0;
            inner
                .aio
                .put_back(id, Wants::Acceptance { end, bytes }, None);
            inner.pump(effects);
            Ok(())
        });
        if let Err(gone) = sent {
            self.put_back(id, Wants::Space(from), Some(Err(gone)));
        }
    }

    /// The worker is done with a request for now, or for good with a `result`.
    fn put_back(self: ArcBorrow<'_, Self>, id: Id, wants: Wants, result: Option<Result<usize>>) {
        let (done, alive, left) = {
            let mut inner = self.lock();
            let precedence = inner.precedence();
            let alive = match wants {
                Wants::Space(_) => inner.check_writing(),
                _ => inner.check(),
            };
            let result = result.or(alive.err().map(Err));
            inner.aio.put_back(id, wants, result);
            let left = inner.left_by_requests(precedence);
            (inner.aio.take_finished(), alive, left)
        };
        let counter = match (result, alive) {
            (Some(Ok(_)), Ok(())) => &self.stats.aio_by_interrupt,
            _ => &self.stats.aio_ended,
        };
        counter.add(done.len() as u64);
        done.complete();
        self.notify(left);
    }

    /// Ends the requests of `file` if `references`, all there are to it, are theirs and one more.
    pub(crate) fn end_requests_of(self: ArcBorrow<'_, Self>, file: FileId, references: usize) {
        self.change(|inner, _| {
            if inner.aio.count_of(file) + 1 >= references {
                inner.aio.cancel_of(file);
            }
        });
    }

    /// Waits until the device has accepted all that was written before (DEV-10).
    ///
    /// # Errors
    ///
    /// `EIO` when it does not in time, `ERESTARTSYS` on a signal, `EIO` and `ENODEV` by the FIFO's
    /// life.
    pub(crate) fn flush(self: ArcBorrow<'_, Self>) -> Result {
        let target = {
            let inner = self.lock();
            inner.check()?;
            inner.tx.positions().0
        };
        let mut life = Ok(());
        self.sleep_until(Signals::Interrupt, |inner| {
            life = inner.check();
            life.is_err() || inner.tx.has_accepted(target)
        })?;
        life
    }

    /// Waits until the device has everything below `end`, whose memory is the caller's: so nothing
    /// ends it but death, a device that goes, or one that takes nothing for [`DRAIN_SECONDS`].
    fn wait_for_acceptance(
        self: ArcBorrow<'_, Self>,
        end: u64,
        lookout: Option<Lookout>,
    ) -> Result {
        let mut accepted = false;
        let mut life = Ok(());
        let mut is_over = |inner: &Inner| {
            accepted = inner.tx.has_accepted(end);
            life = inner.check_sending();
            accepted || life.is_err()
        };
        // The device is at it, and done sooner than an interrupt could tell.
        let began = Instant::<Monotonic>::now();
        let mut over = false;
        while !over && began.elapsed().as_micros_ceil() < SPIN_MICROSECONDS {
            over = self.change(|inner, effects| {
                if !inner.deferred.tx {
                    inner.pump(effects);
                }
                is_over(inner)
            });
            if relax() {
                break;
            }
        }
        drop(lookout);
        if !over {
            self.sleep_until(Signals::Kill, is_over)?;
        }
        if accepted {
            Ok(())
        } else {
            life
        }
    }

    /// Sleeps until `is_over`, which the device's use of messages brings about.
    ///
    /// # Errors
    ///
    /// `EIO` when it does not in time, `ERESTARTSYS` on a signal.
    fn sleep_until(
        self: ArcBorrow<'_, Self>,
        signals: Signals,
        mut is_over: impl FnMut(&Inner) -> bool,
    ) -> Result {
        self.change(|inner, effects| {
            inner.tx.begin_wait();
            inner.pump(effects);
        });
        let waited = self.drained.wait_looking(
            WaitFor::Writable,
            signals,
            Deadline::in_seconds(DRAIN_SECONDS),
            || {
                self.look();
            },
            || is_over(&self.lock()),
        );
        self.lock().tx.end_wait();
        match waited? {
            Waited::Done => Ok(()),
            Waited::TimedOut => Err(EIO),
        }
    }

    /// Empties the FIFO, here and in the device, and lets writers go on.
    ///
    /// # Errors
    ///
    /// Those of [`Control::request`], and those of the FIFO's life.
    pub(crate) fn clear(self: ArcBorrow<'_, Self>) -> Result {
        let memory = Control::prepare()?;
        let posted = self.change(|inner, effects| {
            inner.check()?;
            inner.clears += 1;
            effects.messages = inner.tx.unsend_pending();
            let (sent, posted) = inner.tx.positions();
            inner.aio.discard(sent);
            Ok::<_, Error>(posted)
        })?;
        // Without an answer it is still under way, for all that is known.
        let request = CtrlRequest {
            kind: CTRL_CLEAR,
            fifo: u32::from(self.index),
            tx_sent: posted,
        };
        let missed = &self.stats.missed_interrupts;
        let state = self.control.request(memory, request, missed)?;
        self.change(|inner, effects| {
            if let Err(error) = check_state(&state, u32::from(self.index), self.capacity) {
                inner.fail(Broken("an impossible state"), effects);
                return Err(error);
            }
            inner.apply(&state, effects);
            // Also when the space came from the writes that had not been posted.
            if inner.credit() > 0 {
                effects.events |= Events::OUT;
            }
            let consumed = inner.rx.consumed();
            inner.tx.note_consumed(consumed, false);
            inner.pump(effects);
            Ok(())
        })
    }

    /// Bytes that can be read without waiting.
    pub(crate) fn level(&self) -> Result<u64> {
        let inner = self.lock();
        inner.check()?;
        Ok(inner.rx.level())
    }
}

impl Cancel for Fifo {
    fn cancel(self: ArcBorrow<'_, Self>, id: Id) {
        // Not by `change`, which might complete others' and wakes: impossible under AIO's lock.
        let work = {
            let mut inner = self.lock();
            let precedence = inner.precedence();
            inner.aio.cancel(id);
            let left = inner.left_by_requests(precedence);
            inner.left_by_cancel |= left;
            inner.have_work()
        };
        if work {
            self.start_worker();
        }
    }
}

impl Effects {
    fn new() -> Self {
        Self {
            events: Events::NONE,
            drained: false,
            next_reader: false,
            interrupt: false,
            complete: false,
            land: false,
            landed: None,
            work: false,
            more: false,
            timer: None,
            ack_timer: false,
            messages: Chain::new(),
        }
    }
}

/// Messages to be sent.
struct Outgoing {
    messages: Chain<TxBuffer>,
    bytes: usize,
}

/// What became of a write.
struct Written {
    /// Bytes on their way.
    bytes: usize,
    /// For the caller, if there are any.
    answer: Result<usize>,
}

/// Copies up to `wanted` bytes into messages, `spares` and then new ones, with room for so many bytes each. Some
/// bytes, or an error. Looks for `events` between them, and ends that before a page fault.
fn copy_messages(
    from: &mut Source<'_, '_>,
    wanted: usize,
    (mut spares, room): (Chain<TxBuffer>, usize),
    events: &mut Option<Lookout>,
) -> Result<Outgoing> {
    let mut messages = Chain::new();
    let mut copied = 0;
    while copied < wanted {
        let message = match spares.pop_front() {
            Some(message) => Ok(message),
            None => TxBuffer::for_tx(room),
        };
        let mut message = match message {
            Ok(message) => message,
            Err(_) if copied > 0 => break,
            Err(error) => return Err(error),
        };
        // Of a new one it may be less than was asked for.
        let part = (wanted - copied).min(message.room());
        // Nobody's events wait for page faults.
        if events.is_some() && !from.is_at_hand(part, usize::MAX) {
            *events = None;
        }
        let got = message.append_from(from, part);
        copied += got;
        if got > 0 {
            messages.push_back(message);
        }
        if got < part {
            break;
        }
        if let Some(events) = events {
            events.look();
        }
    }
    if copied == 0 {
        return Err(EFAULT);
    }
    Ok(Outgoing {
        messages,
        bytes: copied,
    })
}

/// Pins up to `wanted` bytes, and at most `num_pages` pages, for a direct message. `None` when that cannot
/// be done: they have to be copied, which also finds the right error.
fn pin_message(
    from: &mut Source<'_, '_>,
    wanted: usize,
    num_pages: usize,
) -> Option<KBox<TxBuffer>> {
    let message = TxBuffer::for_tx(0).ok()?;
    let pages = UserPages::pin(from, wanted, num_pages).ok()?;
    Some(message.direct(pages))
}

/// Checks a state the device sent (DRV-12, DRV-16).
fn check_state(state: &State, index: u32, capacity: u32) -> Result {
    let level = state.rx_end.checked_sub(state.rx_floor);
    let credit = state.tx_limit.checked_sub(state.tx_accepted);
    let capacity_ok = (1..=MAX_CAPACITY).contains(&state.capacity) && state.capacity == capacity;
    let within = |bytes: Option<u64>| bytes.is_some_and(|bytes| bytes <= u64::from(capacity));
    let positions_ok = state.rx_end.max(state.tx_limit) < MAX_POSITION
        && (state.flags & STATE_LOOPBACK == 0 || state.rx_end <= state.tx_accepted);
    if state.fifo == index && capacity_ok && positions_ok && within(level) && within(credit) {
        Ok(())
    } else {
        Err(EIO)
    }
}
