// SPDX-License-Identifier: GPL-2.0-only

//! The control virtqueue: one request at a time, with a bounded wait for the answer.
//!
//! Knows requests and responses, not what a FIFO makes of them.

use crate::{
    kapi::{
        virtio::{
            Packet,
            Queue,
            Refused, //
        },
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
        CtrlResponse,
        State,
        CTRL_OK, //
    },
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        new_spinlock_irq,
        Arc,
        Mutex,
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
    last: Sequence,
    answer: Option<(Sequence, Option<CtrlResponse>)>,
}

/// Asks the device.
#[pin_data]
pub(crate) struct Control {
    /// Held by the one whose request is under way. Taken in process context, before `inner`.
    #[pin]
    turn: Mutex<()>,
    /// The queue and the answer. Taken in process context and in the queue's hard interrupt; nothing
    /// is taken under it.
    #[pin]
    inner: SpinLockIrq<Inner>,
    #[pin]
    answered: WaitQueue,
}

impl Control {
    /// Without a queue, all requests fail with `ENODEV`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                turn <- new_mutex!((), "Control::turn"),
                inner <- new_spinlock_irq!(
                    Inner { queue: None, last: 0, answer: None },
                    "Control::inner"
                ),
                answered <- new_wait_queue!("Control::answered"),
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
        self.answered.wake(Events::HUP);
        queue
    }

    /// Takes the answers the device gave. Called in hard interrupt context.
    pub(crate) fn interrupt(&self) {
        let mut inner = self.inner.lock();
        let Inner { queue, answer, .. } = &mut *inner;
        while let Some((packet, written)) = queue.as_mut().and_then(Queue::get) {
            let response = (written >= CtrlResponse::LEN)
                .then(|| packet.bytes().get(CtrlRequest::LEN..)?.first_chunk())
                .flatten()
                .map(|bytes| CtrlResponse::from_bytes(*bytes));
            *answer = Some((packet.meta, response));
        }
        drop(inner);
        self.answered.wake(Events::IN);
    }

    /// Sends a request and waits for the FIFO's state after it.
    ///
    /// # Errors
    ///
    /// `ENODEV` when the device is gone, `EIO` when it refuses or does not answer in time,
    /// `ERESTARTSYS` on a signal; the request may then still take effect.
    pub(crate) fn request(&self, request: CtrlRequest) -> Result<State> {
        let _turn = self.turn.lock();
        let sequence = self.send(request)?;
        let mut answer = None;
        let waited =
            self.answered
                .wait(WaitFor::Readable, Signals::Interrupt, Some(SECONDS), || {
                    let mut inner = self.inner.lock();
                    if inner.queue.is_none() {
                        answer = Some(Err(ENODEV));
                    } else if let Some((_, given)) =
                        inner.answer.take_if(|(number, _)| *number == sequence)
                    {
                        answer = Some(given.ok_or(EIO));
                    }
                    answer.is_some()
                })?;
        if waited == Waited::TimedOut {
            pr_err!("no answer to control request {}\n", request.kind);
            return Err(EIO);
        }
        let response = answer.unwrap_or(Err(EIO))?;
        if response.status != CTRL_OK {
            pr_err!(
                "control request {}: status {}\n",
                request.kind,
                response.status
            );
            return Err(EIO);
        }
        Ok(response.state)
    }

    fn send(&self, request: CtrlRequest) -> Result<Sequence> {
        let mut packet = Packet::new(CtrlRequest::LEN + CtrlResponse::LEN, 0)?;
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
