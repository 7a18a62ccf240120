// SPDX-License-Identifier: GPL-2.0-only

//! Deferred requests: order, places in line, cancellation in every phase, and what a hold of the lock looks at.

use super::machine::{Machine, AIO};
use crate::device::Device;
use crate::driver::fifo::file::{Buffer, FifoFile, Memory, Pinning};
use crate::driver::fifo::request::{Reservation, Wants};
use crate::driver::fifo::requests::{Armed, Circumstances, Requests};
use crate::iov::{Place, UserBuffer};
use crate::kapi::kiocb::{FileId, Id, Kiocb, Pending};
use crate::kapi::open_file::ProcessId;
use crate::kapi::user_memory::{Dest, Src, UserMemory};
use crate::prelude::*;
use crate::sync::Arc;
use crate::trace::Tracer;
use crate::world;
use std::rc::Rc;

struct Line {
    requests: Requests,
    file: Arc<FifoFile>,
    all: Vec<Rc<Kiocb>>,
}

const ALIVE: Circumstances = Circumstances {
    alive: Ok(()),
    writing: Ok(()),
    sending: Ok(()),
    accepted: 0,
    sent: u64::MAX,
};

impl Line {
    fn new() -> Self {
        Self {
            requests: Requests::new(),
            file: Machine::new(100, 0, 4).file,
            all: Vec::new(),
        }
    }

    fn add(&mut self, file: usize, wants: Wants) -> Id {
        let kiocb = Kiocb::new(AIO);
        let id = self.requests.next_id();
        let owner = (FileId(file), ProcessId(1));
        self.requests.add(
            Reservation::new().unwrap(),
            id,
            owner,
            Pending::of(&kiocb),
            wants,
        );
        self.all.push(kiocb);
        id
    }

    fn read_wants(&self) -> Wants {
        let memory = UserMemory::<Dest>::at(Place::new(&UserBuffer::new(vec![0; 8])));
        Wants::Data(
            Buffer::new(self.file.clone(), Memory::Dest(memory, Pinning::default())).unwrap(),
        )
    }

    fn read(&mut self, file: usize) -> Id {
        let wants = self.read_wants();
        let id = self.add(file, wants);
        assert!(matches!(self.requests.arm(id, &ALIVE), Armed::Queued));
        id
    }

    fn write(&mut self, file: usize) -> Id {
        let memory = UserMemory::<Src>::at(Place::new(&UserBuffer::new(vec![0; 8])));
        let wants = Wants::Space(Buffer::new(self.file.clone(), Memory::Source(memory)).unwrap());
        let id = self.add(file, wants);
        assert!(matches!(self.requests.arm(id, &ALIVE), Armed::Queued));
        id
    }

    fn sent(&mut self, end: u64, is_armed: bool) -> Id {
        let id = self.add(1, Wants::Acceptance { end, bytes: 1 });
        if is_armed {
            assert!(matches!(self.requests.arm(id, &ALIVE), Armed::Queued));
        }
        id
    }

    fn complete(&mut self) {
        if self.requests.begin_completing() {
            while let Some(done) = self.requests.take_done(64) {
                done.complete(&Tracer::new(&Device, 0));
            }
        }
    }

    fn result(&self, id: Id) -> Option<Result<usize>> {
        self.all[id - 1].result()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let accepted = u64::MAX;
        if !std::thread::panicking() {
            assert!(!self.requests.abort(ENODEV, 1_000_000));
            assert!(!self.requests.abort_sent(accepted, ENODEV, 1_000_000));
            self.complete();
        }
    }
}

#[test]
fn accepted_requests_complete_in_order_up_to_one_that_is_being_submitted() {
    let mut line = Line::new();
    let (a, b, c) = (line.sent(1, true), line.sent(2, false), line.sent(3, true));
    assert!(!line.requests.accept(3, 64));
    line.complete();
    assert_eq!((line.result(a), line.result(c)), (Some(Ok(1)), None));
    assert!(matches!(line.requests.arm(b, &ALIVE), Armed::Queued));
    assert!(line.requests.accept(3, 1));
    assert!(!line.requests.accept(3, 64));
    line.complete();
    assert_eq!((line.result(b), line.result(c)), (Some(Ok(1)), Some(Ok(1))));
}

#[test]
fn discard_ends_requests_in_front_of_one_that_is_being_submitted() {
    let mut line = Line::new();
    let (a, b) = (line.sent(10, true), line.sent(20, false));
    let mut discard = line.requests.begin_discard(5);
    let later = line.sent(12, true);
    assert!(!line.requests.discard(&mut discard, 64));
    line.complete();
    assert_eq!((line.result(a), line.result(later)), (Some(Ok(1)), None));
    let now = Circumstances { sent: 5, ..ALIVE };
    let Armed::Answer(pending, answer) = line.requests.arm(b, &now) else {
        panic!("it waits for bytes that were discarded");
    };
    pending.complete(answer);
    assert_eq!(line.result(b), Some(Ok(1)));
}

#[test]
fn discard_stops_after_its_budget_and_spares_what_was_posted() {
    let mut line = Line::new();
    let ids: Vec<Id> = (1..=10).map(|end| line.sent(end, true)).collect();
    let mut discard = line.requests.begin_discard(4);
    assert!(line.requests.discard(&mut discard, 4));
    while line.requests.discard(&mut discard, 4) {}
    line.complete();
    let ended = ids.iter().filter(|id| line.result(**id).is_some()).count();
    assert_eq!(ended, 6);
    assert_eq!(line.result(ids[3]), None);
}

