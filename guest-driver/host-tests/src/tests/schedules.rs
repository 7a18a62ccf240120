// SPDX-License-Identifier: GPL-2.0-only

//! Random schedules of everything that happens to a FIFO, also in the middle of calls, against two simple models:
//! what becomes of requests and bytes ([`Ledger`]), and who relies on being told ([`Observer`]).

use super::ledger::{Entry, Ledger};
use super::machine::{Call, Machine, AIO, NOWAIT, WAIT};
use super::ops::{op, Buffer, Op};
use crate::driver::fifo::file::FifoFile;
use crate::driver::fifo::state::{State, Turn};
use crate::iov::UserBuffer;
use crate::kapi::fasync::Band;
use crate::kapi::kiocb::How;
use crate::kapi::wait::Events;
use crate::prelude::*;
use crate::sync::Arc;
use crate::virtio_fifo::{STATE_HANGUP, STATE_LOOPBACK};
use crate::world::{self, Point};
use proptest::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;

fn buffer(n: usize, byte: u8, kind: Buffer) -> Rc<UserBuffer> {
    let buffer = UserBuffer::new(vec![byte; n]);
    match kind {
        Buffer::There => {}
        Buffer::Half => buffer.present.set(n / 2),
        Buffer::Missing => buffer.present.set(0),
        Buffer::Cut => buffer.mapped.set(n / 2),
    }
    buffer
}

/// Who relies on being told that something is ready.
#[derive(Default)]
struct Observer {
    /// Number of wake-ups, and of signals, before the call that found nothing (more).
    edge: Option<(usize, usize)>,
    /// It was told that there is an end: only data, or a side that is there again, is news.
    at_end: bool,
    /// Number of wake-ups before the wait in which it sleeps.
    asleep: Option<usize>,
}

struct Run {
    machine: Machine,
    files: Vec<Arc<FifoFile>>,
    reader: RefCell<Observer>,
    writer: RefCell<Observer>,
    ledger: RefCell<Ledger>,
    depth: std::cell::Cell<u32>,
    is_loop: bool,
}

impl Run {
    fn new(capacity: u32, is_loop: bool, descriptors: u32) -> Rc<Self> {
        let flags = if is_loop { STATE_LOOPBACK } else { 0 };
        let machine = Machine::new(capacity, flags, descriptors);
        let files = vec![machine.file.clone(), machine.open()];
        Rc::new(Self {
            machine,
            files,
            reader: RefCell::default(),
            writer: RefCell::default(),
            ledger: RefCell::default(),
            depth: Default::default(),
            is_loop,
        })
    }

    fn counts(&self) -> (usize, usize) {
        (
            self.machine.fifo.notifier.wait.count(),
            self.machine.signals.count(),
        )
    }

    fn next_write(&self) -> u8 {
        let mut ledger = self.ledger.borrow_mut();
        ledger.writes += 1;
        ledger.writes
    }

    fn read(&self, how: How, n: usize, kind: Buffer) {
        let before = self.counts();
        let call = Call::read(&self.machine.file, how, buffer(n, 0, kind));
        self.check_copied();
        let mut reader = self.reader.borrow_mut();
        let result = call.result().unwrap();
        reader.asleep =
            (result == Err(ERESTARTSYS)).then(|| self.machine.fifo.notifier.wait.waited_at());
        if how.must_not_wait {
            reader.at_end = result == Ok(0);
            let is_short = result.is_ok_and(|got| got < n);
            reader.edge = (is_short || result == Err(EAGAIN)).then_some(before);
        }
        match result {
            Ok(_) | Err(EAGAIN | ERESTARTSYS | ENODEV) => {}
            Err(other) => panic!("a read ended with {other:?}"),
        }
    }

