// SPDX-License-Identifier: GPL-2.0-only

//! The control virtqueue: one request at a time, with a bounded wait for the answer.
//!
//! Knows requests and responses. Must not know what a FIFO makes of them. A task that waits also
//! checks the queue now and then, so that a lost interrupt costs a moment: when the first requests
//! are made nothing is open, and the watchdog does not run.
//!
//! While the device is being reset the queue is gone for a time ([`Control::suspend`]). Who wants
//! to make a request waits until the device is in service again ([`Control::begin_service`]); who
//! was at it is told to begin anew, as what the request said may not hold any more.

use super::{
    stats::Counter,
    tunables::CONTROL_SECONDS, //
};
use crate::{
    kapi::{
        lock::{
            new_spinlock_irq,
            SpinLockIrq, //
        },
        virtio::{
            MissedCheck,
            Packet,
            Queue,
            Refused, //
        },
        wait::{
            new_wait_queue,
            Deadline,
            Events,
            Signals,
            WaitFor,
            WaitQueue,
            Waited, //
        },
    },
    virtio_fifo::{
        CtrlRequest,
        CtrlResponse,
        State,
        CTRL_OK, //
    },
};
use kernel::{
    dev_err,
    device::Device,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    },
};

/// Number of a request, to tell its answer from that to one which nobody waits for any more.
pub(crate) type Sequence = u64;

/// The queue, by the life of the device.
enum Line {
    /// In service.
    Open(Queue<Sequence>),
    /// The device is being reset: requests wait.
    Suspended,
    /// Not set up yet, or gone: `ENODEV`.
    Closed,
}

impl Line {
    fn queue(&mut self) -> Option<&mut Queue<Sequence>> {
        match self {
            Self::Open(queue) => Some(queue),
            Self::Suspended | Self::Closed => None,
        }
    }
}

struct Inner {
    line: Line,
    /// Number of times that the queue was set up.
    generation: u32,
    /// The device is set up. Before that only what sets it up makes requests.
    in_service: bool,
    /// Somebody makes a request.
    busy: bool,
    last: Sequence,
    answer: Option<(Sequence, Option<CtrlResponse>)>,
    /// A failure has been logged; a user could fill the log otherwise.
    complained: bool,
}

impl Inner {
    /// Takes the answers the device gave. Bounded: what comes out goes in again with a request
    /// only.
    fn take_answers(&mut self) {
        while let Some((packet, written)) = self.line.queue().and_then(Queue::get) {
            let response = (written >= CtrlResponse::LEN)
                .then(|| packet.snapshot(CtrlRequest::LEN))
                .flatten()
                .map(CtrlResponse::from_bytes);
            self.answer = Some((packet.meta, response));
        }
    }
}

/// State of a request that has been sent.
enum Progress {
    Waiting,
    /// The device answered; `None` if not with a response.
    Answered(Option<CtrlResponse>),
    /// The device was reset meanwhile.
    Interrupted,
    /// The device is gone, or broke the queue.
    Failed(Error),
}

/// Requests to the device.
#[pin_data]
pub(crate) struct Control {
    /// For log messages.
    device: ARef<Device>,
    /// Taken in process context and in the queue's hard interrupt; leaf.
    #[pin]
    inner: SpinLockIrq<Inner>,
    /// An answer wakes readers; the end of a request and the return of the queue wake writers.
    /// Woken without `inner`.
    #[pin]
    wait: WaitQueue,
}

/// Memory for a request: made sure of before anything is given up for the request.
pub(crate) struct Prepared(KBox<Packet<Sequence>>);

/// The right to make a request.
pub(crate) struct Requester<'a> {
    control: &'a Control,
    signals: Signals,
}

impl Drop for Requester<'_> {
    fn drop(&mut self) {
        self.control.inner.lock().busy = false;
        self.control.wait.wake(Events::OUT);
    }
}

