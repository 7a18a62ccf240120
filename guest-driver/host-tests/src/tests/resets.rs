// SPDX-License-Identifier: GPL-2.0-only

//! Suspend, hibernation and resume: what is served meanwhile, and a device that has lost its state.

use super::machine::{Call, Machine, AIO, NOWAIT, WAIT};
use crate::iov::UserBuffer;
use crate::prelude::*;
use crate::virtio_fifo::State;
use crate::world::{self, Point};

/// The device sends all that it has, and interrupts; no work is run.
fn deliver(machine: &Machine) {
    while machine.device.borrow_mut().send(usize::MAX) {}
    machine.interrupts();
}

#[test]
fn requests_are_served_after_a_resume_by_the_server_alone() {
    // The server's work is frozen until user space is thawed. Before that a hibernating machine writes its image: what is
    // read or written now is not in it.
    let machine = Machine::new(100, 0, 16);
    assert_eq!(machine.write(WAIT, vec![1; 100]).result(), Some(Ok(100)));
    machine.quiesce();
    let read = machine.read(AIO, 10);
    let write = machine.write(AIO, vec![2; 10]);
    machine.settle();
    machine.suspend_and_resume(|| {});
    machine.device.borrow_mut().host_write(10);
    machine.device.borrow_mut().host_read(100);
    deliver(&machine);
    machine.event();
    world::pass(2_000_000);
    while machine.device.borrow_mut().accept() {}
    assert_eq!((read.result(), write.result()), (None, None));
    assert_eq!(machine.look(|state| state.tx.positions().0), 100);
    assert_eq!(machine.look(|state| state.rx.consumed()), 0);
    machine.quiesce();
    assert_eq!(
        (read.result(), write.result()),
        (Some(Ok(10)), Some(Ok(10)))
    );
}

#[test]
fn impossible_state_after_a_reset_fails_the_fifo_and_keeps_its_queues() {
    let machine = Machine::new(100, 0, 16);
    let read = machine.read(AIO, 10);
    let state = machine.device.borrow().state();
    machine.device.borrow_mut().lie = Some(State {
        capacity: 200,
        ..state
    });
    // A queue that is dropped resets the device, which sleeps: the stand-in asserts that no lock is held.
    machine.suspend_and_resume(|| {});
    machine.settle();
    assert_eq!(read.result(), Some(Err(EIO)));
    assert_eq!(machine.read(NOWAIT, 10).result(), Some(Err(EIO)));
    let (rx, tx) = machine.fifo.as_arc_borrow().detach();
    assert!(rx.is_some() && tx.is_some());
    assert_eq!(world::take_log().len(), 1);
}

#[test]
fn cancelled_requests_leave_nothing_behind_a_page_that_never_comes() {
    let machine = Machine::new(4096, 0, 16);
    machine.device.borrow_mut().host_write(10);
    deliver(&machine);
    let before = machine.file.references();
    let submit = || {
        let buffer = UserBuffer::new(vec![0; 100]);
        buffer.present.set(0);
        Call::read(&machine.file, AIO, buffer)
    };
    let first = submit();
    // The server meets the fault; the file's work does not run from here on. The others wait no longer.
    assert!(world::run_one_work());
    world::pass(2_000_000);
    machine.fifo.as_arc_borrow().check_missed();
    let of_one = machine.file.references() - before;
    for _ in 0..100 {
        let read = submit();
        assert!(world::run_work_but_the_oldest());
        assert_eq!(read.result(), None);
        read.cancel();
        assert!(world::run_work_but_the_oldest());
        assert_eq!(read.result(), Some(Err(ECANCELED)));
    }
    assert_eq!(machine.file.references() - before, of_one);
    // Another process closes its copy of the file, with a request of its own.
    world::become_process(2);
    let other = submit();
    assert!(world::run_work_but_the_oldest());
    machine.close_file(&machine.file);
    world::become_process(1);
    world::run_work_but_the_oldest();
    assert_eq!(other.result(), Some(Err(ECANCELED)));
    drop(other);
    assert_eq!(machine.file.references() - before, of_one);
    machine.settle();
    assert_eq!(first.result(), Some(Ok(10)));
}

#[test]
fn write_whose_page_goes_away_again_is_faulted_in_again() {
    let machine = Machine::new(100, 0, 16);
    assert_eq!(machine.write(WAIT, vec![1; 100]).result(), Some(Ok(100)));
    machine.quiesce();
    let buffer = UserBuffer::new(vec![2; 10]);
    buffer.present.set(0);
    let (pages, again) = (buffer.clone(), buffer.clone());
    let write = Call::write(&machine.file, AIO, buffer);
    machine.settle();
    world::at(Point::Fault, move || {
        world::at(Point::CopyFromUser, move || pages.present.set(0));
    });
    machine.device.borrow_mut().host_read(100);
    machine.event();
    machine.quiesce();
    assert_eq!(write.result(), Some(Ok(10)));
    assert_eq!(again.present.get(), 10);
}

#[test]
fn device_is_notified_of_buffers_that_a_reader_or_a_clear_gives_back() {
    let machine = Machine::new(4096, 0, 16);
    for clear in [false, true] {
        machine.device.borrow_mut().host_write(100);
        deliver(&machine);
        machine.device.borrow().rx.take_kick();
        if clear {
            // By the host: nobody acknowledges it.
            machine.device.borrow_mut().host_clear();
            machine.event();
        } else {
            assert_eq!(machine.read(WAIT, 100).result(), Some(Ok(100)));
        }
        assert!(machine.device.borrow().rx.take_kick(), "clear: {clear}");
    }
}