    fn write(&self, how: How, n: usize) {
        let number = self.next_write();
        let before = self.counts();
        let call = self.machine.write(how, vec![number; n]);
        let mut writer = self.writer.borrow_mut();
        let result = call.result().unwrap();
        writer.asleep =
            (result == Err(ERESTARTSYS)).then(|| self.machine.fifo.notifier.wait.waited_at());
        if how.must_not_wait {
            let is_short = result.is_ok_and(|sent| sent < n);
            writer.edge = (is_short || matches!(result, Err(EAGAIN | EPIPE))).then_some(before);
        }
        match result {
            Ok(sent) => self.ledger.borrow_mut().results.push((number, sent)),
            Err(EPIPE) if self.ledger.borrow().has_hung_up => {}
            Err(EAGAIN | ERESTARTSYS | ENODEV) => {}
            Err(other) => panic!("a write ended with {other:?}"),
        }
    }

    fn submit(&self, file: usize, reads: bool, kind: Buffer, n: usize) {
        let number = if reads { 0 } else { self.next_write() };
        let call = Call::new(&self.files[file], reads, AIO, buffer(n, number, kind));
        let call = Rc::new(call);
        self.ledger.borrow_mut().requests.push(Entry {
            call: call.clone(),
            kind,
            was_cancelled: false,
            file,
            is_nested: self.depth.get() > 1,
        });
        let before = world::process();
        world::become_process(1 + file);
        call.make();
        world::become_process(before);
        self.check_copied();
    }

    fn check_copied(&self) {
        let copied = world::take_copied();
        if !self.is_loop {
            self.ledger.borrow_mut().check_copied(&copied);
        }
    }

    fn check_results(&self) {
        let device = self.machine.device.borrow();
        self.ledger.borrow().check_results(&device.accepted);
    }

    fn clear(&self) {
        self.check_copied();
        {
            let mut ledger = self.ledger.borrow_mut();
            ledger.has_cleared = true;
            ledger.may_jump = true;
        }
        match self.machine.clear() {
            Ok(()) | Err(ERESTARTSYS | EIO | ENODEV) => {}
            Err(other) => panic!("a clear ended with {other:?}"),
        }
    }

    fn run(self: &Rc<Self>, op: &Op) {
        self.depth.set(self.depth.get() + 1);
        let machine = &self.machine;
        let fifo = machine.fifo.as_arc_borrow();
        let is_attached = machine.look(|state| state.tx.is_attached());
        match op {
            Op::HostWrites(n, most) => {
                if !self.is_loop {
                    let mut device = machine.device.borrow_mut();
                    device.host_write(*n);
                    while device.send(*most) {}
                }
            }
            Op::HostReads(n) => machine.device.borrow_mut().host_read(*n),
            Op::Sends(most) => {
                machine.device.borrow_mut().send(*most);
            }
            Op::Accepts(n) => {
                for _ in 0..*n {
                    machine.device.borrow_mut().accept();
                }
            }
            // While it is being reset it tells nothing, and takes no requests.
            Op::Tells | Op::Flags(_) | Op::Clears | Op::ClearsInVain if !is_attached => {}
            Op::Tells => machine.event(),
            // A loop has no other side.
            Op::Flags(_) if self.is_loop => {}
            Op::Flags(flags) => {
                let mut device = machine.device.borrow_mut();
                device.flags = device.flags & STATE_LOOPBACK | flags;
                self.ledger.borrow_mut().has_hung_up |= flags & STATE_HANGUP != 0;
                drop(device);
                machine.event();
            }
            Op::Interrupts => {
                machine.interrupts();
            }
            Op::LosesInterrupts => {
                machine.device.borrow().rx.lose_interrupt();
                machine.device.borrow().tx.lose_interrupt();
                fifo.check_missed();
                fifo.check_missed();
            }
            Op::Work => {
                world::run_one_work();
            }
            Op::Passes(microseconds) => world::pass(*microseconds),
            Op::Reads(n, kind) => self.read(NOWAIT, *n, *kind),
            Op::Writes(n) => self.write(NOWAIT, *n),
            Op::BlocksInRead(n, kind) => self.read(WAIT, *n, *kind),
            Op::BlocksInWrite(n) => self.write(WAIT, *n),
            Op::Polls => self.poll(),
            Op::SubmitsRead(file, kind, n) => self.submit(*file, true, *kind, *n),
            Op::SubmitsWrite(file, kind, n) => self.submit(*file, false, *kind, *n),
            Op::Cancels(index) => {
                let mut ledger = self.ledger.borrow_mut();
                let count = ledger.requests.len();
                if count > 0 {
                    let entry = &mut ledger.requests[index % count];
                    entry.was_cancelled = true;
                    let call = entry.call.clone();
                    drop(ledger);
                    call.cancel();
                }
            }
            Op::ClosesFile(file) => {
                for entry in &mut self.ledger.borrow_mut().requests {
                    entry.was_cancelled |= entry.file == *file;
                }
                let before = world::process();
                world::become_process(1 + file);
                machine.close_file(&self.files[*file]);
                world::become_process(before);
            }
            Op::Clears => self.clear(),
            Op::ClearsInVain => {
                machine.device.borrow_mut().answers = false;
                self.clear();
                machine.device.borrow_mut().answers = true;
            }
            Op::Suspends(meanwhile) => {
                // One at a time.
                if is_attached {
                    machine.suspend_and_resume(|| meanwhile.iter().for_each(|op| self.run(op)));
                }
            }
            Op::At(point, op) => {
                let (this, op) = (Rc::downgrade(self), op.clone());
                world::at(*point, move || {
                    if let Some(this) = this.upgrade() {
                        this.run(&op);
                    }
                });
            }
        }
        self.check_copied();
        let log = world::take_log();
        assert!(log.is_empty(), "{log:?}");
        self.depth.set(self.depth.get() - 1);
    }

