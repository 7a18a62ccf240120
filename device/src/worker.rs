// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the queue worker does when it is woken: which queues it serves, in which order, and what
//! stopping and starting them means for their FIFOs.
//!
//! All of it happens on the worker's thread; other threads ask through [`Mailbox`]. This file must
//! not know sockets or the vhost-user protocol.

use std::time::Duration;
use std::time::Instant;

use tracing::debug;
use vhost_user_backend::VringT;
use virtio_fifo_protocol::virtio_fifo::CONTROL_QUEUE;
use virtio_fifo_protocol::virtio_fifo::EVENT_QUEUE;
use virtio_fifo_protocol::virtio_fifo::rx_queue;
use virtio_fifo_protocol::virtio_fifo::tx_queue;
use virtio_queue::QueueT;
use vm_memory::GuestAddressSpace;

use crate::device::Device;
use crate::fault::FaultyRing;
use crate::fault::Place;
use crate::handlers;
use crate::handlers::Announce;
use crate::handlers::FlushTx;
use crate::handlers::Outcome;
use crate::linger::Linger;
use crate::mailbox::Mail;
use crate::mailbox::Mailbox;
use crate::mailbox::Set;
use crate::mailbox::fifo_of;
use crate::mailbox::place_of;
use crate::refusal::Refusal;
use crate::stopped::Bases;
use crate::stopped::Position;
use crate::stopped::Settle;
use crate::stopped::Verdict;
use crate::trace::Notified;
use crate::trace::What;
use crate::virtqueue;
use crate::virtqueue::ActiveQueue;
use crate::virtqueue::Budget;
use crate::virtqueue::GuestRam;
use crate::virtqueue::QueueError;
use crate::virtqueue::SharedRam;
use crate::virtqueue::Vring;

/// What the worker remembers from one wake-up to the next, for one connection.
#[derive(Debug, Default)]
pub struct Worker {
    /// Queues found corrupt, ignored until they are stopped.
    corrupt: Set,
    /// FIFOs whose queues were stopped and not used since.
    stopped: Vec<Option<Bases>>,
    /// A driver has started a queue.
    driver_seen: bool,
    linger: Linger,
}

impl Worker {
    /// A worker that has seen nothing of a device with `num_fifos` FIFOs.
    pub fn new(num_fifos: u16) -> Self {
        Self {
            corrupt: Set::default(),
            stopped: vec![None; num_fifos.into()],
            driver_seen: false,
            linger: Linger::default(),
        }
    }
}

/// One wake-up of the worker.
pub struct Pass<'a> {
    device: &'a Device,
    worker: &'a mut Worker,
    vrings: &'a [Vring],
    ram: &'a GuestRam,
    /// Queues to serve again when the others had their turn.
    again: Set,
    /// FIFOs of which a queue turned out corrupt in this pass.
    failed: Set,
    /// The pass goes on for a while when there is nothing left to do.
    lingers: bool,
    /// Queues on which the driver was not asked to announce what comes.
    silent: Set,
}

impl std::fmt::Debug for Pass<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pass")
            .field("worker", self.worker)
            .field("again", &self.again)
            .finish_non_exhaustive()
    }
}

/// What the worker was woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeSource {
    /// A kick on this queue, or its start.
    Queue(u16),
    /// A request in the mailbox.
    Mail,
}

/// Does what there is to do on the worker's thread.
pub fn run(
    wake: WakeSource,
    device: &Device,
    worker: &mut Worker,
    vrings: &[Vring],
    ram: &SharedRam,
    mailbox: &Mailbox,
) {
    if let WakeSource::Queue(queue) = wake {
        device.tracer().record(|| What::Kick { queue });
    }
    if matches!(wake, WakeSource::Queue(_)) && !std::mem::replace(&mut worker.driver_seen, true) {
        device.faults().driver_started();
    }
    let linger = match wake {
        WakeSource::Queue(_) => worker.linger.begin(Instant::now()),
        WakeSource::Mail => Duration::ZERO,
    };
    // Before guest memory is looked up: whoever has exchanged it, and is answered here, must not find a
    // pass on the old map.
    let mail = match wake {
        WakeSource::Queue(_) => Mail::default(),
        WakeSource::Mail => mailbox.take(),
    };
    let ram = ram.memory();
    let mut pass = Pass {
        device,
        worker,
        vrings,
        ram: &ram,
        again: Set::default(),
        failed: Set::default(),
        lingers: linger > Duration::ZERO,
        silent: Set::default(),
    };
    match wake {
        WakeSource::Queue(index) => pass.serve(index),
        WakeSource::Mail => pass.act_on(mail, mailbox),
    }
    let found = pass.linger(linger, mailbox);
    pass.fail_fifos();
    let again = pass.again;
    worker.linger.ended(Instant::now(), found);
    if !again.is_empty() {
        mailbox.serve_again(again);
    }
}

