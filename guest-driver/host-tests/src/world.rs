// SPDX-License-Identifier: GPL-2.0-only

//! What a test's thread has instead of a machine: a clock that is set, work and timers that run when they are told
//! to, and a log. One for each thread, so for each test.
//!
//! Must not know FIFOs.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

thread_local! {
    static NANOSECONDS: Cell<i64> = const { Cell::new(0) };
    static LOCKS: Cell<u32> = const { Cell::new(0) };
    static NO_FAULTS: Cell<u32> = const { Cell::new(0) };
    static STEPS: Cell<u64> = const { Cell::new(0) };
    static STEPS_AT_LOCK: Cell<u64> = const { Cell::new(0) };
    static LONGEST_HOLD: Cell<u64> = const { Cell::new(0) };
    static PROCESS: Cell<usize> = const { Cell::new(1) };
    static WORK: RefCell<VecDeque<(Rc<Cell<bool>>, Box<dyn FnOnce()>)>> = const { RefCell::new(VecDeque::new()) };
    static TIMERS: RefCell<Vec<(i64, usize, Box<dyn FnOnce()>)>> = const { RefCell::new(Vec::new()) };
    static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static HOOKS: RefCell<Vec<(Point, Box<dyn FnOnce()>)>> = const { RefCell::new(Vec::new()) };
    static COPIED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static IOCTL: Cell<i32> = const { Cell::new(0) };
    static DEVICE: RefCell<Option<Box<dyn Ask>>> = const { RefCell::new(None) };
}

/// Points in the driver's code at which others may be at work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// A task is about to sleep.
    Sleep,
    /// A read copies bytes to its buffer: it has the turn.
    CopyToUser,
    /// A write copies bytes from its buffer, after it has seen space.
    CopyFromUser,
    /// A page fault is taken, by a call or by a work.
    Fault,
    /// A request can be cancelled now, and is not armed yet.
    Submitting,
    /// A request is being completed: from here on user space may do anything with its file and its memory.
    Completing,
    /// The device is asked: a clear has discarded what was not posted.
    Asking,
}

/// The device's side of the control queue.
pub trait Ask {
    /// Answers a request, given and taken as bytes of the wire format; `None` when the device does not answer.
    fn ask(&mut self, request: &[u8; 16]) -> Option<[u8; 48]>;
}

/// Begins anew: for a test that runs many cases.
pub fn reset() {
    NANOSECONDS.set(0);
    WORK.take();
    TIMERS.take();
    LOG.take();
    HOOKS.take();
    DEVICE.take();
    COPIED.take();
    STEPS.set(0);
    LONGEST_HOLD.set(0);
    PROCESS.set(1);
    assert_eq!(LOCKS.get(), 0, "a lock is held");
}

/// Time since the beginning.
pub fn now() -> i64 {
    NANOSECONDS.get()
}

/// Lets time pass, and runs the timers that expire meanwhile.
pub fn pass(microseconds: i64) {
    let until = now() + microseconds * 1000;
    loop {
        let next = TIMERS.with_borrow(|timers| timers.iter().map(|timer| timer.0).min());
        let Some(next) = next.filter(|next| *next <= until) else {
            break;
        };
        NANOSECONDS.set(next.max(now()));
        let timer = TIMERS.with_borrow_mut(|timers| {
            let at = timers.iter().position(|timer| timer.0 == next)?;
            Some(timers.remove(at))
        });
        if let Some((_, _, call)) = timer {
            call();
        }
    }
    NANOSECONDS.set(until);
}

/// Time until the next timer, in microseconds, rounded up.
pub fn next_timer() -> Option<i64> {
    let next = TIMERS.with_borrow(|timers| timers.iter().map(|timer| timer.0).min());
    next.map(|next| (next - now()).max(0).div_euclid(1000) + 1)
}

/// Starts timer `id`, anew if it runs.
pub fn start_timer(id: usize, microseconds: u32, call: Box<dyn FnOnce()>) {
    stop_timer(id);
    let at = now() + i64::from(microseconds) * 1000;
    TIMERS.with_borrow_mut(|timers| timers.push((at, id, call)));
}

/// Stops timer `id`.
pub fn stop_timer(id: usize) {
    TIMERS.with_borrow_mut(|timers| timers.retain(|timer| timer.1 != id));
}

/// Queues work, which is not run while it `runs`.
pub fn queue_work(runs: Rc<Cell<bool>>, work: Box<dyn FnOnce()>) {
    WORK.with_borrow_mut(|queue| queue.push_back((runs, work)));
}

