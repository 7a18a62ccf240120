// SPDX-License-Identifier: GPL-2.0-only

//! A wait queue with keyed wake-ups, shared by blocking calls and `poll`.
//!
//! The kernel crate's condition variables wake without a key and wait with a lock held; a character
//! device wants one wait queue head, woken with the events that happened (`IOCB_CMD_POLL` and epoll
//! rely on that), and waits on a condition.
//!
//! C header: [`include/linux/wait.h`](srctree/include/linux/wait.h).

use super::bindings;
use core::ptr;
use kernel::{
    ffi::{
        c_int,
        c_uint,
        c_void, //
    },
    fs::File,
    prelude::*,
    sync::LockClassKey,
    time::{
        msecs_to_jiffies,
        Instant,
        Monotonic,
        Msecs, //
    },
    types::{
        NotThreadSafe,
        Opaque, //
    },
};

/// Poll events, as in `poll(2)`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Events(u32);

impl Events {
    /// Nothing happened.
    pub(crate) const NONE: Self = Self(0);
    /// Readable.
    pub(crate) const IN: Self =
        Self(bindings::GLOBALFIFO_EPOLLIN | bindings::GLOBALFIFO_EPOLLRDNORM);
    /// Writable.
    pub(crate) const OUT: Self =
        Self(bindings::GLOBALFIFO_EPOLLOUT | bindings::GLOBALFIFO_EPOLLWRNORM);
    /// Failed.
    pub(crate) const ERR: Self = Self(bindings::GLOBALFIFO_EPOLLERR);
    /// The other side sends nothing more.
    pub(crate) const READ_HUP: Self = Self(bindings::GLOBALFIFO_EPOLLRDHUP);
    /// The other side is gone, in both directions.
    pub(crate) const HUP: Self =
        Self(bindings::GLOBALFIFO_EPOLLHUP | bindings::GLOBALFIFO_EPOLLRDHUP);

    /// The bits as `poll` returns them.
    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `other` is in `self`.
    pub(crate) const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl core::ops::BitOr for Events {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl core::ops::BitOrAssign for Events {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

/// What a blocked task waits for, and so which wake-ups reach it.
#[derive(Clone, Copy)]
pub(crate) enum WaitFor {
    /// Data, or the end.
    Readable,
    /// Space, or the end.
    Writable,
}

/// How a wait without a signal ended.
#[derive(PartialEq, Eq)]
pub(crate) enum Waited {
    /// The condition holds.
    Done,
    /// The time is over and the condition does not hold.
    TimedOut,
}

/// Whether signals end a wait.
#[derive(Clone, Copy)]
pub(crate) enum Signals {
    /// A pending signal ends the wait with `ERESTARTSYS`.
    Interrupt,
    /// Only one that kills the process does.
    Kill,
    /// Only for waits that are short by their nature.
    Ignore,
}

/// Time between two looks of [`WaitQueue::wait_looking`].
const LOOK_MILLISECONDS: Msecs = 100;

/// A point in time.
#[derive(Clone, Copy)]
pub(crate) struct Deadline {
    from: Instant<Monotonic>,
    milliseconds: Msecs,
}

impl Deadline {
    /// In so many seconds.
    pub(crate) fn in_seconds(seconds: u8) -> Self {
        Self {
            from: Instant::now(),
            milliseconds: Msecs::from(seconds) * 1000,
        }
    }

    /// Milliseconds until then.
    fn left(&self) -> Msecs {
        let gone = Msecs::try_from(self.from.elapsed().as_millis()).unwrap_or(Msecs::MAX);
        self.milliseconds.saturating_sub(gone)
    }
}

/// `MAX_SCHEDULE_TIMEOUT`.
const FOREVER: isize = isize::MAX;

const ANY_END: u32 = Events::ERR.0 | Events::HUP.0;

/// `struct wait_queue_head`.
///
/// May be woken from any context. Its own lock is a leaf: nothing else is taken under it here, but
/// callbacks of epoll and AIO poll run under it, so no lock that a submission path holds may be held
/// while waking.
#[pin_data]
pub(crate) struct WaitQueue {
    #[pin]
    head: Opaque<bindings::wait_queue_head_t>,
}

// SAFETY: A wait queue head is made to be used from many threads; it locks by itself.
unsafe impl Send for WaitQueue {}
// SAFETY: As above.
unsafe impl Sync for WaitQueue {}

impl WaitQueue {
    /// Creates a wait queue; use [`new_wait_queue!`].
    pub(crate) fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `slot` is valid for writes; name and key are static.
            head <- Opaque::ffi_init(|slot| unsafe {
                bindings::__init_waitqueue_head(slot, name.as_char_ptr(), key.as_ptr())
            }),
        })
    }