impl Control {
    /// Without a queue, all requests fail with `ENODEV`.
    pub(crate) fn new(device: &Device) -> Result<Arc<Self>> {
        let inner = Inner {
            line: Line::Closed,
            generation: 0,
            in_service: false,
            busy: false,
            last: 0,
            answer: None,
            complained: false,
        };
        Arc::pin_init(
            pin_init!(Self {
                device: device.into(),
                inner <- new_spinlock_irq!(inner, "Control::inner"),
                wait <- new_wait_queue!("Control::wait"),
            }),
            GFP_KERNEL,
        )
    }

    /// Starts with `queue`, for the first time or again: at first for what sets the device up.
    pub(crate) fn attach(&self, queue: Queue<Sequence>) {
        let before = {
            let mut inner = self.inner.lock();
            inner.generation += 1;
            inner.in_service = false;
            core::mem::replace(&mut inner.line, Line::Open(queue))
        };
        self.wait.wake(Events::IN | Events::OUT);
        drop(before);
    }

    /// The device is set up.
    pub(crate) fn begin_service(&self) {
        self.inner.lock().in_service = true;
        self.wait.wake(Events::OUT);
    }

    /// Closes a queue that a failed restore has left suspended: requests fail with `ENODEV`.
    pub(crate) fn give_up(&self) {
        {
            let mut inner = self.inner.lock();
            inner.in_service = true;
            if matches!(inner.line, Line::Suspended) {
                inner.line = Line::Closed;
            }
        }
        self.wait.wake(Events::HUP);
    }

    fn take(&self, instead: Line) -> Option<Queue<Sequence>> {
        let before = core::mem::replace(&mut self.inner.lock().line, instead);
        self.wait.wake(Events::HUP);
        match before {
            Line::Open(queue) => Some(queue),
            Line::Suspended | Line::Closed => None,
        }
    }

    /// Gives the queue back for the time of a reset.
    pub(crate) fn suspend(&self) -> Option<Queue<Sequence>> {
        self.take(Line::Suspended)
    }

    /// Gives the queue back, for good.
    pub(crate) fn detach(&self) -> Option<Queue<Sequence>> {
        self.take(Line::Closed)
    }

    /// The device gave answers. Called in hard interrupt context.
    pub(crate) fn interrupt(&self) {
        self.inner.lock().take_answers();
        self.wait.wake(Events::IN);
    }

    /// Memory for a request and its answer.
    pub(crate) fn prepare() -> Result<Prepared> {
        let memory = Packet::new(CtrlRequest::LEN + CtrlResponse::LEN, 0)?;
        Ok(Prepared(memory))
    }

