// SPDX-License-Identifier: GPL-2.0-only

//! Interrupts of a device: from the virtqueue to the FIFO.
//!
//! [`Interrupts::queue_interrupt`] is where an interrupt enters the driver. Must not know what a
//! FIFO makes of it, nor how a device is set up.

use super::{
    control::Control,
    fifo::state::State as FifoState,
    fifo::{
        Fifo,
        Origin, //
    },
    tunables::{
        EVENT_BUDGET,
        EVENT_BUFFERS, //
    },
    watchdog::Watched,
    work::Queues, //
};
use crate::{
    kapi::{
        lock::{
            new_spinlock_irq,
            SpinLockIrq, //
        },
        virtio::{
            Handler,
            MissedCheck,
            Packet,
            Queue, //
        },
    },
    trace::DeviceTracer,
    virtio_fifo::{
        State,
        CONTROL_QUEUE,
        EVENT_QUEUE,
        FIRST_RX_QUEUE, //
    },
};
use kernel::{
    dev_warn,
    device::Device,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        ArcBorrow,
        SetOnce, //
    },
    workqueue::{
        impl_has_work,
        new_work,
        Work,
        WorkItem, //
    },
};

/// The event queue.
pub(super) struct Events {
    /// Until the device is taken away.
    queue: Option<Queue<()>>,
    /// The work queue is to go on; interrupts leave it alone until then.
    deferred: bool,
    /// An invalid event has been logged; a device could fill the log otherwise.
    complained: bool,
}

/// Result of [`Events::take`].
enum Taken {
    /// An event; `None` if it is too short.
    Event(Option<State>),
    /// There are no more.
    Nothing,
    /// Nothing will come any more: the device broke the queue.
    Broken,
}

impl Events {
    /// Takes one event. Its buffer is posted again. If there is none, events interrupt again,
    /// unless a task polls.
    fn take(&mut self) -> Taken {
        let Some(queue) = self.queue.as_mut() else {
            return Taken::Nothing;
        };
        let mut came = false;
        loop {
            queue.disable_interrupts();
            if let Some((packet, written)) = queue.get() {
                let state = (written >= State::LEN)
                    .then(|| packet.snapshot(0))
                    .flatten()
                    .map(State::from_bytes);
                // There is room: it has just come out.
                let _ = queue.add(packet);
                queue.kick();
                return Taken::Event(state);
            }
            // A device that takes back what it has put in the ring could go on for ever.
            if queue.is_broken() || came {
                return Taken::Broken;
            }
            if queue.enable_interrupts() {
                return Taken::Nothing;
            }
            came = true;
        }
    }
}

/// What interrupts of a device need. Reachable from interrupt handlers until the queues are gone.
#[pin_data]
pub(crate) struct Interrupts {
    /// For log messages.
    device: ARef<Device>,
    trace: DeviceTracer,
    pub(super) control: Arc<Control>,
    /// Set once they all exist, before the first buffer is posted for any of them.
    fifos: SetOnce<KVec<Arc<Fifo>>>,
    /// Held while an event is applied to its FIFO, since what events say of a FIFO holds in the
    /// order in which they came. So [`Fifo::state`] is taken under it, and what follows from the
    /// change is done under it: completions, wake-ups, signals. None of these takes it. Hard
    /// interrupts, the work queue, and tasks that poll.
    #[pin]
    pub(super) events: SpinLockIrq<Events>,
    #[pin]
    continuation: Work<Interrupts>,
    queues: Queues,
}

impl_has_work! {
    impl HasWork<Self> for Interrupts { self.continuation }
}

impl WorkItem for Interrupts {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.events.lock().deferred = false;
        this.as_arc_borrow().take_events(false);
    }
}

impl Interrupts {
    /// Of a device whose FIFOs and queues are still to be found.
    pub(super) fn new(device: &Device, control: Arc<Control>, queues: Queues) -> Result<Arc<Self>> {
        let events = Events {
            queue: None,
            deferred: false,
            complained: false,
        };
        Arc::pin_init(
            pin_init!(Self {
                device: device.into(),
                trace: DeviceTracer::new(device),
                control,
                fifos: SetOnce::new(),
                events <- new_spinlock_irq!(events, "Interrupts::events"),
                continuation <- new_work!("Interrupts::continuation"),
                queues,
            }),
            GFP_KERNEL,
        )
    }

