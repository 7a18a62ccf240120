// SPDX-License-Identifier: GPL-2.0-only

//! skeleton: a driver of the virtio-fifo device, for its first FIFO. docs/virtio-fifo.md specifies
//! the device; DRV-n is a requirement there, [`virtio_fifo`] its wire format.
//!
//! What is missing is marked TODO(RULE): that rule of `cargo lab grade` fails until it is there.
//! `cargo lab grade . --next` names the first one. Complete here: the way into service and out of
//! it, and requests to the device. [`kapi`] has the abstractions that this stands on; O_ASYNC is
//! theirs, all but the signal itself.

use crate::{
    kapi::{
        chardev,
        fasync::FasyncList,
        file_operations::{
            Direction,
            FileOperations,
            Mode,
            Open, //
        },
        kiocb::{
            Outcome,
            Request, //
        },
        open_file::ProcessId,
        poll::PollTable,
        source::Source,
        virtio::{
            Adapter,
            Device,
            Driver,
            Handler,
            IdTable,
            Packet,
            Queue, //
        },
        wait::{
            new_poll_queue,
            Deadline,
            Events,
            PollQueue,
            Signals,
            WaitFor,
            Waited, //
        },
    },
    virtio_fifo::{
        num_queues,
        rx_queue,
        tx_queue,
        Config,
        CtrlRequest,
        CtrlResponse,
        State as Told,
        CONTROL_QUEUE,
        CTRL_GET_STATE,
        CTRL_OK,
        DEFAULT_DEVICE_ID,
        EVENT_QUEUE, //
    },
};
use kernel::{
    driver::Registration,
    fs::File,
    iov::IovIterDest,
    prelude::*,
    sync::{
        global_lock,
        new_mutex,
        new_spinlock_irq,
        Arc,
        ArcBorrow,
        Mutex,
        SpinLockIrq, //
    },
    InPlaceModule, //
};

#[allow(dead_code, unused_imports, unused_macros, reason = "a part of it is used")]
mod kapi;
#[allow(dead_code, unreachable_pub, reason = "the device's half, too")]
mod virtio_fifo;

module! {
    type: Skeleton,
    name: "skeleton",
    authors: ["You"],
    description: "A driver of the virtio-fifo device",
    license: "GPL",
}

/// Limit of a wait for the device (DRV-16).
const PATIENCE_SECONDS: u8 = 20;
/// Empties the FIFO: the number of textbooks.
const FIFO_CLEAR: u32 = 1;

/// The queues of the device.
struct Queues {
    control: Queue<()>,
    _event: Queue<()>,
    _rx: Queue<()>,
    _tx: Queue<()>,
}

/// What the lock protects. Positions are those of section 6.1 of the specification.
struct State {
    /// None once the device is gone: calls fail with ENODEV.
    queues: Option<Queues>,
    answer: Option<CtrlResponse>,
    /// Where the device stood when it was set up.
    told: Option<Told>,
}

/// The FIFO, which the device and all open files have in common.
#[pin_data]
struct Fifo {
    #[pin]
    state: SpinLockIrq<State>,
    /// Tasks that wait for data or for space, or for an answer of the device.
    #[pin]
    wait: PollQueue,
    /// Files with O_ASYNC.
    signals: Arc<FasyncList>,
}

impl Fifo {
    fn new() -> Result<Arc<Self>> {
        let signals = FasyncList::new()?;
        let state = State {
            queues: None,
            answer: None,
            told: None,
        };
        let init = pin_init!(Self {
            state <- new_spinlock_irq!(state, "Fifo::state"),
            wait <- new_poll_queue!("Fifo::wait"),
            signals,
        });
        Arc::pin_init(init, GFP_KERNEL)
    }

    /// Makes a request of the device, one at a time; the state that it answers with.
    fn request(&self, request: CtrlRequest) -> Result<Told> {
        let mut packet = Packet::new(CtrlRequest::LEN + CtrlResponse::LEN, ())?;
        if let Some(bytes) = packet.bytes_mut().first_chunk_mut() {
            *bytes = request.to_bytes();
        }
        packet.expose(CtrlRequest::LEN, CtrlResponse::LEN);
        {
            let mut state = self.state.lock();
            state.answer = None;
            let control = &mut state.queues.as_mut().ok_or(ENODEV)?.control;
            control.add(packet).map_err(|_| EIO)?;
            control.kick();
        }
        let deadline = Deadline::in_seconds(PATIENCE_SECONDS);
        let waited = self.wait.wait_rechecking(
            WaitFor::Readable,
            Signals::Ignore,
            deadline,
            || {},
            || self.state.lock().answer.is_some(),
        )?;
        match self.state.lock().answer.take() {
            Some(answer) if waited == Waited::Done && answer.status == CTRL_OK => Ok(answer.state),
            _ => Err(EIO),
        }
    }