    /// A poll that relies on an edge for what it does not find.
    fn poll(&self) {
        let before = self.counts();
        let events = self.machine.poll();
        let missing = |event| (!events.contains(event)).then_some(before);
        let mut reader = self.reader.borrow_mut();
        if events.contains(Events::IN) {
            reader.edge = None;
        } else {
            (reader.edge, reader.at_end) = (missing(Events::IN), false);
        }
        self.writer.borrow_mut().edge = missing(Events::OUT);
    }

    /// Everybody who relies on being told, and for whom something is ready, has been told.
    fn check_told(&self) {
        let wait = &self.machine.fifo.notifier.wait;
        let signals = &self.machine.signals;
        let end = Events::ERR | Events::HUP;
        let (has_data, has_news, has_space) = self.machine.look(|state: &mut State| {
            assert!(
                state.reader == Turn::Free && state.writer == Turn::Free,
                "a turn without end"
            );
            assert!(state.owed == Events::NONE, "edges that nobody announces");
            let data = state.has_data_for_calls();
            let readiness = state.readiness();
            assert!(state.check().is_err() || readiness.contains(Events::IN) == data);
            (
                data || state.check().is_err(),
                data && state.rx.level() > 0 || state.check().is_err(),
                state.check_writing().is_err() || state.credit_for_calls() > 0,
            )
        });
        let reader = self.reader.borrow();
        if let Some((wakes, signalled)) = reader.edge {
            if if reader.at_end { has_news } else { has_data } {
                assert!(
                    wait.woke(wakes, Events::IN | end),
                    "an edge for a reader is lost"
                );
                let bands = [Band::In, Band::Hup, Band::Err];
                assert!(
                    signals.signalled(signalled, &bands),
                    "a signal to a reader is lost"
                );
            }
        }
        if let Some(wakes) = reader.asleep {
            assert!(
                !has_data || wait.woke(wakes, Events::IN | end),
                "a reader sleeps for ever"
            );
        }
        let writer = self.writer.borrow();
        let can_write = self.machine.look(|state| state.check_writing().is_ok()) && has_space;
        if let Some((wakes, signalled)) = writer.edge {
            if can_write {
                assert!(
                    wait.woke(wakes, Events::OUT | end),
                    "an edge for a writer is lost"
                );
                let bands = [Band::Out, Band::Hup, Band::Err];
                assert!(
                    signals.signalled(signalled, &bands),
                    "a signal to a writer is lost"
                );
            }
        }
        if let Some(wakes) = writer.asleep {
            assert!(
                !has_space || wait.woke(wakes, Events::OUT | end),
                "a writer sleeps for ever"
            );
        }
    }