    /// Sets the FIFOs.
    pub(super) fn populate(&self, fifos: KVec<Arc<Fifo>>) {
        self.fifos.populate(fifos);
    }

    /// The FIFOs; none before they all exist.
    pub(super) fn fifos(&self) -> &[Arc<Fifo>] {
        self.fifos.as_ref().map_or(&[], |fifos| fifos)
    }

    /// Starts to take events from `queue`.
    pub(super) fn attach_events(&self, mut queue: Queue<()>) -> Result {
        let mut packets = KVec::with_capacity(EVENT_BUFFERS, GFP_KERNEL)?;
        for _ in 0..EVENT_BUFFERS.min(queue.size() as usize) {
            let mut packet = Packet::new(State::LEN, ())?;
            packet.expose(0, State::LEN);
            packets.push(packet, GFP_KERNEL)?;
        }
        // The whole of it in one hold: an interrupt for the first event finds the queue.
        let mut events = self.events.lock();
        for packet in packets {
            // The queue is empty, so there is room; with a broken queue there will be no events.
            let _ = queue.add(packet);
        }
        queue.kick();
        events.queue = Some(queue);
        Ok(())
    }

    /// Gives the event queue back.
    pub(super) fn detach_events(&self) -> Option<Queue<()>> {
        self.events.lock().queue.take()
    }

    /// Takes events as far as [`EVENT_BUDGET`] goes. If their interrupt was lost (`missed`), the
    /// FIFO of the first counts that. Any context.
    pub(super) fn take_events(self: ArcBorrow<'_, Self>, mut missed: bool) {
        let mut events = self.events.lock();
        for _ in 0..EVENT_BUDGET {
            match events.take() {
                Taken::Event(told) => {
                    let fifo = told.and_then(|told| {
                        let fifo = self.fifos().get(told.fifo as usize)?;
                        Some((fifo, told))
                    });
                    let Some((fifo, told)) = fifo else {
                        if !core::mem::replace(&mut events.complained, true) {
                            dev_warn!(
                                self.device,
                                "event with an invalid length or FIFO number ignored\n"
                            );
                        }
                        continue;
                    };
                    fifo.stats
                        .missed_interrupts
                        .add(core::mem::take(&mut missed).into());
                    fifo.as_arc_borrow().state_event(&told);
                }
                Taken::Nothing => return,
                Taken::Broken => {
                    for fifo in self.fifos() {
                        fifo.as_arc_borrow().fail("an invalid used ring (event)");
                    }
                    return;
                }
            }
        }
        if events.queue.is_some() {
            events.deferred = true;
            // An error says that it is to run already.
            let _ = self.queues.rest.queue().enqueue(Arc::from(self));
        }
    }

    /// Takes events, unless the work queue is to do that.
    pub(super) fn event_interrupt(self: ArcBorrow<'_, Self>) {
        if !self.events.lock().deferred {
            self.take_events(false);
        }
    }
}

impl Watched for Interrupts {
    /// Does the work of interrupts that were lost; whether to check again soon, because one may yet
    /// come.
    fn check_missed(self: ArcBorrow<'_, Self>) -> bool {
        let check = self.events.lock().queue.as_mut().map(Queue::check_missed);
        if check == Some(MissedCheck::Missed) {
            self.take_events(true);
        }
        let mut again = check == Some(MissedCheck::Pending);
        for fifo in self.fifos() {
            again |= fifo.as_arc_borrow().check_missed();
        }
        again
    }
}

impl Handler for Interrupts {
    fn queue_interrupt(self: ArcBorrow<'_, Self>, index: u32) {
        self.trace.interrupt(index);
        let Ok(index) = u16::try_from(index) else {
            return;
        };
        let Some(of_fifos) = index.checked_sub(FIRST_RX_QUEUE) else {
            match index {
                CONTROL_QUEUE => self.control.interrupt(),
                EVENT_QUEUE => self.event_interrupt(),
                _ => {}
            }
            return;
        };
        let Some(fifo) = self.fifos().get(usize::from(of_fifos / 2)) else {
            return;
        };
        fifo.stats.interrupts.add(1);
        fifo.as_arc_borrow()
            .change(Origin::Interrupt, |state, effects| {
                if of_fifos % 2 == 0 {
                    FifoState::receive_unless_deferred(state, effects);
                } else {
                    FifoState::pump_unless_deferred(state, effects);
                }
            });
    }
}