    /// Wakes those who wait for any of `events`; of those who wait exclusively (EPOLLEXCLUSIVE) one,
    /// or all if it is the end. Returns whether anybody was waiting at all.
    pub(crate) fn wake(&self, events: Events) -> bool {
        // SAFETY: `head` was initialised by `new`; the key is the events, as `wake_up_poll` passes
        // them.
        unsafe {
            let head = self.head.get();
            // Only a statistic: a waiter that comes now looks at the condition itself.
            let waiters = !ptr::eq((*head).head.next, &raw const (*head).head);
            bindings::__wake_up(
                head,
                bindings::TASK_NORMAL,
                i32::from(events.0 & ANY_END == 0),
                events.0 as usize as *mut c_void,
            );
            waiters
        }
    }

    /// Registers the wait queue with a poll in progress.
    pub(crate) fn poll_wait(&self, file: &File, table: &mut PollTable) {
        // SAFETY: The file is valid and `table` null or valid for the call, by its type's
        // invariants. The wait queue outlives the registration: it belongs to an object that the
        // file keeps alive, and poll, epoll and AIO unregister before they let go of the file.
        unsafe { bindings::poll_wait(file.as_ptr(), self.head.get(), table.0) };
    }

    /// As [`WaitQueue::wait`], but does not rely on being woken: until `deadline`, runs `look` again
    /// and again. In it, what changes the condition may be done by the task itself.
    pub(crate) fn wait_looking(
        &self,
        what: WaitFor,
        signals: Signals,
        deadline: Deadline,
        mut look: impl FnMut(),
        mut condition: impl FnMut() -> bool,
    ) -> Result<Waited> {
        loop {
            let left = deadline.left();
            let step = left.min(LOOK_MILLISECONDS);
            if self.wait(what, signals, Some(step), &mut condition)? == Waited::Done {
                return Ok(Waited::Done);
            }
            look();
            if left == 0 {
                let done = condition();
                return Ok(if done { Waited::Done } else { Waited::TimedOut });
            }
        }
    }

    /// Waits until `condition` holds, at most `milliseconds`.
    ///
    /// `condition` is called without any lock held, with the task's state already set: it must not
    /// sleep.
    pub(crate) fn wait(
        &self,
        what: WaitFor,
        signals: Signals,
        milliseconds: Option<Msecs>,
        mut condition: impl FnMut() -> bool,
    ) -> Result<Waited> {
        let state = match signals {
            Signals::Interrupt => bindings::GLOBALFIFO_TASK_INTERRUPTIBLE,
            Signals::Kill => bindings::GLOBALFIFO_TASK_KILLABLE,
            Signals::Ignore => bindings::GLOBALFIFO_TASK_UNINTERRUPTIBLE,
        };
        let mut left = milliseconds.map_or(FOREVER, |limit| {
            isize::try_from(msecs_to_jiffies(limit)).unwrap_or(FOREVER)
        });
        let mut entry = bindings::wait_queue_entry::default();
        let entry = &raw mut entry;
        // SAFETY: `entry` is valid, and stays where it is until `finish_wait` below has taken it
        // off the queue.
        unsafe {
            bindings::init_wait_entry(entry, 0);
            (*entry).func = Some(match what {
                WaitFor::Readable => wake_if::<{ Events::IN.0 | ANY_END }>,
                WaitFor::Writable => wake_if::<{ Events::OUT.0 | ANY_END }>,
            });
        }
        let waited = loop {
            // SAFETY: The queue and the entry are initialised.
            let signalled =
                unsafe { bindings::prepare_to_wait_event(self.head.get(), entry, state as c_int) };
            if condition() {
                break Ok(Waited::Done);
            }
            if signalled != 0 {
                break Err(ERESTARTSYS);
            }
            if left == 0 {
                break Ok(Waited::TimedOut);
            }
            // SAFETY: Called from process context, which whoever waits is in.
            left = unsafe { bindings::schedule_timeout(left) };
        };
        // SAFETY: The queue and the entry are initialised. After this the entry is off the queue.
        unsafe { bindings::finish_wait(self.head.get(), entry) };
        waited
    }
}