impl<'a> Pass<'a> {
    /// Looks for more, until nothing came for as long as `time`, there is mail, or it was long enough;
    /// returns whether anything came, if it looked at all. It looks at all queues, those of which announcements may
    /// wait to be heard too: else what came later to a silent queue would overtake it.
    fn linger(&mut self, time: Duration, mailbox: &Mailbox) -> Option<bool> {
        let start = Instant::now();
        let mut last = start;
        let mut found = (!self.silent.is_empty() && time > Duration::ZERO).then_some(false);
        while !self.silent.is_empty() && last.elapsed() < time && start.elapsed() < Linger::PASS {
            let ready = self.ready();
            if mailbox.has_mail() {
                break;
            }
            if ready.is_empty() {
                // Whoever takes bytes to or from the host may need this CPU.
                std::thread::yield_now();
                continue;
            }
            for index in ready.iter() {
                self.serve(index);
            }
            last = Instant::now();
            found = Some(true);
        }
        let (vrings, ram) = (self.vrings, self.ram);
        for index in std::mem::take(&mut self.silent).iter() {
            self.with_queue(index, vrings, ram, |_, queue, _| handlers::listen(queue));
        }
        found
    }

    /// The queues on which there is something to do.
    fn ready(&self) -> Set {
        let mut ready = Set::default();
        if self.has_available(CONTROL_QUEUE) {
            ready.add(Set::one(CONTROL_QUEUE));
        }
        let (mut event, has_event_buffer) = (false, self.has_available(EVENT_QUEUE));
        for fifo in 0..self.device.num_fifos() {
            if self.has_available(tx_queue(fifo)) {
                ready.add(Set::one(tx_queue(fifo)));
            }
            let (pending, due) = self.device.fifo(fifo).map_or((false, false), |fifo| {
                (fifo.pending() > 0, fifo.event_due())
            });
            event |= due;
            if pending && self.has_available(rx_queue(fifo)) {
                ready.add(Set::one(rx_queue(fifo)));
            }
        }
        if event && has_event_buffer {
            ready.add(Set::one(EVENT_QUEUE));
        }
        ready
    }

    fn has_available(&self, index: u16) -> bool {
        let Some(vring) = self.vrings.get(usize::from(index)) else {
            return false;
        };
        let tap = self.device.faults().tap(place_of(index));
        if tap.is_some() || self.worker.corrupt.overlaps(Set::one(index)) {
            return false;
        }
        match ActiveQueue::open(vring, self.ram, None) {
            Ok(Some(mut queue)) => queue.has_available().unwrap_or_default(),
            Ok(None) | Err(_) => false,
        }
    }

    fn act_on(&mut self, mail: Mail, mailbox: &Mailbox) {
        let Mail {
            stop,
            serve,
            interrupt,
        } = mail;
        for index in stop.iter() {
            self.stop(index);
        }
        for index in serve.iter() {
            self.serve(index);
        }
        for index in interrupt.iter() {
            let begun = self.device.tracer().begin();
            let vring = self.vrings.get(usize::from(index));
            if vring.is_some_and(virtqueue::interrupt) {
                self.notified(index, begun, Notified::Sent);
            }
        }
        if !stop.is_empty() {
            mailbox.stopped(stop);
        }
    }

    fn serve(&mut self, index: u16) {
        if let Some(fifo) = fifo_of(index) {
            self.device.meet_outside(fifo);
        }
        match (index, fifo_of(index)) {
            (CONTROL_QUEUE, _) => self.control(),
            (EVENT_QUEUE, _) => self.events(),
            (_, Some(fifo)) if index == tx_queue(fifo) => {
                self.tx(fifo);
                self.rx(fifo);
            }
            (_, Some(fifo)) => self.rx(fifo),
            _ => {}
        }
    }

    fn control(&mut self) {
        let (device, vrings, ram) = (self.device, self.vrings, self.ram);
        let mut touched = Set::default();
        self.with_queue(CONTROL_QUEUE, vrings, ram, |pass, queue, budget| {
            handlers::control(queue, device, budget, |fifo, flush| {
                pass.settle(fifo, Settle::Now);
                match flush {
                    FlushTx::Yes => {
                        touched.add(Set::one(fifo));
                        pass.flush_tx(fifo)
                    }
                    FlushTx::No => 0,
                }
            })
        });
        for fifo in touched.iter() {
            self.rx(fifo);
        }
    }

    fn events(&mut self) {
        for fifo in 0..self.device.num_fifos() {
            self.event(fifo);
        }
    }

