// SPDX-License-Identifier: GPL-2.0-only

//! Calls and requests of one FIFO, in schedules that a guest meets rarely.

use super::machine::{byte_at, Call, Machine, AIO, NOWAIT, WAIT};
use crate::iov::UserBuffer;
use crate::kapi::fasync::Band;
use crate::kapi::file_operations::Mode;
use crate::kapi::wait::Events;
use crate::prelude::*;
use crate::virtio_fifo::{STATE_HANGUP, STATE_RX_END};
use crate::world::{self, Point};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

#[test]
fn read_gets_what_the_device_sent() {
    let machine = Machine::new(4096, 0, 16);
    machine.device.borrow_mut().host_write(100);
    machine.device.borrow_mut().send(100);
    machine.interrupts();
    let read = machine.read(NOWAIT, 200);
    assert_eq!(read.result(), Some(Ok(100)));
    assert_eq!(read.got(), (0..100).map(byte_at).collect::<Vec<_>>());
}

#[test]
fn deferred_read_is_completed_by_data() {
    let machine = Machine::new(4096, 0, 16);
    let read = machine.read(AIO, 200);
    assert_eq!(read.result(), None);
    machine.device.borrow_mut().host_write(100);
    machine.quiesce();
    assert_eq!(read.result(), Some(Ok(100)));
}

#[test]
fn writes_reach_the_device_in_order() {
    let machine = Machine::new(4096, 0, 16);
    for byte in 0..10 {
        assert_eq!(machine.write(WAIT, vec![byte; 100]).result(), Some(Ok(100)));
    }
    machine.quiesce();
    let expected: Vec<u8> = (0..10).flat_map(|byte| [byte; 100]).collect();
    assert_eq!(machine.device.borrow().accepted, expected);
}

#[cfg(GLOBALFIFO_FAST)]
#[test]
fn small_writes_join_the_message_that_is_held() {
    let machine = Machine::new(4096, 0, 16);
    for byte in 0..20 {
        assert_eq!(machine.write(WAIT, vec![byte; 64]).result(), Some(Ok(64)));
    }
    // The first was posted at once.
    assert_eq!(format!("{:?}", machine.fifo.stats.tx_messages), "1");
    machine.quiesce();
    assert_eq!(format!("{:?}", machine.fifo.stats.tx_messages), "2");
    let expected: Vec<u8> = (0..20).flat_map(|byte| [byte; 64]).collect();
    assert_eq!(machine.device.borrow().accepted, expected);
}

#[test]
fn clear_completes_a_write_whose_bytes_were_never_posted_behind_one_that_is_being_submitted() {
    // Two descriptors: what is written after them is not posted.
    let machine = Rc::new(Machine::new(4096, 0, 2));
    let early: Vec<Call> = (0..3)
        .map(|byte| machine.write(AIO, vec![byte; 100]))
        .collect();
    assert!(early.iter().all(|write| write.result().is_none()));
    let other = machine.clone();
    world::at(Point::Submitting, move || other.clear().unwrap());
    let late = machine.write(AIO, vec![9; 100]);
    machine.settle();
    for write in early.iter().chain([&late]) {
        assert_eq!(write.result(), Some(Ok(100)));
    }
}

#[test]
fn sigio_follows_a_read_that_met_another_readers_turn() {
    let machine = Rc::new(Machine::new(4096, 0, 16));
    machine.device.borrow_mut().host_write(100);
    machine.device.borrow_mut().send(100);
    machine.interrupts();
    let other = machine.clone();
    world::at(Point::CopyToUser, move || {
        assert_eq!(other.read(NOWAIT, 10).result(), Some(Err(EAGAIN)));
    });
    let before = machine.signals.count();
    assert_eq!(machine.read(NOWAIT, 50).result(), Some(Ok(50)));
    assert!(machine.signals.signalled(before, &[Band::In]));
}

#[test]
fn sigio_follows_a_read_that_met_another_readers_page_fault() {
    let machine = Rc::new(Machine::new(4096, 0, 16));
    machine.device.borrow_mut().host_write(100);
    machine.device.borrow_mut().send(100);
    machine.interrupts();
    let (other, counts) = (machine.clone(), Rc::new(Cell::new((0, 0))));
    let at_refusal = counts.clone();
    world::at(Point::Fault, move || {
        assert_eq!(other.read(NOWAIT, 200).result(), Some(Err(EAGAIN)));
        assert!(!other.poll().contains(Events::IN));
        at_refusal.set((other.signals.count(), other.fifo.notifier.wait.count()));
    });
    let buffer = UserBuffer::new(vec![0; 10]);
    buffer.present.set(0);
    let read = Call::read(&machine.file, WAIT, buffer);
    assert_eq!(read.result(), Some(Ok(10)));
    let (signals, wakes) = counts.get();
    assert!(machine.signals.signalled(signals, &[Band::In]));
    assert!(machine.fifo.notifier.wait.woke(wakes, Events::IN));
    assert_eq!(machine.read(NOWAIT, 200).result(), Some(Ok(90)));
}

