// SPDX-License-Identifier: GPL-2.0-only

//! Life of a FIFO: made, attached, suspended and resumed, closed, detached; and what interrupts
//! leave.
//!
//! Removal: [`Fifo::close`] ends all I/O, [`Fifo::drain`] lets the device take what was written and
//! tells it what was read, [`Fifo::detach`] takes the queues out. Suspension is the same without
//! the end of I/O: calls and requests wait, [`Fifo::resume`] goes on where the device stands.
//!
//! Hibernation resumes the device to write the image of the memory, from which the machine goes on
//! later. Bytes that a request got in between would be neither in that image nor with the device.
//! So no request is served before the server runs, whose work queue the freezer stops for as long
//! as it stops user space.

#[cfg(GLOBALFIFO_FAST)]
use super::timers::Timers;
use super::{
    core::Origin,
    hooks::Hooks,
    notify::Notifier,
    rx::{
        Broken,
        RxSide, //
    },
    state::{
        check_told,
        Life,
        State, //
    },
    Fifo,
    CONTINUE, //
};
use crate::{
    driver::{
        buffers::{
            Rx,
            RxBuffer,
            Tx,
            TxBuffer, //
        },
        chain::Chain,
        control::Control,
        stats::Stats,
        watchdog::Watchdog,
        work::Queues, //
    },
    kapi::{
        lock::new_spinlock_irq,
        virtio::{
            MissedCheck,
            Queue, //
        },
        wait::{
            new_wait_queue,
            Deadline,
            Signals,
            WaitFor,
            Waited, //
        },
    },
    trace::Tracer,
    virtio_fifo::{
        CtrlRequest,
        State as Told,
        CTRL_GET_STATE, //
    },
};
use kernel::{
    dev_err,
    device::Device,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    workqueue::{
        new_work,
        WorkItem, //
    },
};

/// The queues of a FIFO, while no FIFO has them.
pub(crate) struct FifoQueues {
    pub(crate) rx: Queue<Rx>,
    pub(crate) tx: Queue<Tx>,
}

/// Queues that were taken out of a FIFO.
pub(crate) type Detached = (Option<Queue<Rx>>, Option<Queue<Tx>>);

impl Fifo {
    /// Makes FIFO `index`, which stands where the device says. No data flows before
    /// [`Fifo::attach`] (DRV-4).
    pub(crate) fn new(
        index: u16,
        device: &Device,
        control: Arc<Control>,
        queues: Queues,
        watchdog: Arc<Watchdog>,
        hooks: &'static Hooks,
    ) -> Result<Arc<Self>> {
        let stats = Arc::new(Stats::new(), GFP_KERNEL)?;
        let told = Self::ask(index, &control, &stats)?;
        check_told(&told, index, told.capacity).inspect_err(|_| {
            dev_err!(
                device,
                "FIFO {index} is not used: the device sent an impossible state\n"
            );
        })?;
        let trace = Tracer::new(device, index);
        let mut state = State::new(&told, stats.clone(), trace.clone())?;
        state.apply_flags(&told, &mut Default::default());
        Arc::pin_init(
            try_pin_init!(Self {
                index,
                capacity: told.capacity,
                device: device.into(),
                control,
                stats,
                trace,
                state <- new_spinlock_irq!(state, "Fifo::state"),
                notifier <- Notifier::new(),
                drained <- new_wait_queue!("Fifo::drained"),
                server <- new_work!("Fifo::server"),
                continuation <- new_work!("Fifo::continuation"),
                queues,
                hooks,
                #[cfg(GLOBALFIFO_FAST)]
                timers <- Timers::new(),
                watchdog,
            }),
            GFP_KERNEL,
        )
    }

    /// Asks the device where FIFO `index` stands.
    fn ask(index: u16, control: &Control, stats: &Stats) -> Result<Told> {
        let request = CtrlRequest {
            kind: CTRL_GET_STATE,
            fifo: u32::from(index),
            tx_sent: 0,
        };
        control.request_at_setup(request, &stats.missed_interrupts)
    }

    /// Receive buffers, as many as a full FIFO needs beside those that there are.
    fn new_buffers(&self, rx: &Queue<Rx>) -> Result<Chain<RxBuffer>> {
        let (size, count) = RxSide::buffers_for(self.capacity);
        let count = count.min(rx.size() as usize);
        let missing = self.state.lock().rx.missing(count);
        let mut buffers = Chain::new();
        for _ in 0..missing {
            buffers.push_back(RxBuffer::for_rx(size)?);
        }
        Ok(buffers)
    }

    /// Starts the flow of data.
    pub(crate) fn attach(&self, FifoQueues { rx, tx }: FifoQueues) -> Result {
        let buffers = self.new_buffers(&rx)?;
        let mut state = self.state.lock();
        state.rx.attach(rx, buffers);
        state.tx.attach(tx);
        Ok(())
    }

    /// Ends all I/O: from here on it fails with `ENODEV`. The device still has to be told what was
    /// written and read so far, see [`Fifo::drain`].
    pub(crate) fn close(self: ArcBorrow<'_, Self>) {
        self.change(Origin::Task, |state, effects| {
            state.life = Life::Gone;
            state.rx.silence();
            state.tx.demand_ack(state.rx.acknowledged());
            state.tx.begin_wait();
            state.pump(effects);
        });
    }