    fn event(&mut self, index: u16) {
        let (device, vrings, ram) = (self.device, self.vrings, self.ram);
        if !self.settle(index, Settle::WhenStarted) {
            return;
        }
        let Some(mut fifo) = device.fifo(index) else {
            return;
        };
        if let Some(tap) = device.faults().tap(Place::event(index)) {
            let mut event = fifo.state().to_bytes();
            if tap.garbage_event(&mut event) {
                self.with_queue(EVENT_QUEUE, vrings, ram, |_, queue, _| {
                    handlers::stray_event(queue, &event)
                });
            }
        }
        if fifo.event_due() {
            self.with_queue(EVENT_QUEUE, vrings, ram, |_, queue, budget| {
                handlers::event(queue, device, &mut fifo, budget)
            });
        }
    }

    fn tx(&mut self, index: u16) {
        let (device, vrings, ram) = (self.device, self.vrings, self.ram);
        if !self.settle(index, Settle::WhenStarted) {
            return;
        }
        let queue = tx_queue(index);
        // A queue with faults is left as they want it.
        let announce = if self.lingers && device.faults().tap(place_of(queue)).is_none() {
            self.silent.add(Set::one(queue));
            Announce::NotYet
        } else {
            Announce::Yes
        };
        self.with_queue(queue, vrings, ram, |_, queue, budget| {
            match device.fifo(index) {
                Some(mut fifo) => handlers::tx(queue, &mut fifo, budget, announce),
                None => Ok(Outcome::Done),
            }
        });
    }

    /// DEV-22: processes what is available in the tx queue of FIFO `index`, all of it. What that has cost, in bytes.
    fn flush_tx(&mut self, index: u16) -> usize {
        let mut cost = 0;
        let (device, vrings, ram) = (self.device, self.vrings, self.ram);
        self.with_queue(tx_queue(index), vrings, ram, |_, queue, budget| {
            let whole = queue.whole();
            *budget = whole;
            let outcome = match device.fifo(index) {
                Some(mut fifo) => handlers::tx(queue, &mut fifo, budget, Announce::Yes),
                None => Ok(Outcome::Done),
            };
            cost = budget.spent_of(&whole);
            outcome
        });
        cost
    }

    /// Moves what there is to the driver, then tells it what it must know.
    fn rx(&mut self, index: u16) {
        let (device, vrings, ram) = (self.device, self.vrings, self.ram);
        if !self.settle(index, Settle::WhenStarted) {
            return;
        }
        if device.fifo(index).is_some_and(|fifo| fifo.is_full()) {
            // DEV-12: what is available in tx may make room.
            self.tx(index);
        }
        if let Some(mut fifo) = device.fifo(index) {
            fifo.exchange();
            if fifo.pending() > 0 {
                self.with_queue(rx_queue(index), vrings, ram, |_, queue, budget| {
                    handlers::rx(queue, &mut fifo, budget)
                });
            }
        }
        self.event(index);
    }

