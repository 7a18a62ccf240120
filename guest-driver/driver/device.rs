// SPDX-License-Identifier: GPL-2.0-only

//! A virtio-fifo device: brought up, suspended, taken down. Order only: what each step does is
//! elsewhere.
//!
//! Removal: every FIFO is closed, so that no I/O starts; the device nodes go; the device takes what
//! was written and is told what was read; all queues are taken out; they are dropped, which resets
//! the device once, waits for running interrupt handlers and frees the buffers. Nothing kicks a
//! device that has been reset: nobody has a queue any more.

use super::{
    control::Control,
    fifo::{
        life::{
            Detached,
            FifoQueues, //
        },
        Fifo, //
    },
    irq::Interrupts,
    tunables::DRAIN_SECONDS,
    watchdog::Watchdog,
    work::Queues, //
    HOOKS,
};
use crate::{
    kapi::{
        virtio::{
            Device,
            Driver,
            FoundQueues,
            IdTable, //
        },
        wait::Deadline, //
    },
    virtio_fifo::{
        num_queues,
        rx_queue,
        tx_queue,
        Config,
        Unusable,
        CONFIG_VERSION,
        CONTROL_QUEUE,
        EVENT_QUEUE,
        MAX_FIFOS, //
    },
};
use core::marker::PhantomData;
use kernel::{
    dev_err, dev_info, dev_notice, dev_warn,
    prelude::*,
    sync::{
        new_mutex,
        Arc,
        Mutex, //
    },
};

/// `VIRTIO_F_VERSION_1` (virtio standard, section 6).
const VERSION_1: u32 = 32;

/// What the module gives a device: work queues, and nodes for its FIFOs.
pub(crate) trait Host: Send + Sync + 'static {
    /// A FIFO that user space can open, until this is dropped.
    type Published: Send;

    /// The device id served.
    fn id_table() -> &'static IdTable;

    /// Where work is done.
    fn work_queues() -> Result<Queues>;

    /// Shows a FIFO to user space.
    fn publish(parent: &kernel::device::Device, fifo: &Arc<Fifo>) -> Result<Self::Published>;
}

/// A device that is up.
#[pin_data]
pub(crate) struct Bound<H: Host> {
    interrupts: Arc<Interrupts>,
    watchdog: Arc<Watchdog>,
    /// What user space sees of it, until it is taken down. Probe and remove; nothing is taken under
    /// it.
    #[pin]
    published: Mutex<KVec<H::Published>>,
}

/// The driver.
pub(crate) struct FifoDriver<H>(PhantomData<H>);

impl<H: Host> Driver for FifoDriver<H> {
    type Data = Bound<H>;

    /// The specification has none yet (section 3).
    const FEATURES: &'static [c_uint] = &[];

    fn id_table() -> &'static IdTable {
        H::id_table()
    }

    fn validate(device: &Device) -> Result {
        recognise(device)?;
        if !device.has_feature(VERSION_1) {
            dev_err!(device.as_dev(), "not used: no VIRTIO_F_VERSION_1\n");
            return Err(ENODEV);
        }
        Ok(())
    }

    fn probe(device: &Device) -> impl PinInit<Bound<H>, Error> {
        pin_init::pin_init_scope(move || {
            let num_fifos = recognise(device)?;
            let queues = H::work_queues()?;
            let watchdog = Watchdog::new(queues.rest.clone())?;
            let control = Control::new(device.as_dev())?;
            let interrupts = Interrupts::new(device.as_dev(), control, queues.clone())?;
            let published = bring_up::<H>(device, &interrupts, &watchdog, num_fifos);
            let published = published.inspect_err(|_| {
                // A file of an earlier FIFO may be open already.
                close(&interrupts);
                detach(&interrupts, &watchdog);
            })?;
            Ok(try_pin_init!(Bound {
                interrupts,
                watchdog,
                published <- new_mutex!(published, "Bound::published"),
            }))
        })
    }

    fn remove(device: &Device, bound: &Bound<H>) {
        close(&bound.interrupts);
        let published = core::mem::take(&mut *bound.published.lock());
        drop(published);
        drain(device, &bound.interrupts);
        detach(&bound.interrupts, &bound.watchdog);
    }

    fn freeze(_device: &Device, bound: &Bound<H>) -> Result {
        suspend(&bound.interrupts)
    }

    fn restore(device: &Device, bound: &Bound<H>) -> Result {
        resume(device, &bound.interrupts).inspect_err(|_| {
            for fifo in bound.interrupts.fifos() {
                fifo.as_arc_borrow().fail("no answer after its reset");
            }
            bound.interrupts.control.give_up();
        })
    }

    fn shutdown(device: &Device, bound: &Bound<H>) {
        close(&bound.interrupts);
        drain(device, &bound.interrupts);
        device.stop();
    }
}

/// Number of FIFOs of a device that this driver can use (DRV-2, DRV-3, DRV-19, DRV-20, DRV-22).
/// Another driver may serve a device of another kind with the same id, so that is no error worth a
/// line.
fn recognise(device: &Device) -> Result<u16> {
    let dev = device.as_dev();
    match Config::recognise(|offset| device.config_u32(offset).ok()) {
        Ok(num_fifos) => return Ok(num_fifos),
        Err(Unusable::Foreign) => {}
        // An error only if it is ours, which nothing in configuration space can show.
        Err(Unusable::Unversioned(count)) => dev_notice!(
            dev,
            "not used: configuration space begins with {count} and has no magic, as a FIFO device's from before version 1.0; this driver has version {CONFIG_VERSION}\n"
        ),
        Err(Unusable::Version(version)) => dev_err!(
            dev,
            "not used: version {version} of the device's layout, this driver has {CONFIG_VERSION}\n"
        ),
        Err(Unusable::NumFifos(count)) => {
            dev_err!(dev, "not used: {count} FIFOs, not 1 to {MAX_FIFOS}\n")
        }
        Err(Unusable::Short) => dev_err!(
            dev,
            "not used: its configuration space ends before byte {}\n",
            Config::LEN
        ),
    }
    // Others would have the driver core add a line of its own.
    Err(ENODEV)
}

