// SPDX-License-Identifier: GPL-2.0-only

//! One virtio-fifo device: brought up, its interrupts handed on, brought down.
//!
//! Removal, in this order: every FIFO is closed, so that no I/O starts; the device nodes go; the
//! device is told what was read and takes what was written; the queues are taken out and dropped,
//! which resets the device, waits for running interrupt handlers and frees the buffers.

use super::{
    control::Control,
    fifo::{
        Fifo,
        DRAIN_SECONDS, //
    },
    rx::Broken,
    watch::Watch, //
};
use crate::{
    kapi::{
        virtio::{
            Device,
            Driver,
            Handler,
            IdTable,
            Look,
            Packet,
            Queue, //
        },
        wait::{
            Deadline,
            NoPreemption, //
        },
    },
    registry::{
        self,
        Published,
        Queues, //
    },
    virtio_fifo::{
        num_queues,
        rx_queue,
        tx_queue,
        Config,
        State,
        CONTROL_QUEUE,
        EVENT_QUEUE,
        FIRST_RX_QUEUE,
        MAX_FIFOS, //
    },
};
use kernel::{
    prelude::*,
    sync::{
        new_mutex,
        new_spinlock_irq,
        Arc,
        ArcBorrow,
        Mutex,
        SetOnce,
        SpinLockIrq, //
    },
    workqueue::{
        impl_has_work,
        new_work,
        Work,
        WorkItem, //
    },
};

/// Event buffers to post; the device needs one at least (specification, section 6.4).
const EVENT_BUFFERS: usize = 8;

/// Events to take at a time: the rest is left to the work queue, so that a device which sends them as
/// fast as their buffers are posted does not keep a CPU for itself.
const EVENT_BUDGET: usize = 16;

/// The event queue.
struct Events {
    /// Until the device is taken away.
    queue: Option<Queue<()>>,
    /// Somebody takes events: nobody else does meanwhile, for what they say of a FIFO holds in the order in
    /// which they came. Whoever does keeps its CPU, and looks again for what came since.
    taking: bool,
    /// The work queue is to go on; interrupts leave it alone until then.
    deferred: bool,
    /// How many look for events themselves ([`super::watch::Lookout`]): meanwhile none is to interrupt.
    lookouts: usize,
}

/// What came of taking an event.
enum Taken {
    /// It is this; `None` if it was none.
    Event(Option<State>),
    /// There are no more.
    Nothing,
    /// Nothing will come any more, because the device broke the queue.
    Broken,
}

impl Events {
    /// Takes one event. Its buffer is posted again. If there is none, events interrupt again, unless somebody
    /// looks for them.
    fn take(&mut self) -> Taken {
        let Some(queue) = self.queue.as_mut() else {
            return Taken::Nothing;
        };
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
            if self.lookouts > 0 || queue.enable_interrupts() {
                return if queue.is_broken() {
                    Taken::Broken
                } else {
                    Taken::Nothing
                };
            }
        }
    }
}

/// What interrupts need to find their way. Reachable from interrupt handlers until the queues are
/// gone.
#[pin_data]
pub(crate) struct Interrupts {
    control: Arc<Control>,
    /// Set once they all exist, before the first buffer is posted for any of them.
    fifos: SetOnce<KVec<Arc<Fifo>>>,
    /// Taken in hard interrupt and process context; nothing is taken under it.
    #[pin]
    events: SpinLockIrq<Events>,
    /// Goes on with events where an interrupt has left off.
    #[pin]
    continuation: Work<Interrupts>,
    queues: Queues,
    watch: Arc<Watch>,
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
    fn new(queues: Queues) -> Result<Arc<Self>> {
        let control = Control::new()?;
        let watch = Watch::new(queues.rest.clone())?;
        Arc::pin_init(
            pin_init!(Self {
                control,
                fifos: SetOnce::new(),
                events <- new_spinlock_irq!(
                    Events { queue: None, taking: false, deferred: false, lookouts: 0 },
                    "Interrupts::events"
                ),
                continuation <- new_work!("Interrupts::continuation"),
                queues,
                watch,
            }),
            GFP_KERNEL,
        )
    }

    /// Starts to take events from `queue`.
    fn attach_events(&self, mut queue: Queue<()>) -> Result {
        let mut packets = KVec::with_capacity(EVENT_BUFFERS, GFP_KERNEL)?;
        for _ in 0..EVENT_BUFFERS.min(queue.size() as usize) {
            let mut packet = Packet::new(State::LEN, ())?;
            packet.expose(0, State::LEN);
            packets.push(packet, GFP_KERNEL)?;
        }
        let mut events = self.events.lock();
        for packet in packets {
            // The queue is empty, so there is room; with a broken queue there will be no events.
            let _ = queue.add(packet);
        }
        queue.kick();
        events.queue = Some(queue);
        Ok(())
    }