/// With so many bytes that have arrived.
fn machine_with(bytes: u16) -> Rc<Machine> {
    let machine = Rc::new(Machine::new(4096, 0, 16));
    machine.device.borrow_mut().host_write(bytes.into());
    machine.device.borrow_mut().send(bytes.into());
    machine.interrupts();
    machine
}

/// Of these bytes, the first are there.
fn buffer_with(length: usize, present: usize) -> Rc<UserBuffer> {
    let buffer = UserBuffer::new(vec![0; length]);
    buffer.present.set(present);
    buffer
}

#[test]
fn an_edge_and_sigio_follow_a_submission_that_a_page_fault_cut_short() {
    let machine = machine_with(2000);
    let counts = (machine.signals.count(), machine.fifo.notifier.wait.count());
    let read = Call::read(&machine.file, AIO, buffer_with(2000, 100));
    assert_eq!(read.result(), Some(Ok(100)));
    assert!(machine.signals.signalled(counts.0, &[Band::In]));
    assert!(machine.fifo.notifier.wait.woke(counts.1, Events::IN));
}

/// At the next page fault: the time for which the line is held ends, another reader takes 10 bytes, and `then` happens. Signals
/// and wake-ups until then.
fn overtaken_at_fault(
    machine: &Rc<Machine>,
    then: impl FnOnce() + 'static,
) -> Rc<Cell<(usize, usize)>> {
    let (other, counts) = (machine.clone(), Rc::new(Cell::new((0, 0))));
    let at_fault = counts.clone();
    world::at(Point::Fault, move || {
        world::pass(2_000_000);
        other.fifo.as_arc_borrow().check_missed();
        assert_eq!(other.read(NOWAIT, 10).result(), Some(Ok(10)));
        at_fault.set((other.signals.count(), other.fifo.notifier.wait.count()));
        then();
    });
    counts
}

#[test]
fn an_edge_and_sigio_follow_a_call_that_a_page_fault_and_another_reader_cut_short() {
    let machine = machine_with(1000);
    let counts = overtaken_at_fault(&machine, || {});
    let read = Call::read(&machine.file, WAIT, buffer_with(1000, 100));
    assert_eq!(read.result(), Some(Ok(100)));
    let (signals, wakes) = counts.get();
    assert!(machine.signals.signalled(signals, &[Band::In]));
    assert!(machine.fifo.notifier.wait.woke(wakes, Events::IN));
    assert_eq!(machine.read(NOWAIT, 2000).result(), Some(Ok(890)));
}

#[test]
fn an_edge_and_sigio_follow_a_request_that_is_cancelled_in_its_page_fault() {
    let machine = Rc::new(Machine::new(4096, 0, 16));
    let read = Rc::new(Call::read(&machine.file, AIO, buffer_with(1000, 100)));
    let cancelled = read.clone();
    let counts = overtaken_at_fault(&machine, move || cancelled.cancel());
    machine.device.borrow_mut().host_write(1000);
    machine.device.borrow_mut().send(1000);
    machine.interrupts();
    machine.quiesce();
    assert_eq!(read.result(), Some(Ok(100)));
    let (signals, wakes) = counts.get();
    assert!(machine.signals.signalled(signals, &[Band::In]));
    assert!(machine.fifo.notifier.wait.woke(wakes, Events::IN));
}

/// The time with interrupts off, counted in requests looked at and messages moved: 64 of each, and some. A step takes well
/// below a microsecond where the CPU is real.
#[test]
fn no_hold_of_the_lock_grows_with_what_is_queued() {
    let mut longest = Vec::new();
    for count in [500, 2000] {
        let machine = Machine::new(4096, 0, 1024);
        let other = machine.open();
        let reads: Vec<Call> = (0..count).map(|_| machine.read(AIO, 1)).collect();
        let others: Vec<Call> = (0..count)
            .map(|_| Call::read(&other, AIO, UserBuffer::new(vec![0; 1])))
            .collect();
        let writes: Vec<Call> = (0..count)
            .map(|_| machine.write(AIO, vec![1; 10]))
            .collect();
        machine.device.borrow_mut().host_write(200);
        for _ in 0..200 {
            machine.device.borrow_mut().send(1);
        }
        machine.quiesce();
        machine.device.borrow_mut().host_read(1000);
        machine.event();
        machine.quiesce();
        machine.suspend_and_resume(|| {});
        machine.quiesce();
        machine.close_file(&other);
        machine.quiesce();
        machine.clear().unwrap();
        machine.quiesce();
        machine.fifo.as_arc_borrow().close();
        drop(machine.fifo.as_arc_borrow().detach());
        machine.settle();
        let calls = reads.iter().chain(&others).chain(&writes);
        assert!(calls.map(Call::result).all(|result| result.is_some()));
        longest.push(world::longest_hold());
    }
    assert!(longest.iter().all(|steps| *steps <= 3 * 64), "{longest:?}");
}