    /// Out of service. The queues' drop resets the device, which keeps what was not read.
    fn stop(&self) {
        let queues = self.state.lock().queues.take();
        drop(queues);
        self.wait.wake(Events::ERR | Events::HUP);
    }
}

impl Handler for Fifo {
    fn queue_interrupt(self: ArcBorrow<'_, Self>, _index: u32) {
        let mut state = self.state.lock();
        if let Some(queues) = state.queues.as_mut() {
            if let Some((packet, written)) = queues.control.get() {
                let bytes = packet.snapshot(CtrlRequest::LEN);
                let bytes = bytes.filter(|_| written >= CtrlResponse::LEN);
                state.answer = bytes.map(CtrlResponse::from_bytes);
            }
        }
        // TODO(read.data): the rx queue has messages: check each (DRV-11), keep its bytes until
        // they are read, and post the buffer again then. The tx queue gives messages back that the
        // device has accepted.
        // TODO(fasync.readable): `self.signals.signal(Band::In)` where data has come.
        drop(state);
        // TODO(read.wakes): only where data has come.
        self.wait.wake(Events::IN);
    }
}

impl FileOperations for Fifo {
    fn read<'a>(
        self: ArcBorrow<'_, Self>,
        request: Request<'a, Self>,
        _to: &mut IovIterDest<'_>,
    ) -> Outcome<'a> {
        // TODO(read.data): `to.copy_to_iter` of what has come, without the lock; then it is consumed.
        // TODO(read.order): an empty buffer is posted again, and the device learns of what is
        // consumed by a message (DRV-8).
        // TODO(read.zero): 0 would be the end of the file: without data a read waits.
        // TODO(read.blocks): without data, `self.wait.wait(WaitFor::Readable, Signals::Interrupt,
        // None, …)`, and look again: another may have been faster.
        // TODO(read.nonblock): EAGAIN where `request.must_not_wait()`.
        request.answer(Err(EOPNOTSUPP))
    }

    fn write<'a>(
        self: ArcBorrow<'_, Self>,
        request: Request<'a, Self>,
        _from: &mut Source<'_, '_>,
    ) -> Outcome<'a> {
        // TODO(read.data): `Packet::append_from` behind a `TxHeader` (DRV-5, DRV-7), add and kick.
        // TODO(write.short): not more than the credit (DRV-6).
        // TODO(write.blocks): without credit, wait. A FIFO gets credit when its bytes are read.
        request.answer(Err(EOPNOTSUPP))
    }

    fn wait_for_splice(self: ArcBorrow<'_, Self>, _direction: Direction, _now: bool) -> Result {
        Ok(())
    }

    fn poll(self: ArcBorrow<'_, Self>, file: &File, _mode: Mode, table: &PollTable<'_>) -> Events {
        table.register(file, &self.wait);
        // TODO(poll.readable): `Events::IN` while there is data.
        // TODO(poll.writable): `Events::OUT` while there is credit.
        Events::NONE
    }

    fn ioctl(self: ArcBorrow<'_, Self>, _file: &File, command: u32, _: usize) -> Result<isize> {
        match command {
            // TODO(clear.empties): `Fifo::request` of CTRL_CLEAR, one at a time; all below `rx_floor`
            // of the answer is dropped, also what comes later (DRV-15).
            // TODO(clear.wakes): that makes space.
            FIFO_CLEAR => Err(EOPNOTSUPP),
            _ => Err(ENOTTY),
        }
    }

    fn fsync(self: ArcBorrow<'_, Self>) -> Result {
        Ok(())
    }

    fn closed_by(self: ArcBorrow<'_, Self>, _process: ProcessId) {}
}

/// What opens the node.
struct Opener;

impl Open for Opener {
    type File = Fifo;
    type OwnerModule = Skeleton;