    fn fifos(&self) -> &[Arc<Fifo>] {
        self.fifos.as_ref().map_or(&[], |fifos| fifos)
    }

    /// Takes one event. If there is none, the caller's turn is over.
    fn next_event(&self) -> Taken {
        let mut events = self.events.lock();
        let taken = events.take();
        events.taking = matches!(taken, Taken::Event(_));
        taken
    }

    /// Takes events as far as [`EVENT_BUDGET`] goes, unless somebody does. If their interrupt was lost
    /// (`missed`), the FIFO of the first counts that. Any context.
    fn take_events(self: ArcBorrow<'_, Self>, mut missed: bool) {
        let _no_preemption = NoPreemption::new();
        if core::mem::replace(&mut self.events.lock().taking, true) {
            return;
        }
        for _ in 0..EVENT_BUDGET {
            let event = match self.next_event() {
                Taken::Event(event) => event,
                Taken::Nothing => return,
                Taken::Broken => {
                    for fifo in self.fifos() {
                        fifo.as_arc_borrow()
                            .fail(Broken("what broke its event queue"));
                    }
                    return;
                }
            };
            let fifo = event.and_then(|state| {
                let fifo = self.fifos().get(state.fifo as usize)?;
                Some((fifo, state))
            });
            match fifo {
                Some((fifo, state)) => {
                    if core::mem::take(&mut missed) {
                        fifo.stats().missed_interrupts.add(1);
                    }
                    fifo.as_arc_borrow().state_event(&state);
                }
                None => kernel::pr_warn_once!("the device sent an event that is none\n"),
            }
        }
        let mut events = self.events.lock();
        events.taking = false;
        if events.queue.is_some() {
            events.deferred = true;
            // An error says that it is to run already.
            let _ = self.queues.rest.queue().enqueue(Arc::from(self));
        }
    }

    fn event_interrupt(self: ArcBorrow<'_, Self>) {
        if !self.events.lock().deferred {
            self.take_events(false);
        }
    }

    /// From here on events do not interrupt; whoever says so looks for them.
    pub(super) fn begin_lookout(&self) {
        let mut events = self.events.lock();
        events.lookouts += 1;
        if let Some(queue) = events.queue.as_mut() {
            queue.disable_interrupts();
        }
    }

    /// Takes the events that are there.
    pub(super) fn look_for_events(self: ArcBorrow<'_, Self>) {
        self.event_interrupt();
    }

    /// The opposite of [`Interrupts::begin_lookout`]: the last one lets events interrupt again.
    pub(super) fn end_lookout(self: ArcBorrow<'_, Self>) {
        // Between the two, neither an interrupt nor the watch would tell.
        let _no_preemption = NoPreemption::new();
        self.events.lock().lookouts -= 1;
        self.event_interrupt();
    }

    /// Does the work of interrupts that did not come; whether it is to look again soon, because they
    /// may yet.
    pub(super) fn look(self: ArcBorrow<'_, Self>) -> bool {
        let (look, is_quiet) = {
            let mut events = self.events.lock();
            let look = events.queue.as_mut().map(Queue::look);
            (look, events.lookouts > 0)
        };
        if is_quiet {
            // Whoever looks may not get to it.
            self.look_for_events();
        } else if look == Some(Look::Missed) {
            self.take_events(true);
        }
        let mut again = look == Some(Look::Pending);
        for fifo in self.fifos() {
            again |= fifo.as_arc_borrow().look();
        }
        again
    }
}

impl Handler for Interrupts {
    fn queue_interrupt(self: ArcBorrow<'_, Self>, index: u32) {
        match u16::try_from(index) {
            Ok(CONTROL_QUEUE) => self.control.interrupt(),
            Ok(EVENT_QUEUE) => self.event_interrupt(),
            Ok(index) => {
                let Some(of_fifos) = index.checked_sub(FIRST_RX_QUEUE) else {
                    return;
                };
                let Some(fifo) = self.fifos().get(usize::from(of_fifos / 2)) else {
                    return;
                };
                let fifo = fifo.as_arc_borrow();
                if of_fifos % 2 == 0 {
                    fifo.rx_interrupt();
                } else {
                    fifo.tx_interrupt();
                }
            }
            Err(_) => {}
        }
    }
}

/// A device that is up.
#[pin_data]
pub(crate) struct Bound {
    interrupts: Arc<Interrupts>,
    /// What user space sees of it, until it is taken down. Process context only.
    #[pin]
    published: Mutex<KVec<Published>>,
}

