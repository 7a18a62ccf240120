// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How other threads ask the queue worker for something, and how it answers.
//!
//! Requests are sets of virtqueues; what becomes of them is in [`crate::worker`]. This file must not
//! know FIFOs, rings or sockets.

use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use virtio_fifo_protocol::virtio_fifo::CONTROL_QUEUE;
use virtio_fifo_protocol::virtio_fifo::EVENT_QUEUE;
use virtio_fifo_protocol::virtio_fifo::FIRST_RX_QUEUE;
use virtio_fifo_protocol::virtio_fifo::rx_queue;
use virtio_fifo_protocol::virtio_fifo::tx_queue;

use crate::fault::Lane;
use crate::fault::Place;
use crate::wake::Wake;

/// How long a request to the worker may take. A pass is milliseconds: after this the worker is
/// dead, and so is the connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// The worker did not answer.
#[derive(Debug, thiserror::Error)]
#[error("the queue worker does not answer")]
pub struct NoAnswer;

/// A set of virtqueues or FIFOs; a device has at most 64 of the one and 31 of the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Set(u64);

impl Set {
    pub(crate) fn one(index: u16) -> Self {
        Self(1_u64.checked_shl(index.into()).unwrap_or_default())
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(crate) fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = u16> {
        (0..64).filter(move |index| self.overlaps(Self::one(*index)))
    }
}

#[derive(Debug, Default)]
struct Requests {
    stop: Set,
    serve: Set,
    interrupt: Set,
    /// How often somebody wanted to know that the pass of that time is over, …
    syncs: u64,
    /// … and how many of them know.
    synced: u64,
    /// The worker has ended: nobody answers any more.
    closed: bool,
}

/// What the worker is asked for, by virtqueue.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mail {
    /// To stop; [`Mailbox::stopped`] has to follow.
    pub(crate) stop: Set,
    /// To serve.
    pub(crate) serve: Set,
    /// To interrupt the driver for.
    pub(crate) interrupt: Set,
}

/// How other threads ask the worker for something.
///
/// The worker alone touches FIFOs through queues, so stopping a queue needs no lock that the
/// worker might hold: the request travels here, the answer comes back when it is done. By then
/// the worker has also seen every event of the queue that was raised before, so none of them can
/// meet the queue's next life.
#[derive(Debug)]
pub struct Mailbox {
    requests: Mutex<Requests>,
    answered: Condvar,
    wake: Arc<dyn Wake>,
}

impl Mailbox {
    /// A mailbox that wakes the worker by `wake`.
    pub fn new(wake: Arc<dyn Wake>) -> Self {
        Self {
            requests: Mutex::default(),
            answered: Condvar::new(),
            wake,
        }
    }

    /// Has the worker stop the queues `indices`, and waits until it did.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`] if the worker is dead.
    pub fn stop(&self, indices: impl IntoIterator<Item = u16>) -> Result<(), NoAnswer> {
        let stop = self.ask_to_stop(indices);
        let (mut requests, _) = self
            .answered
            .wait_timeout_while(self.lock(), PATIENCE, |requests| {
                !requests.closed && requests.stop.overlaps(stop)
            })
            .unwrap_or_else(PoisonError::into_inner);
        if requests.stop.overlaps(stop) {
            requests.stop.remove(stop);
            return Err(NoAnswer);
        }
        Ok(())
    }

    /// The worker has ended: who waits for an answer need not wait any longer.
    pub fn close(&self) {
        self.lock().closed = true;
        self.answered.notify_all();
    }

    /// Whether the worker has ended.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Has the worker stop the queues `indices` soon.
    pub fn stop_soon(&self, indices: impl IntoIterator<Item = u16>) {
        self.ask_to_stop(indices);
    }

    fn ask_to_stop(&self, indices: impl IntoIterator<Item = u16>) -> Set {
        let mut stop = Set::default();
        for index in indices {
            stop.add(Set::one(index));
        }
        self.lock().stop.add(stop);
        self.wake();
        stop
    }

    /// Waits until no pass is at work that was when this was called.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`] if the worker is dead.
    pub fn sync(&self) -> Result<(), NoAnswer> {
        let mut requests = self.lock();
        requests.syncs += 1;
        let mine = requests.syncs;
        self.wake();
        let (requests, _) = self
            .answered
            .wait_timeout_while(requests, PATIENCE, |requests| {
                !requests.closed && requests.synced < mine
            })
            .unwrap_or_else(PoisonError::into_inner);
        if requests.synced < mine {
            return Err(NoAnswer);
        }
        Ok(())
    }

    /// Has the worker look at FIFO `index` soon: its endpoint has moved something.
    pub fn serve_fifo(&self, index: u16) {
        self.lock().serve.add(Set::one(rx_queue(index)));
        self.wake();
    }