    fn open(_minor: u32, _mode: Mode) -> Result<(Arc<Fifo>, Arc<FasyncList>)> {
        let fifo = FIFO.lock().clone().ok_or(ENODEV)?;
        let signals = fifo.signals.clone();
        Ok((fifo, signals))
    }
}

global_lock! {
    // SAFETY: Initialised by `Skeleton::init`, before the driver is registered.
    unsafe(uninit) static FIFO: Mutex<Option<Arc<Fifo>>> = None;
}

static ID_TABLE: IdTable = IdTable::new(DEFAULT_DEVICE_ID);

/// The driver.
struct FifoDriver;

/// A device in service.
#[pin_data]
struct Bound {
    fifo: Arc<Fifo>,
    #[pin]
    node: Mutex<Option<chardev::Node<Opener>>>,
}

/// Number of FIFOs. A device of another kind, or of another version, is left alone (DRV-19, DRV-20).
fn recognise(device: &Device) -> Result<u16> {
    Config::recognise(|offset| device.config_u32(offset).ok()).map_err(|_| ENODEV)
}

/// Into service, where the device stands (DRV-4).
fn start(device: &Device, fifo: &Arc<Fifo>) -> Result {
    let num_fifos = recognise(device)?;
    let mut names = KVec::new();
    for _ in 0..num_queues(num_fifos) {
        names.push(c"fifo", GFP_KERNEL)?;
    }
    let mut found = device.find_queues(&names, fifo.clone())?;
    let queues = Queues {
        control: found.take(CONTROL_QUEUE).ok_or(ENXIO)?,
        _event: found.take(EVENT_QUEUE).ok_or(ENXIO)?,
        _rx: found.take(rx_queue(0)).ok_or(ENXIO)?,
        _tx: found.take(tx_queue(0)).ok_or(ENXIO)?,
    };
    fifo.state.lock().queues = Some(queues);
    device.ready();
    let told = fifo.request(CtrlRequest {
        kind: CTRL_GET_STATE,
        fifo: 0,
        tx_sent: 0,
    })?;
    // TODO(read.data): post receive buffers, and one for events (section 6.4).
    fifo.state.lock().told = Some(told);
    Ok(())
}

/// Into service, and shown to user space.
fn show(device: &Device, fifo: &Arc<Fifo>) -> Result<chardev::Node<Opener>> {
    start(device, fifo)?;
    *FIFO.lock() = Some(fifo.clone());
    let chardev = chardev::Registration::<Opener>::new(c"skeleton")?;
    // Last: from here on it can be opened.
    chardev
        .as_arc_borrow()
        .create_node(device.as_dev(), c"skeleton", 0)
}

impl Driver for FifoDriver {
    type Data = Bound;

    const FEATURES: &'static [c_uint] = &[];

    fn id_table() -> &'static IdTable {
        &ID_TABLE
    }

    fn validate(device: &Device) -> Result {
        recognise(device).map(|_| ())
    }

    fn probe(device: &Device) -> impl PinInit<Bound, Error> {
        pin_init::pin_init_scope(move || {
            let fifo = Fifo::new()?;
            let node = show(device, &fifo).inspect_err(|_| fifo.stop())?;
            Ok(try_pin_init!(Bound {
                fifo,
                node <- new_mutex!(Some(node), "Bound::node"),
            }))
        })
    }

    fn remove(_device: &Device, bound: &Bound) {
        bound.fifo.stop();
        drop(FIFO.lock().take());
        // Files may stay open: the last one frees the FIFO.
        drop(bound.node.lock().take());
    }

    fn freeze(_device: &Device, _bound: &Bound) -> Result {
        Err(EOPNOTSUPP)
    }

    fn restore(_device: &Device, _bound: &Bound) -> Result {
        Err(EOPNOTSUPP)
    }

    fn shutdown(device: &Device, bound: &Bound) {
        bound.fifo.stop();
        device.stop();
    }
}

/// The module.
#[pin_data]
struct Skeleton {
    #[pin]
    _driver: Registration<Adapter<FifoDriver>>,
}

impl InPlaceModule for Skeleton {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: Once, and nobody uses it yet.
        unsafe { FIFO.init() };
        try_pin_init!(Self {
            _driver <- Registration::new(c"skeleton", module),
        })
    }
}