#[test]
fn read_whose_buffer_never_comes_can_be_cancelled() {
    let machine = Machine::new(4096, 0, 16);
    let buffer = UserBuffer::new(vec![0; 100]);
    buffer.present.set(0);
    let read = Call::read(&machine.file, AIO, buffer);
    machine.device.borrow_mut().host_write(10);
    machine.device.borrow_mut().send(10);
    machine.interrupts();
    // The server meets the fault; the work that faults in has not run.
    assert!(world::run_one_work());
    read.cancel();
    machine.settle();
    assert_eq!(read.result(), Some(Err(ECANCELED)));
    assert!(machine.poll().contains(Events::IN));
}

#[test]
fn write_during_a_reset_does_not_join_what_the_device_accepted() {
    let machine = Machine::new(100, 0, 4);
    assert_eq!(machine.write(WAIT, vec![1; 10]).result(), Some(Ok(10)));
    machine.suspend_and_resume(|| {
        assert_eq!(machine.write(WAIT, vec![2; 10]).result(), Some(Ok(10)));
    });
    machine.quiesce();
    assert_eq!(
        machine.device.borrow().accepted,
        [[1; 10], [2; 10]].concat()
    );
}

#[test]
fn bytes_that_the_device_has_not_sent_again_are_not_acknowledged_after_a_reset() {
    let machine = Machine::new(100, 0, 4);
    machine.device.borrow_mut().host_write(10);
    machine.device.borrow_mut().send(10);
    machine.interrupts();
    machine.suspend_and_resume(|| {});
    assert_eq!(machine.read(WAIT, 10).result(), Some(Ok(10)));
    // The device checks what it is told.
    world::pass(20_000);
    machine.device.borrow_mut().accept();
    machine.quiesce();
    assert_eq!(machine.device.borrow().rx_floor, 10);
}

// In the fast edition the interrupt itself serves the request, whose memory is pinned.
#[cfg(not(GLOBALFIFO_FAST))]
#[test]
fn end_is_told_to_a_reader_who_came_behind_a_request() {
    let machine = Machine::new(100, 0, 4);
    let request = machine.read(AIO, 10);
    machine.device.borrow_mut().flags = STATE_HANGUP;
    machine.event();
    // The server has not run.
    let before = machine.fifo.notifier.wait.count();
    assert_eq!(machine.read(NOWAIT, 10).result(), Some(Err(EAGAIN)));
    machine.settle();
    assert_eq!(request.result(), Some(Ok(0)));
    assert!(machine.fifo.notifier.wait.woke(before, Events::IN));
}

#[test]
fn write_that_is_cancelled_while_the_server_copies_it_is_completed() {
    let machine = Rc::new(Machine::new(10, 0, 4));
    assert_eq!(machine.write(WAIT, vec![1; 10]).result(), Some(Ok(10)));
    let write = Rc::new(machine.write(AIO, vec![2; 5]));
    let cancelled = write.clone();
    world::at(Point::CopyFromUser, move || cancelled.cancel());
    machine.quiesce();
    machine.device.borrow_mut().host_read(10);
    machine.event();
    machine.quiesce();
    assert_eq!(write.result(), Some(Ok(5)));
}

#[test]
fn clear_completes_a_write_that_was_faulted_in_and_overtaken() {
    let machine = Rc::new(Machine::new(100, 0, 1));
    let buffer = UserBuffer::new(vec![1; 10]);
    buffer.present.set(0);
    let first = Call::write(&machine.file, AIO, buffer);
    // The server meets the fault; the work that faults in comes later.
    let second = machine.write(AIO, vec![2; 10]);
    machine.settle();
    machine.clear().unwrap();
    machine.quiesce();
    assert_eq!(
        (first.result(), second.result()),
        (Some(Ok(10)), Some(Ok(10)))
    );
}