    /// Has the worker look at the queue of `place` soon.
    pub fn serve(&self, place: Place) {
        self.serve_again(Set::one(queue_of(place)));
    }

    /// Has the worker interrupt the driver soon, as for buffers used at `place`.
    pub fn interrupt(&self, place: Place) {
        self.lock().interrupt.add(Set::one(queue_of(place)));
        self.wake();
    }

    pub(crate) fn serve_again(&self, queues: Set) {
        self.lock().serve.add(queues);
        self.wake();
    }

    /// Takes what is asked for. Those who wait for the pass before this one are answered: it is over.
    pub(crate) fn take(&self) -> Mail {
        let mut requests = self.lock();
        if requests.synced < requests.syncs {
            requests.synced = requests.syncs;
            self.answered.notify_all();
        }
        Mail {
            stop: requests.stop,
            serve: std::mem::take(&mut requests.serve),
            interrupt: std::mem::take(&mut requests.interrupt),
        }
    }

    /// The queues `stop` are stopped.
    pub(crate) fn stopped(&self, stop: Set) {
        self.lock().stop.remove(stop);
        self.answered.notify_all();
    }

    /// Whether somebody wants something.
    pub(crate) fn has_mail(&self) -> bool {
        let requests = self.lock();
        !requests.stop.is_empty()
            || !requests.serve.is_empty()
            || !requests.interrupt.is_empty()
            || requests.synced < requests.syncs
    }

    /// Wakes the worker, for nothing but what it finds.
    pub fn wake(&self) {
        self.wake.wake();
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queue of a place.
pub(crate) fn queue_of(place: Place) -> u16 {
    match (place.lane, place.fifo) {
        (Lane::Rx, Some(fifo)) => rx_queue(fifo),
        (Lane::Tx, Some(fifo)) => tx_queue(fifo),
        (Lane::Control, _) => CONTROL_QUEUE,
        (Lane::Event | Lane::Rx | Lane::Tx, _) => EVENT_QUEUE,
    }
}

/// The place of a queue.
pub(crate) fn place_of(queue: u16) -> Place {
    match fifo_of(queue) {
        Some(fifo) if queue == tx_queue(fifo) => Place::tx(fifo),
        Some(fifo) => Place::rx(fifo),
        None if queue == CONTROL_QUEUE => Place::CONTROL,
        None => Place::EVENT,
    }
}

/// The FIFO that an rx or tx queue belongs to.
pub(crate) fn fifo_of(queue: u16) -> Option<u16> {
    queue.checked_sub(FIRST_RX_QUEUE).map(|offset| offset / 2)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::device::Device;
    use crate::fifo::ResetPolicy;
    use crate::spec::FifoSpec;
    use crate::spec::Kind;
    use crate::virtqueue::GuestRam;
    use crate::virtqueue::SharedRam;
    use crate::wake::Remembered;
    use crate::worker;
    use crate::worker::WakeSource;
    use crate::worker::Worker;

    /// Waits until a thread of this process waits for something.
    fn wait_for_sleep(thread: nix::unistd::Pid) {
        loop {
            let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
            let (_, fields) = stat.rsplit_once(')').unwrap();
            if fields.trim_start().starts_with('S') {
                return;
            }
            thread::yield_now();
        }
    }

    /// DEV-26: guest memory may be withdrawn once the exchange is answered. A pass that has begun for
    /// another reason, and comes to the request only now, must not have the old map then.
    #[test]
    fn an_exchange_of_memory_is_answered_when_no_pass_has_the_old_map() {
        let spec = FifoSpec {
            kind: Kind::Loopback,
            capacity: 16,
        };
        let device = Device::new(&[spec], ResetPolicy::Keep).unwrap();
        let old = Arc::new(GuestRam::default());
        let weak = Arc::downgrade(&old);
        let ram = SharedRam::from(old);
        let mailbox = Mailbox::new(Arc::new(Remembered::default()));
        mailbox.serve_fifo(0);
        thread::scope(|scope| {
            // Where the pass stops: first at the mailbox, then at the FIFO.
            let fifo = device.fifo(0).unwrap();
            let mut requests = mailbox.lock();
            let (tell, told) = mpsc::channel();
            let (device, ram, mailbox) = (&device, &ram, &mailbox);
            scope.spawn(move || {
                tell.send(nix::unistd::gettid()).unwrap();
                let mut worker = Worker::new(1);
                worker::run(WakeSource::Mail, device, &mut worker, &[], ram, mailbox);
            });
            wait_for_sleep(told.recv().unwrap());
            ram.lock().unwrap().replace(GuestRam::default());
            requests.syncs += 1;
            let mine = requests.syncs;
            let answered = mailbox
                .answered
                .wait_while(requests, |requests| requests.synced < mine);
            drop(answered);
            let held = weak.strong_count();
            drop(fifo);
            assert_eq!(held, 0, "the old map is in use");
        });
    }
}