    /// Waits until the device has taken everything (DRV-9), or until `deadline`; false when it did
    /// not.
    pub(crate) fn drain(self: ArcBorrow<'_, Self>, deadline: Deadline) -> bool {
        let waited = self.drained.wait_rechecking(
            WaitFor::Writable,
            Signals::Ignore,
            deadline,
            || {
                self.check_missed();
            },
            || self.state.lock().tx.is_drained(),
        );
        matches!(waited, Ok(Waited::Done))
    }

    /// Takes the queues out, for good. They must be dropped by the caller, which stops the device.
    pub(crate) fn detach(self: ArcBorrow<'_, Self>) -> Detached {
        let queues = self.change(Origin::Task, |state, effects| {
            effects.drained = true;
            (state.rx.detach(), state.tx.detach())
        });
        self.cancel_timers();
        queues
    }

    /// Takes the queues out, for the time of a reset.
    pub(crate) fn suspend(self: ArcBorrow<'_, Self>) -> Detached {
        self.trace.suspend();
        let queues = self.change(Origin::Task, |state, _| {
            if state.life == Life::Live {
                state.life = Life::Suspended;
            }
            state.requests_rest = true;
            (state.rx.detach(), state.tx.detach())
        });
        self.cancel_timers();
        queues
    }

    /// Stops the device, and takes back what was in the queues.
    pub(crate) fn take_back(&self, (mut rx, mut tx): Detached) {
        let mut posted = 0;
        while let Some(buffer) = rx.as_mut().and_then(Queue::take_unused) {
            posted += 1;
            drop(buffer);
        }
        let mut messages = Chain::new();
        while let Some(message) = tx.as_mut().and_then(Queue::take_unused) {
            messages.push_back(message);
        }
        messages.sort_by_key(TxBuffer::tx_position);
        let mut state = self.state.lock();
        state.rx.forget_posted(posted);
        state.tx.take_back(messages);
    }

    /// Goes on where the device stands, which has been reset. Requests rest until the server runs.
    pub(crate) fn resume(self: ArcBorrow<'_, Self>, FifoQueues { rx, tx }: FifoQueues) -> Result {
        let told = Self::ask(self.index, &self.control, &self.stats)?;
        let buffers = self.new_buffers(&rx)?;
        self.change(Origin::Task, |state, effects| {
            state.tx.attach(tx);
            if state.life == Life::Suspended {
                state.life = Life::Live;
                if check_told(&told, self.index, self.capacity).is_err() {
                    state.fail(Broken("an impossible state after its reset"), effects);
                }
            }
            if state.life != Life::Live {
                // Failed. The queue is kept: dropping it would reset the device, and sleep.
                state.rx.attach_idle(rx);
                return;
            }
            state.rx.attach(rx, buffers);
            let resumed = state.rx.resume(&told);
            let resumed = resumed.and_then(|()| state.tx.resume(&told, &mut effects.messages));
            if let Err(broken) = resumed {
                state.fail(broken, effects);
                return;
            }
            state.apply_flags(&told, effects);
            state.tx.demand_ack(state.rx.acknowledged());
            state.pump(effects);
        });
        self.start_server();
        self.trace.resume();
        Ok(())
    }

    /// Stops the timers, and waits for those that are running. Without a queue nobody starts them
    /// again.
    fn cancel_timers(&self) {
        #[cfg(GLOBALFIFO_FAST)]
        self.timers.cancel();
    }

    /// Goes on where an interrupt has left off, for as much again. In the work queue.
    fn go_on(self: ArcBorrow<'_, Self>) {
        self.change(Origin::Interrupt, |state, effects| {
            if state.deferred.rx {
                state.receive(effects);
            }
            if state.deferred.tx {
                state.pump(effects);
            }
        });
    }

    /// Does the work of interrupts that were lost; whether to check again soon, because one may yet
    /// come.
    pub(crate) fn check_missed(self: ArcBorrow<'_, Self>) -> bool {
        self.change(Origin::Interrupt, |state, effects| {
            state.requests.expire_holds();
            let (rx, tx) = (state.rx.check_missed(), state.tx.check_missed());
            let missed = |check| check == MissedCheck::Missed;
            let lost = u64::from(missed(rx)) + u64::from(missed(tx));
            self.stats.missed_interrupts.add(lost);
            if missed(rx) {
                state.receive(effects);
            }
            let left_behind = state.tx.is_left_behind() && !state.deferred.tx;
            self.stats.left_behind.add(left_behind.into());
            // Messages that the virtio core had no memory to post have no interrupt to wait for.
            if missed(tx) || state.tx.is_congested() {
                state.pump(effects);
            }
            rx == MissedCheck::Pending || tx == MissedCheck::Pending
        })
    }

    /// The device broke what all its FIFOs rely on.
    pub(crate) fn fail(self: ArcBorrow<'_, Self>, what: &'static str) {
        self.change(Origin::Interrupt, |state, effects| {
            state.fail(Broken(what), effects)
        });
    }

    /// The device told where it stands. Any context.
    pub(crate) fn state_event(self: ArcBorrow<'_, Self>, told: &Told) {
        self.change(Origin::Interrupt, |state, effects| {
            if check_told(told, self.index, self.capacity).is_err() {
                state.fail(Broken("an impossible state"), effects);
                return;
            }
            state.apply(told, effects);
            state.apply_flags(told, effects);
        });
    }
}

impl WorkItem<CONTINUE> for Fifo {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.as_arc_borrow().go_on();
    }
}