/// References to the machine's file at a completion, beside those that there were before and the call's own.
fn keepers_at_completion(machine: &Rc<Machine>, submit: impl FnOnce() -> Call) -> isize {
    let before = machine.file.references();
    let seen = Rc::new(Cell::new(None));
    let call = submit();
    let (file, at_completion) = (machine.file.clone(), seen.clone());
    world::at(Point::Completing, move || {
        at_completion.set(Some(file.references() as isize - 2 - before as isize));
    });
    machine.device.borrow_mut().host_write(10);
    machine.device.borrow_mut().send(10);
    machine.quiesce();
    assert!(call.result().is_some());
    seen.get().unwrap()
}

#[test]
fn nothing_of_a_request_keeps_its_file_when_it_is_completed() {
    let machine = Rc::new(Machine::new(4096, 0, 16));
    // Its memory is pinned in the fast edition: the interrupt serves it.
    assert_eq!(keepers_at_completion(&machine, || machine.read(AIO, 10)), 0);
    // Too large for that: the server serves it.
    let call = || machine.read(AIO, 100_000);
    assert_eq!(keepers_at_completion(&machine, call), 0);
}

#[test]
fn memory_that_page_faults_do_not_make_accessible_is_efault() {
    for how in [WAIT, AIO] {
        let machine = machine_with(100);
        let buffer = buffer_with(100, 0);
        buffer.is_inaccessible.set(true);
        let read = Call::read(&machine.file, how, buffer);
        machine.quiesce();
        assert_eq!(read.result(), Some(Err(EFAULT)));
        assert_eq!(machine.read(NOWAIT, 200).result(), Some(Ok(100)));
    }
}

#[test]
fn pinned_read_that_was_served_in_part_goes_on_where_it_stands() {
    let machine = Rc::new(Machine::new(65536, 0, 16));
    machine.device.borrow_mut().host_write(9000);
    for _ in 0..9 {
        machine.device.borrow_mut().send(1000);
    }
    machine.interrupts();
    let buffer = buffer_with(8192, 8192);
    let (other, memory) = (machine.clone(), buffer.clone());
    let deferred = Rc::new(RefCell::new(None));
    let submitted = deferred.clone();
    // It comes while another reads, so that the server serves it, not an interrupt. Then half of its memory goes away.
    world::at(Point::CopyToUser, move || {
        submitted.replace(Some(Call::read(&other.file, AIO, memory.clone())));
        memory.present.set(4096);
    });
    assert_eq!(machine.read(NOWAIT, 10).result(), Some(Ok(10)));
    machine.quiesce();
    let read = deferred.take().unwrap();
    assert_eq!(read.result(), Some(Ok(8192)));
    assert_eq!(read.got(), (10..8202).map(byte_at).collect::<Vec<_>>());
}

#[test]
fn end_after_an_end_of_data_is_a_signal_of_its_own() {
    let machine = Rc::new(Machine::new(4096, 0, 16));
    let lists = [(true, true), (true, false), (false, true)]
        .map(|(read, write)| machine.fifo.notifier.list_for(Mode { read, write }));
    let counts = || lists.each_ref().map(|list| list.count());
    let all_hear_of_an_end = |before: [usize; 3]| {
        for (list, count) in lists.iter().zip(before) {
            assert!(list.signalled(count, &[Band::Hup]));
            assert!(!list.signalled(count, &[Band::Err]));
        }
    };
    machine.device.borrow_mut().flags = STATE_RX_END;
    machine.event();
    let before = counts();
    machine.device.borrow_mut().flags = STATE_RX_END | STATE_HANGUP;
    machine.event();
    all_hear_of_an_end(before);
    let before = counts();
    machine.fifo.as_arc_borrow().close();
    all_hear_of_an_end(before);
}

#[test]
fn signals_to_many_files_are_sent_by_the_work_queue() {
    let machine = Rc::new(Machine::new(4096, 0, 16));
    for (files, is_at_once) in [(64, false), (60, true)] {
        machine.signals.files.set(files);
        let before = (machine.signals.count(), machine.fifo.notifier.wait.count());
        machine.device.borrow_mut().host_write(10);
        machine.device.borrow_mut().send(10);
        machine.interrupts();
        assert_eq!(machine.signals.count() > before.0, is_at_once);
        machine.settle();
        assert!(machine.signals.signalled(before.0, &[Band::In]));
        assert!(machine.fifo.notifier.wait.woke(before.1, Events::IN));
        assert_eq!(machine.read(NOWAIT, 20).result(), Some(Ok(10)));
    }
}