#[test]
fn request_keeps_its_place_when_it_is_put_back_or_faulted_in() {
    let mut line = Line::new();
    let (a, b) = (line.read(1), line.read(1));
    assert!(line.requests.begin_serving());
    let buffer = line.requests.next_job(true, true).unwrap();
    assert_eq!(buffer.id, a);
    line.requests.put_back(buffer, Ok(()));
    let buffer = line.requests.next_job(true, true).unwrap();
    assert_eq!(buffer.id, a);
    // The line is held for it, for a time.
    assert!(line.requests.fault(a, true, 3));
    assert!(line.requests.next_job(true, true).is_none());
    line.requests.expire_holds();
    assert!(line.requests.want_data() && !line.requests.have_work(true, true));
    world::pass(2_000_000);
    line.requests.expire_holds();
    assert!(line.requests.begin_serving());
    let other = line.requests.next_job(true, true).unwrap();
    assert_eq!(other.id, b);
    line.requests.put_back(other, Ok(()));
    assert!(line.requests.faulted_in(buffer, Ok(())).is_none());
    let buffer = line.requests.next_job(true, true).unwrap();
    assert_eq!((buffer.id, buffer.was_faulted_in), (a, true));
    line.requests.finish(a, Err(EFAULT));
    line.complete();
    assert_eq!(line.result(a), Some(Ok(3)));
}

#[test]
fn cancelled_request_ends_once_whatever_it_was_at() {
    // Waiting.
    let mut line = Line::new();
    let id = line.read(1);
    line.requests.cancel(id);
    line.complete();
    assert_eq!(line.result(id), Some(Err(ECANCELED)));
    // With a server, which puts it back.
    let id = line.read(1);
    line.requests.begin_serving();
    let buffer = line.requests.next_job(true, true).unwrap();
    line.requests.cancel(id);
    assert!(!line.requests.have_done());
    line.requests.put_back(buffer, Ok(()));
    line.complete();
    assert_eq!(line.result(id), Some(Err(ECANCELED)));
    // With a server, which meets a page fault after some bytes.
    let id = line.read(1);
    let buffer = line.requests.next_job(true, true).unwrap();
    line.requests.cancel(id);
    assert!(!line.requests.fault(id, true, 5));
    drop(buffer);
    line.complete();
    assert_eq!(line.result(id), Some(Ok(5)));
    // In a page fault.
    let id = line.read(1);
    let buffer = line.requests.next_job(true, true).unwrap();
    assert!(line.requests.fault(id, true, 0));
    line.requests.cancel(id);
    line.complete();
    assert_eq!(line.result(id), Some(Err(ECANCELED)));
    assert!(line.requests.faulted_in(buffer, Ok(())).is_some());
    // Sent.
    let id = line.sent(10, true);
    line.requests.cancel(id);
    line.complete();
    assert_eq!(line.result(id), Some(Ok(1)));
    // Being submitted.
    let wants = line.read_wants();
    let id = line.add(1, wants);
    line.requests.cancel(id);
    let Armed::Answer(pending, answer) = line.requests.arm(id, &ALIVE) else {
        panic!("a cancel is forgotten");
    };
    pending.complete(answer);
    assert_eq!(line.result(id), Some(Err(ECANCELED)));
}

#[test]
fn write_that_is_cancelled_while_it_is_sent_is_completed() {
    let mut line = Line::new();
    let id = line.write(1);
    line.requests.begin_serving();
    drop(line.requests.next_job(true, true).unwrap());
    line.requests.cancel(id);
    line.requests.sent(id, 8, 8);
    line.requests.accept(8, 64);
    line.complete();
    assert_eq!(line.result(id), Some(Ok(8)));
}

#[test]
fn closing_a_file_costs_what_it_has_among_any_number_of_strangers() {
    let mut line = Line::new();
    let mut steps = Vec::new();
    for strangers in [10, 1000] {
        (0..strangers).for_each(|_| {
            line.read(1);
            line.read(3);
        });
        let own: Vec<Id> = (0..5).map(|_| line.read(2)).collect();
        let before = world::steps();
        assert_eq!(
            line.requests.cancel_of(FileId(2), ProcessId(1), 0, 64),
            None
        );
        steps.push(world::steps() - before);
        line.complete();
        assert!(own
            .iter()
            .all(|id| line.result(*id) == Some(Err(ECANCELED))));
    }
    assert_eq!(steps[0], steps[1]);
}

#[test]
fn closing_a_file_looks_at_a_bounded_number_and_spares_other_processes() {
    let mut line = Line::new();
    let ids: Vec<Id> = (0..10).map(|_| line.read(2)).collect();
    let next = line.requests.cancel_of(FileId(2), ProcessId(1), 0, 4);
    assert_eq!(next, Some(ids[4]));
    assert_eq!(
        line.requests.cancel_of(FileId(2), ProcessId(9), 0, 64),
        None
    );
    line.complete();
    let ended = ids.iter().filter(|id| line.result(**id).is_some()).count();
    assert_eq!(ended, 4);
}

#[test]
fn abort_ends_a_bounded_number_and_says_that_there_may_be_more() {
    let mut line = Line::new();
    let ids: Vec<Id> = (0..10).map(|_| line.read(1)).collect();
    assert!(line.requests.abort(EIO, 4));
    assert!(line.requests.abort(EIO, 4));
    assert!(!line.requests.abort(EIO, 4));
    line.complete();
    assert!(ids.iter().all(|id| line.result(*id) == Some(Err(EIO))));
}

#[test]
fn aborted_write_that_the_device_has_is_a_success() {
    let mut line = Line::new();
    let (a, b) = (line.sent(10, true), line.sent(20, true));
    assert!(!line.requests.abort_sent(10, EIO, 64));
    line.complete();
    assert_eq!(
        (line.result(a), line.result(b)),
        (Some(Ok(1)), Some(Err(EIO)))
    );
}