    /// Runs `serve` on the queue `index` unless it is not started, or corrupt; interrupts the
    /// driver if need be.
    fn with_queue(
        &mut self,
        index: u16,
        vrings: &'a [Vring],
        ram: &'a GuestRam,
        serve: impl FnOnce(&mut Self, &mut ActiveQueue<'a>, &mut Budget) -> Result<Outcome, QueueError>,
    ) {
        if self.worker.corrupt.overlaps(Set::one(index)) {
            return;
        }
        let Some(vring) = vrings.get(usize::from(index)) else {
            return;
        };
        let faults = FaultyRing::new(self.device.faults(), place_of(index));
        if faults.tap().is_some_and(|tap| !tap.may_serve()) {
            return;
        }
        let result = ActiveQueue::open(vring, ram, Some(faults)).and_then(|queue| {
            let Some(mut queue) = queue else {
                return Ok(Outcome::Done);
            };
            let served = serve(self, &mut queue, &mut Budget::pass());
            // What was used before an error is announced even so.
            let begun = self.device.tracer().begin();
            let notified = queue.notify();
            if let Ok(Some(result)) = notified {
                self.notified(index, begun, result);
            }
            served.and_then(|outcome| notified.map(|_| outcome))
        });
        self.conclude(index, result);
    }

    /// The driver was to be notified of what was used in the queue `index`.
    fn notified(&self, index: u16, begun: Option<u64>, result: Notified) {
        let what = || What::Notify {
            queue: index,
            result,
        };
        self.device.tracer().record_at(begun, what);
        if result == Notified::Sent {
            self.device.count_interrupt(index);
        }
    }

    fn conclude(&mut self, index: u16, result: Result<Outcome, QueueError>) {
        match result {
            Ok(Outcome::Done) => {}
            Ok(Outcome::More) => self.again.add(Set::one(index)),
            Err(error) => self.give_up(index, &error),
        }
    }

    /// Ignores a queue until it is stopped. The driver learns of it where it can: an event tells
    /// that the FIFO has failed. (Not now: whoever calls may hold the FIFO's lock.)
    fn give_up(&mut self, index: u16, error: &QueueError) {
        self.worker.corrupt.add(Set::one(index));
        debug!(queue = index, %error, "queue is ignored until it is stopped");
        match fifo_of(index) {
            Some(fifo) => self.failed.add(Set::one(fifo)),
            None if index == CONTROL_QUEUE => self.device.refuse("control", Refusal::CorruptQueue),
            None => self.device.refuse("event", Refusal::CorruptQueue),
        }
    }

    fn fail_fifos(&mut self) {
        for index in std::mem::take(&mut self.failed).iter() {
            if let Some(mut fifo) = self.device.fifo(index) {
                fifo.fail("queues of fifo", Refusal::CorruptQueue);
            }
            self.event(index);
        }
    }

    /// The VMM stops a queue: with the device's reset, or to pause the machine.
    fn stop(&mut self, index: u16) {
        let (device, vrings, ram) = (self.device, self.vrings, self.ram);
        if let Some(fifo) = fifo_of(index) {
            self.settle(fifo, Settle::WhenStarted);
            let Some(vring) = vrings.get(usize::from(index)) else {
                return;
            };
            if index == tx_queue(fifo) && !self.worker.corrupt.overlaps(Set::one(index)) {
                let result = ActiveQueue::with_stopping(vring, ram, |queue, budget| {
                    let outcome = match device.fifo(fifo) {
                        Some(mut fifo) => handlers::tx(queue, &mut fifo, budget, Announce::Yes)?,
                        None => Outcome::Done,
                    };
                    let begun = device.tracer().begin();
                    if let Some(result) = queue.notify()? {
                        self.notified(index, begun, result);
                    }
                    Ok(outcome)
                });
                if let Err(error) = result {
                    debug!(queue = index, %error, "queue was stopped with messages unread");
                }
                if let Some(mut fifo) = device.fifo(fifo) {
                    fifo.exchange();
                }
            }
            self.note_stopped(fifo);
        }
        if let Some(tap) = self.device.faults().tap(place_of(index)) {
            tap.stopped();
        }
        self.worker.corrupt.remove(Set::one(index));
        self.again.remove(Set::one(index));
    }

    /// Remembers where the rings of a FIFO stand once both of them are stopped.
    fn note_stopped(&mut self, fifo: u16) {
        let Some((rx, tx)) = self.rings(fifo) else {
            return;
        };
        if !rx.ready
            && !tx.ready
            && let Some(stopped) = self.worker.stopped.get_mut(usize::from(fifo))
        {
            *stopped = Some(Bases {
                rx: rx.at,
                tx: tx.at,
            });
        }
    }

    /// Finds out, when a FIFO whose queues were stopped is used again, what it was stopped for.
    /// Rings that go on where they stood belong to the same driver: the machine was paused.
    /// Rings that start anew mean that the device was reset (DEV-6, DEV-21). Returns whether the
    /// FIFO can be used.
    fn settle(&mut self, index: u16, when: Settle) -> bool {
        let bases = match self.worker.stopped.get(usize::from(index)) {
            None => return false,
            Some(None) => return true,
            Some(Some(bases)) => *bases,
        };
        let Some((rx, tx)) = self.rings(index) else {
            return false;
        };
        let verdict = match (bases.verdict(rx, tx), when) {
            (Some(verdict), _) => verdict,
            (None, Settle::WhenStarted) => return false,
            (None, Settle::Now) => Verdict::Reset,
        };
        if let Some(stopped) = self.worker.stopped.get_mut(usize::from(index)) {
            *stopped = None;
        }
        if let Some(mut fifo) = self.device.fifo(index) {
            debug!(fifo = index, ?verdict, "queues started again");
            match verdict {
                Verdict::Pause => {}
                Verdict::Either => fifo.renew(),
                Verdict::Reset => fifo.reset(),
            }
        }
        true
    }

    /// Where the device stands in the rx and tx rings of a FIFO.
    fn rings(&self, fifo: u16) -> Option<(Position, Position)> {
        let ring = |index: u16| {
            let vring = self.vrings.get(usize::from(index))?.get_ref();
            Some(Position {
                ready: vring.get_queue().ready(),
                at: vring.get_queue().next_avail(),
            })
        };
        Some((ring(rx_queue(fifo))?, ring(tx_queue(fifo))?))
    }
}