/// Finds all virtqueues, and sets DRIVER_OK with the control queue in service.
fn set_up(device: &Device, interrupts: &Arc<Interrupts>, num_fifos: u16) -> Result<FoundQueues> {
    let mut names = KVec::with_capacity(usize::from(num_queues(num_fifos)), GFP_KERNEL)?;
    for name in [c"control", c"event"] {
        names.push(name, GFP_KERNEL)?;
    }
    for _ in 0..num_fifos {
        names.push(c"rx", GFP_KERNEL)?;
        names.push(c"tx", GFP_KERNEL)?;
    }
    let mut queues = device.find_queues(&names, interrupts.clone())?;
    interrupts
        .control
        .attach(queues.take(CONTROL_QUEUE).ok_or(ENXIO)?);
    device.ready();
    Ok(queues)
}

fn queues_of(queues: &mut FoundQueues, index: u16) -> Result<FifoQueues> {
    Ok(FifoQueues {
        rx: queues.take(rx_queue(index)).ok_or(ENXIO)?,
        tx: queues.take(tx_queue(index)).ok_or(ENXIO)?,
    })
}

/// Initialises the device (specification, section 5) and shows its FIFOs to user space. On failure
/// the caller detaches what was attached.
fn bring_up<H: Host>(
    device: &Device,
    interrupts: &Arc<Interrupts>,
    watchdog: &Arc<Watchdog>,
    num_fifos: u16,
) -> Result<KVec<H::Published>> {
    let mut queues = set_up(device, interrupts, num_fifos)?;
    let mut fifos = KVec::with_capacity(usize::from(num_fifos), GFP_KERNEL)?;
    for index in 0..num_fifos {
        let control = interrupts.control.clone();
        let work = H::work_queues()?;
        let fifo = Fifo::new(
            index,
            device.as_dev(),
            control,
            work,
            watchdog.clone(),
            HOOKS,
        )?;
        fifos.push(fifo, GFP_KERNEL)?;
    }
    // Before the first buffer is posted, and so before the first interrupt that needs them.
    interrupts.populate(fifos);
    for (index, fifo) in (0..num_fifos).zip(interrupts.fifos()) {
        fifo.attach(queues_of(&mut queues, index)?)?;
    }
    // Last: what changed since a FIFO's state was read comes as an event.
    interrupts.attach_events(queues.take(EVENT_QUEUE).ok_or(ENXIO)?)?;

    interrupts.control.begin_service();
    watchdog.begin(interrupts.clone());

    let mut published = KVec::with_capacity(usize::from(num_fifos), GFP_KERNEL)?;
    for fifo in interrupts.fifos() {
        published.push(H::publish(device.as_dev(), fifo)?, GFP_KERNEL)?;
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

/// Lets the device take what was written and tells it what was read: all FIFOs of it in one bounded
/// time.
fn drain(device: &Device, interrupts: &Interrupts) {
    let deadline = Deadline::in_seconds(DRAIN_SECONDS);
    for (index, fifo) in interrupts.fifos().iter().enumerate() {
        if !fifo.as_arc_borrow().drain(deadline) {
            dev_warn!(
                device.as_dev(),
                "FIFO {index}: the device did not take all data in time\n"
            );
        }
    }
}

/// Takes all queues out, then drops them, which stops the device.
fn detach(interrupts: &Interrupts, watchdog: &Watchdog) {
    watchdog.end();
    let control = interrupts.control.detach();
    let events = interrupts.detach_events();
    // Without memory for a list, FIFO by FIFO.
    let fifos = interrupts.fifos();
    let mut queues = KVec::with_capacity(fifos.len(), GFP_KERNEL).unwrap_or_default();
    for fifo in fifos {
        let _ = queues.push_within_capacity(fifo.as_arc_borrow().detach());
    }
    drop((queues, control, events));
}

/// Stops the device without ending I/O: calls and requests wait. What was posted and not accepted
/// is taken back, and sent again by [`resume`]; bytes that the device does not know to be consumed
/// come again, and are dropped.
fn suspend(interrupts: &Interrupts) -> Result {
    let fifos = interrupts.fifos();
    let mut detached = KVec::<Detached>::with_capacity(fifos.len(), GFP_KERNEL)?;
    // First: who finds a FIFO suspended waits for this.
    let control = interrupts.control.suspend();
    for fifo in fifos {
        // There is room.
        let _ = detached.push_within_capacity(fifo.as_arc_borrow().suspend());
    }
    let events = interrupts.detach_events();
    for (fifo, detached) in fifos.iter().zip(detached) {
        fifo.take_back(detached);
    }
    drop((control, events));
    Ok(())
}

/// Goes on where the device stands, which has been reset.
fn resume(device: &Device, interrupts: &Arc<Interrupts>) -> Result {
    let fifos = interrupts.fifos();
    let num_fifos = fifos.len() as u16;
    let mut queues = set_up(device, interrupts, num_fifos)?;
    for (index, fifo) in (0..num_fifos).zip(fifos) {
        fifo.as_arc_borrow()
            .resume(queues_of(&mut queues, index)?)?;
    }
    interrupts.attach_events(queues.take(EVENT_QUEUE).ok_or(ENXIO)?)?;
    interrupts.control.begin_service();
    Ok(())
}