/// Lets the CPU rest for a moment of a loop that looks for something; whether the task should rather
/// sleep, as others want the CPU or there is a signal for it.
pub(crate) fn relax() -> bool {
    // SAFETY: May be called by any task.
    unsafe { bindings::globalfifo_relax() }
}

/// Whether another task was woken that is to have this CPU in its turn, be it at the next tick only (where the kernel
/// preempts lazily, which [`relax`] does not mind).
pub(crate) fn others_want_cpu() -> bool {
    // SAFETY: May be called by any task.
    unsafe { bindings::globalfifo_others_want_cpu() }
}

/// While it exists, the task keeps its CPU, except for interrupts. It must not sleep.
pub(crate) struct NoPreemption(NotThreadSafe);

impl NoPreemption {
    /// From now on.
    pub(crate) fn new() -> Self {
        // SAFETY: Undone by `drop`, on the same CPU.
        unsafe { bindings::globalfifo_preempt_disable() };
        Self(NotThreadSafe)
    }
}

impl Drop for NoPreemption {
    fn drop(&mut self) {
        // SAFETY: Done by `new`.
        unsafe { bindings::globalfifo_preempt_enable() };
    }
}

/// Wakes a waiter only when the wake-up's key has one of the events in `MASK`, or has no key.
///
/// # Safety
///
/// A `wait_queue_func_t`: called by `__wake_up` with an entry of the queue.
unsafe extern "C" fn wake_if<const MASK: u32>(
    entry: *mut bindings::wait_queue_entry,
    mode: c_uint,
    flags: c_int,
    key: *mut c_void,
) -> c_int {
    if !key.is_null() && (key as usize as u32) & MASK == 0 {
        return 0;
    }
    // SAFETY: The arguments are the caller's own.
    unsafe { bindings::autoremove_wake_function(entry, mode, flags, key) }
}

/// Where a `poll` registers: `struct poll_table_struct`.
///
/// # Invariants
///
/// Null, or valid for the duration of the file operation it was made for.
pub(crate) struct PollTable(*mut bindings::poll_table);

impl PollTable {
    /// Wraps what the `poll` file operation got.
    ///
    /// # Safety
    ///
    /// `table` is null or valid for as long as the returned value exists.
    pub(crate) unsafe fn from_raw(table: *mut bindings::poll_table) -> Self {
        // INVARIANT: By the safety requirements.
        Self(table)
    }

    /// Whether the caller wants to know of `events`, or of all there are: C's `poll_requested_events()`.
    pub(crate) fn asks_for(&self, events: Events) -> bool {
        // SAFETY: By the type invariants the table is valid unless it is null.
        self.0.is_null() || unsafe { (*self.0)._key } & events.bits() != 0
    }
}

/// Creates a [`WaitQueue`] initialiser with the given name and a lock class of its own.
macro_rules! new_wait_queue {
    ($name:literal) => {
        $crate::kapi::wait::WaitQueue::new(
            kernel::optional_name!($name),
            kernel::static_lock_class!(),
        )
    };
}
pub(crate) use new_wait_queue;