/// Runs the oldest work that does not run; whether there was any.
pub fn run_one_work() -> bool {
    let work = WORK.with_borrow_mut(|queue| {
        let at = queue.iter().position(|(runs, _)| !runs.get())?;
        queue.remove(at)
    });
    let Some((runs, work)) = work else {
        return false;
    };
    runs.set(true);
    work();
    runs.set(false);
    true
}

/// Runs all work but the oldest, until there is none; whether there was any.
///
/// # Panics
///
/// If it never ends.
pub fn run_work_but_the_oldest() -> bool {
    let oldest = WORK.with_borrow_mut(VecDeque::pop_front);
    let any = WORK.with_borrow(|queue| !queue.is_empty());
    run_work();
    WORK.with_borrow_mut(|queue| queue.extend(oldest));
    any
}

/// Runs work until there is none.
///
/// # Panics
///
/// If it never ends.
pub fn run_work() {
    for _ in 0..100_000 {
        if !run_one_work() {
            return;
        }
    }
    panic!("work without end");
}

/// A lock has been taken.
pub fn locked() {
    if LOCKS.get() == 0 {
        STEPS_AT_LOCK.set(STEPS.get());
    }
    LOCKS.set(LOCKS.get() + 1);
}

/// A lock has been released.
pub fn unlocked() {
    LOCKS.set(LOCKS.get() - 1);
    if LOCKS.get() == 0 {
        let steps = STEPS.get() - STEPS_AT_LOCK.get();
        LONGEST_HOLD.set(LONGEST_HOLD.get().max(steps));
    }
}

/// Checks that no lock is held.
///
/// # Panics
///
/// If one is.
pub fn assert_unlocked(what: &str) {
    assert_eq!(LOCKS.get(), 0, "{what} under a lock");
}

/// Page faults are not taken from here on, or (`false`) are again.
pub fn no_faults(begin: bool) {
    NO_FAULTS.set(if begin {
        NO_FAULTS.get() + 1
    } else {
        NO_FAULTS.get() - 1
    });
}

/// Whether page faults are taken.
pub fn takes_faults() -> bool {
    NO_FAULTS.get() == 0
}

/// Counts a step of a walk over requests, or a message that is moved.
pub fn step() {
    STEPS.set(STEPS.get() + 1);
}

/// Steps so far.
pub fn steps() -> u64 {
    STEPS.get()
}

/// Steps in one hold of a lock, at most, so far.
pub fn longest_hold() -> u64 {
    LONGEST_HOLD.get()
}

/// The process that the current task is of.
pub fn process() -> usize {
    PROCESS.get()
}

/// The current task is of `process` from here on.
pub fn become_process(process: usize) {
    PROCESS.set(process);
}

/// A line for the kernel's log.
pub fn log(line: String) {
    LOG.with_borrow_mut(|log| log.push(line));
}

/// Takes the log.
pub fn take_log() -> Vec<String> {
    LOG.take()
}

/// Has `call` run once, the next time that `point` is reached.
pub fn at(point: Point, call: impl FnOnce() + 'static) {
    HOOKS.with_borrow_mut(|hooks| hooks.push((point, Box::new(call))));
}

/// `point` is reached.
pub fn reach(point: Point) {
    let call = HOOKS.with_borrow_mut(|hooks| {
        let at = hooks.iter().position(|hook| hook.0 == point)?;
        Some(hooks.remove(at).1)
    });
    if let Some(call) = call {
        let saved = NO_FAULTS.replace(0);
        call();
        NO_FAULTS.set(saved);
    }
}

/// Forgets what was to run at `point` and was not.
pub fn forget(point: Point) {
    HOOKS.with_borrow_mut(|hooks| hooks.retain(|hook| hook.0 != point));
}

/// The device that answers requests.
pub fn set_device(device: impl Ask + 'static) {
    DEVICE.with_borrow_mut(|slot| *slot = Some(Box::new(device)));
}

/// Asks it.
pub fn ask(request: &[u8; 16]) -> Option<[u8; 48]> {
    reach(Point::Asking);
    DEVICE.with_borrow_mut(|device| device.as_mut()?.ask(request))
}

/// What an ioctl wrote to user space.
pub fn ioctl_result() -> i32 {
    IOCTL.get()
}

/// An ioctl writes to user space.
pub fn set_ioctl_result(value: i32) {
    IOCTL.set(value);
}

/// Bytes have been copied to user memory.
pub fn note_copied(bytes: &[u8]) {
    COPIED.with_borrow_mut(|copied| copied.extend_from_slice(bytes));
}

/// The bytes that were copied to user memory since the last time, in order.
pub fn take_copied() -> Vec<u8> {
    COPIED.take()
}