    /// No request waits for what is there.
    fn check_served(&self) {
        self.machine.look(|state| {
            let (data, space) = state.for_requests();
            assert!(!state.have_work(), "requests that nobody serves");
            assert!(
                !state.requests.have_done(),
                "requests that nobody completes"
            );
            assert!(
                !data || !state.requests.want_data(),
                "a read waits though there is data"
            );
            assert!(
                !space || !state.requests.want_space(),
                "a write waits though there is space"
            );
        });
    }

    /// Lets everything come to rest, takes the device away, and checks that nothing is left.
    fn finish(self: &Rc<Self>) {
        for point in [
            Point::CopyToUser,
            Point::CopyFromUser,
            Point::Fault,
            Point::Submitting,
            Point::Asking,
            Point::Sleep,
        ] {
            world::forget(point);
        }
        self.machine.quiesce();
        self.check_copied();
        self.check_served();
        self.check_told();
        assert_eq!(
            self.machine.look(|state| state.requests.want_acceptance()),
            0,
            "a write waits"
        );
        self.check_results();
        let fifo = self.machine.fifo.as_arc_borrow();
        fifo.close();
        self.machine.quiesce();
        assert!(
            self.machine.look(|state| state.tx.is_drained()),
            "not drained"
        );
        drop(fifo.detach());
        self.machine.settle();
        self.check_told();
        for entry in &self.ledger.borrow().requests {
            assert!(entry.call.result().is_some(), "a request is left");
        }
        self.check_results();
    }
}

fn check(capacity: u32, is_loop: bool, descriptors: u32, ops: &[Op]) {
    let run = Run::new(capacity, is_loop, descriptors);
    for op in ops {
        run.run(op);
        run.machine.settle();
        run.check_copied();
        run.check_told();
        run.check_served();
    }
    run.finish();
}

/// As [`check`], where interrupts and work are as late as the schedule says.
fn check_late(capacity: u32, is_loop: bool, descriptors: u32, ops: &[Op]) {
    let run = Run::new(capacity, is_loop, descriptors);
    for op in ops {
        run.run(op);
    }
    run.finish();
}

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn readiness_is_told_in_every_schedule(
        capacity in 1..200_u32,
        is_loop: bool,
        descriptors in 1..6_u32,
        ops in proptest::collection::vec(op(8, 2), 0..60),
    ) {
        check(capacity, is_loop, descriptors, &ops);
    }

    #[test]
    fn readiness_is_told_however_late_work_runs(
        capacity in 1..200_u32,
        is_loop: bool,
        descriptors in 1..6_u32,
        ops in proptest::collection::vec(op(8, 2), 0..60),
    ) {
        check_late(capacity, is_loop, descriptors, &ops);
    }

    #[test]
    fn requests_are_completed_once_in_every_schedule(
        capacity in 1..200_u32,
        is_loop: bool,
        descriptors in 1..6_u32,
        ops in proptest::collection::vec(op(2, 8), 0..60),
    ) {
        check(capacity, is_loop, descriptors, &ops);
    }

    #[test]
    fn requests_are_completed_once_however_late_work_runs(
        capacity in 1..200_u32,
        is_loop: bool,
        descriptors in 1..6_u32,
        ops in proptest::collection::vec(op(2, 8), 0..60),
    ) {
        check_late(capacity, is_loop, descriptors, &ops);
    }
}
