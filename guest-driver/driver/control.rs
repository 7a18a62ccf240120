// SPDX-License-Identifier: GPL-2.0-only

//! The control virtqueue: one request at a time, with a bounded wait for the answer.
//!
//! Knows requests and responses, not what a FIFO makes of them. Whoever waits also looks at the queue
//! now and then, so that a lost interrupt costs a moment: when the first requests are made nothing is
//! open yet, and nobody else looks.

use super::stats::Counter;
use crate::{
    kapi::{
        virtio::{
            Look,
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
    prelude::*,
    sync::{
        new_spinlock_irq,
        Arc,
        SpinLockIrq, //
    },
};

/// How long an answer may take. The device answers without waiting for anything (DEV-10, DEV-22).
const SECONDS: u8 = 10;

/// Number of a request, to tell its answer from that to one which nobody waits for any more.
pub(crate) type Sequence = u64;

struct Inner {
    /// Until the device is taken away.
    queue: Option<Queue<Sequence>>,
    /// Somebody's request is under way.
    busy: bool,
    last: Sequence,
    answer: Option<(Sequence, Option<CtrlResponse>)>,
    /// The log has been told of a failure; whoever may ask could fill it otherwise.
    complained: bool,
}

impl Inner {
    /// Takes the answers the device gave. Bounded: what comes out goes in again with a request only.
    fn take_answers(&mut self) {
        while let Some((packet, written)) = self.queue.as_mut().and_then(Queue::get) {
            let response = (written >= CtrlResponse::LEN)
                .then(|| packet.snapshot(CtrlRequest::LEN))
                .flatten()
                .map(CtrlResponse::from_bytes);
            self.answer = Some((packet.meta, response));
        }
    }
}

/// Asks the device.
#[pin_data]
pub(crate) struct Control {
    /// The queue, whose turn it is, and the answer. Taken in process context and in the queue's hard
    /// interrupt; nothing is taken under it.
    #[pin]
    inner: SpinLockIrq<Inner>,
    /// An answer wakes readers, the end of a turn writers. Woken without `inner`.
    #[pin]
    wait: WaitQueue,
}

/// Memory for a request: whoever gives something up for it makes sure of that first.
pub(crate) struct Prepared(KBox<Packet<Sequence>>);

/// The right to ask.
struct Turn<'a>(&'a Control);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.inner.lock().busy = false;
        self.0.wait.wake(Events::OUT);
    }
}

impl Control {
    /// Without a queue, all requests fail with `ENODEV`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                inner <- new_spinlock_irq!(
                    Inner {
                        queue: None,
                        busy: false,
                        last: 0,
                        answer: None,
                        complained: false,
                    },
                    "Control::inner"
                ),
                wait <- new_wait_queue!("Control::wait"),
            }),
            GFP_KERNEL,
        )
    }

    /// Starts with `queue`.
    pub(crate) fn attach(&self, queue: Queue<Sequence>) {
        self.inner.lock().queue = Some(queue);
    }

    /// Gives the queue back; who waits for an answer gets `ENODEV`.
    pub(crate) fn detach(&self) -> Option<Queue<Sequence>> {
        let queue = self.inner.lock().queue.take();
        self.wait.wake(Events::HUP);
        queue
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

    /// Sends a request and waits for the FIFO's state after it. Counts lost interrupts in `missed`.
    ///
    /// # Errors
    ///
    /// `ENODEV` when the device is gone, `EIO` when it refuses or does not answer in time,
    /// `ERESTARTSYS` on a signal; the request may then still take effect.
    pub(crate) fn request(
        &self,
        memory: Prepared,
        request: CtrlRequest,
        missed: &Counter,
    ) -> Result<State> {
        let _turn = self.turn()?;
        let sequence = self.send(memory, request)?;
        let mut answer = None;
        let look = || {
            let mut inner = self.inner.lock();
            if inner.queue.as_mut().map(Queue::look) == Some(Look::Missed) {
                missed.add(1);
                inner.take_answers();
            }
        };
        let waited = self.wait.wait_looking(
            WaitFor::Readable,
            Signals::Interrupt,
            Deadline::in_seconds(SECONDS),
            look,
            || {
                let mut inner = self.inner.lock();
                let given = inner.answer.take_if(|(number, _)| *number == sequence);
                match (given, inner.queue.as_ref().map(Queue::is_broken)) {
                    (Some((_, response)), _) => answer = Some(response.ok_or(EIO)),
                    (None, None) => answer = Some(Err(ENODEV)),
                    (None, Some(true)) => answer = Some(Err(EIO)),
                    (None, Some(false)) => {}
                }
                answer.is_some()
            },
        )?;
        if waited == Waited::TimedOut && self.may_complain() {
            pr_err!("no answer to control request {}\n", request.kind);
        }
        let response = answer.unwrap_or(Err(EIO))?;
        if response.status != CTRL_OK {
            if self.may_complain() {
                pr_err!(
                    "control request {}: status {}\n",
                    request.kind,
                    response.status
                );
            }
            return Err(EIO);
        }
        Ok(response.state)
    }

    /// Waits until nobody else asks: for as many bounded waits as there are others, or a signal.
    fn turn(&self) -> Result<Turn<'_>> {
        self.wait
            .wait(WaitFor::Writable, Signals::Interrupt, None, || {
                let mut inner = self.inner.lock();
                let free = !inner.busy;
                inner.busy = true;
                free
            })?;
        Ok(Turn(self))
    }

    /// True the first time.
    fn may_complain(&self) -> bool {
        !core::mem::replace(&mut self.inner.lock().complained, true)
    }

    fn send(&self, Prepared(mut packet): Prepared, request: CtrlRequest) -> Result<Sequence> {
        if let Some(to) = packet.bytes_mut().first_chunk_mut() {
            *to = request.to_bytes();
        }
        packet.expose(CtrlRequest::LEN, CtrlResponse::LEN);

        let mut inner = self.inner.lock();
        inner.last += 1;
        let sequence = inner.last;
        packet.meta = sequence;
        let queue = inner.queue.as_mut().ok_or(ENODEV)?;
        match queue.add(packet) {
            Ok(()) => {
                queue.kick();
                Ok(sequence)
            }
            // Earlier requests that nobody waits for any more have not come back.
            Err(Refused::Full(packet) | Refused::Broken(packet)) => {
                drop(inner);
                drop(packet);
                Err(EIO)
            }
        }
    }
}