    /// Waits until nobody else makes a request, and the device is in service: for as many bounded
    /// waits as there are others. `ENODEV` when the device is gone, `ERESTARTSYS` on a
    /// signal that kills.
    pub(crate) fn requester(&self) -> Result<Requester<'_>> {
        self.requester_with(false)
    }

    fn requester_with(&self, at_setup: bool) -> Result<Requester<'_>> {
        // A task frozen with the turn would block the resume, and so itself: the wait for the
        // answer is not freezable.
        let (of_turn, of_answer) = match at_setup {
            true => (Signals::Ignore, Signals::Ignore),
            false => (Signals::Kill, Signals::KillAwake),
        };
        let mut result = Ok(());
        self.wait.wait(WaitFor::Writable, of_turn, None, || {
            let mut inner = self.inner.lock();
            match inner.line {
                Line::Closed => result = Err(ENODEV),
                Line::Open(_) if !inner.busy && (at_setup || inner.in_service) => {
                    inner.busy = true;
                }
                Line::Open(_) | Line::Suspended => return false,
            }
            true
        })?;
        result.map(|()| Requester {
            control: self,
            signals: of_answer,
        })
    }

    /// Makes a request of a device that is being set up. No signal ends it.
    pub(crate) fn request_at_setup(&self, request: CtrlRequest, missed: &Counter) -> Result<State> {
        let memory = Self::prepare()?;
        self.requester_with(true)?
            .request(memory, request, missed)?
            .ok_or(EIO)
    }

    /// True the first time.
    fn may_complain(&self) -> bool {
        !core::mem::replace(&mut self.inner.lock().complained, true)
    }

    fn send(
        &self,
        Prepared(mut packet): Prepared,
        request: &CtrlRequest,
    ) -> Result<(Sequence, u32)> {
        if let Some(to) = packet.bytes_mut().first_chunk_mut() {
            *to = request.to_bytes();
        }
        packet.expose(CtrlRequest::LEN, CtrlResponse::LEN);

        let mut inner = self.inner.lock();
        inner.last += 1;
        let sequence = inner.last;
        packet.meta = sequence;
        let generation = inner.generation;
        let Some(queue) = inner.line.queue() else {
            let is_suspended = matches!(inner.line, Line::Suspended);
            drop(inner);
            drop(packet);
            // As one that was under way when the queue was taken.
            return if is_suspended {
                Ok((sequence, generation))
            } else {
                Err(ENODEV)
            };
        };
        match queue.add(packet) {
            Ok(()) => {
                queue.kick();
                Ok((sequence, generation))
            }
            // Earlier requests that nobody waits for any more have not come back.
            Err(Refused::Full(packet) | Refused::Broken(packet)) => {
                drop(inner);
                drop(packet);
                Err(EIO)
            }
        }
    }

    fn progress(&self, sequence: Sequence, generation: u32) -> Progress {
        let mut inner = self.inner.lock();
        let given = inner.answer.take_if(|(number, _)| *number == sequence);
        let again = inner.generation != generation;
        match (given, &inner.line) {
            (Some((_, response)), _) => Progress::Answered(response),
            (None, Line::Closed) => Progress::Failed(ENODEV),
            (None, Line::Open(_)) if again => Progress::Interrupted,
            (None, Line::Open(queue)) if queue.is_broken() => Progress::Failed(EIO),
            (None, Line::Open(_) | Line::Suspended) => Progress::Waiting,
        }
    }

    fn check_missed(&self, missed: &Counter) {
        let mut inner = self.inner.lock();
        if inner.line.queue().map(Queue::check_missed) == Some(MissedCheck::Missed) {
            missed.add(1);
            inner.take_answers();
        }
    }
}

impl Requester<'_> {
    /// Sends a request and waits for the FIFO's state after it; `None` if the device was reset
    /// meanwhile. Counts lost interrupts in `missed`.
    ///
    /// # Errors
    ///
    /// `ENODEV` when the device is gone, `EIO` when it refuses or does not answer in time,
    /// `ERESTARTSYS` on a signal that kills; the request may then still take effect.
    pub(crate) fn request(
        &self,
        memory: Prepared,
        request: CtrlRequest,
        missed: &Counter,
    ) -> Result<Option<State>> {
        let control = self.control;
        let (sequence, generation) = control.send(memory, &request)?;
        let mut progress = Progress::Waiting;
        let waited = control.wait.wait_rechecking(
            WaitFor::Readable,
            self.signals,
            Deadline::in_seconds(CONTROL_SECONDS),
            || control.check_missed(missed),
            || {
                progress = control.progress(sequence, generation);
                !matches!(progress, Progress::Waiting)
            },
        )?;
        if waited == Waited::TimedOut && control.may_complain() {
            dev_err!(
                control.device,
                "no answer to control request {}\n",
                request.kind
            );
        }
        let response = match progress {
            Progress::Answered(response) => response.ok_or(EIO)?,
            Progress::Interrupted => return Ok(None),
            Progress::Failed(error) => return Err(error),
            Progress::Waiting => return Err(EIO),
        };
        if response.status != CTRL_OK {
            if control.may_complain() {
                let (kind, status) = (request.kind, response.status);
                dev_err!(control.device, "control request {kind}: status {status}\n");
            }
            return Err(EIO);
        }
        Ok(Some(response.state))
    }
}