/// The driver.
pub(crate) struct FifoDriver;

impl Driver for FifoDriver {
    type Data = Bound;

    fn id_table() -> &'static IdTable {
        &registry::ID_TABLE
    }

    fn probe(device: &Device) -> impl PinInit<Bound, Error> {
        pin_init::pin_init_scope(move || {
            let num_fifos = read_num_fifos(device)?;
            let interrupts = Interrupts::new(registry::work_queues()?)?;
            let published =
                bring_up(device, &interrupts, num_fifos).inspect_err(|_| detach(&interrupts))?;
            Ok(try_pin_init!(Bound {
                interrupts,
                published <- new_mutex!(published, "Bound::published"),
            }))
        })
    }

    fn remove(device: &Device, bound: &Bound) {
        close(&bound.interrupts);
        drop(core::mem::take(&mut *bound.published.lock()));
        drain(device, &bound.interrupts);
        detach(&bound.interrupts);
    }

    fn shutdown(device: &Device, bound: &Bound) {
        close(&bound.interrupts);
        drain(device, &bound.interrupts);
        device.stop();
    }
}

/// Reads configuration space (DRV-2, DRV-3).
fn read_num_fifos(device: &Device) -> Result<u16> {
    let config = Config::from_bytes(device.config_u32(0)?);
    match u16::try_from(config.num_fifos) {
        Ok(num_fifos @ 1..=MAX_FIFOS) => Ok(num_fifos),
        _ => {
            dev_err!(
                device.as_dev(),
                "the device says it has {} FIFOs, not 1 to {}\n",
                config.num_fifos,
                MAX_FIFOS
            );
            Err(EINVAL)
        }
    }
}

/// Initialises the device (specification, section 5) and shows its FIFOs to user space. On failure
/// the caller detaches what was attached.
fn bring_up(
    device: &Device,
    interrupts: &Arc<Interrupts>,
    num_fifos: u16,
) -> Result<KVec<Published>> {
    let control = &interrupts.control;
    let mut queues = device.find_queues(num_queues(num_fifos), interrupts.clone())?;
    control.attach(queues.take(CONTROL_QUEUE).ok_or(ENXIO)?);
    device.ready();

    let mut fifos = KVec::with_capacity(usize::from(num_fifos), GFP_KERNEL)?;
    for index in 0..num_fifos {
        let fifo = Fifo::new(
            index,
            control.clone(),
            interrupts.queues.clone(),
            interrupts.watch.clone(),
        )?;
        fifos.push(fifo, GFP_KERNEL)?;
    }
    // Before the first buffer is posted, and so before the first interrupt that looks for them.
    interrupts.fifos.populate(fifos);
    for (index, fifo) in (0..num_fifos).zip(interrupts.fifos()) {
        fifo.attach(
            queues.take(rx_queue(index)).ok_or(ENXIO)?,
            queues.take(tx_queue(index)).ok_or(ENXIO)?,
        )?;
    }
    // Last: what changed since a FIFO's state was read comes as an event.
    interrupts.attach_events(queues.take(EVENT_QUEUE).ok_or(ENXIO)?)?;

    interrupts.watch.begin(interrupts.clone());

    let mut published = KVec::with_capacity(usize::from(num_fifos), GFP_KERNEL)?;
    for fifo in interrupts.fifos() {
        published.push(registry::publish(device.as_dev(), fifo)?, GFP_KERNEL)?;
    }
    dev_info!(device.as_dev(), "{} FIFO(s)\n", num_fifos);
    Ok(published)
}

/// Ends all I/O.
fn close(interrupts: &Interrupts) {
    for fifo in interrupts.fifos() {
        fifo.as_arc_borrow().close();
    }
}

/// Lets the device take what was written and hear what was read: all FIFOs of it in one bounded time.
fn drain(device: &Device, interrupts: &Interrupts) {
    let deadline = Deadline::in_seconds(DRAIN_SECONDS);
    for fifo in interrupts.fifos() {
        if !fifo.as_arc_borrow().drain(deadline) {
            dev_warn!(
                device.as_dev(),
                "the device did not take all data in time, some is lost\n"
            );
        }
    }
}

/// Takes all queues out and drops them, which stops the device.
fn detach(interrupts: &Interrupts) {
    interrupts.watch.end();
    for fifo in interrupts.fifos() {
        drop(fifo.as_arc_borrow().detach());
    }
    drop(interrupts.control.detach());
    let events = interrupts.events.lock().queue.take();
    drop(events);
}
