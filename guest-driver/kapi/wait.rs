// SPDX-License-Identifier: GPL-2.0-only

//! A wait queue with keyed wake-ups, shared by blocking calls and `poll`.
//!
//! The kernel crate's condition variables wake without a key. A character device has one wait queue
//! head, woken with the events that happened: `IOCB_CMD_POLL` takes no second one, and epoll wakes
//! by the key.
//!
//! C header: [`include/linux/wait.h`](srctree/include/linux/wait.h).

use super::bindings;
use core::{
    ops::Deref,
    ptr, //
};
use kernel::{
    ffi::{
        c_int,
        c_uint,
        c_void, //
    },
    prelude::*,
    sync::LockClassKey,
    time::{
        msecs_to_jiffies,
        Instant,
        Monotonic,
        Msecs, //
    },
    types::Opaque, //
};

/// Poll events, as in `poll(2)`.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
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
    /// The other side is gone, in both directions: what a hang-up adds to an end of data.
    pub(crate) const ALL_HUP: Self = Self(bindings::GLOBALFIFO_EPOLLHUP);
    /// The other side is gone, in both directions; that it sends nothing more is part of it.
    pub(crate) const HUP: Self =
        Self(bindings::GLOBALFIFO_EPOLLHUP | bindings::GLOBALFIFO_EPOLLRDHUP);

    /// The bits as `poll` returns them.
    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    /// The events that `self` has and `before` has not.
    pub(crate) const fn since(self, before: Self) -> Self {
        Self(self.0 & !before.0)
    }

    /// The events that both have.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// All but `others`.
    pub(crate) const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
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

/// Condition of a blocked task, and so which wake-ups reach it.
#[derive(Clone, Copy)]
pub(crate) enum WaitFor {
    /// Data, or the end.
    Readable,
    /// Space, or the end.
    Writable,
}

/// End of a wait without a signal.
#[derive(PartialEq, Eq)]
pub(crate) enum Waited {
    /// The condition holds.
    Done,
    /// The time is over and the condition does not hold.
    TimedOut,
}

/// Signals that end a wait.
#[derive(Clone, Copy)]
pub(crate) enum Signals {
    /// A pending signal ends the wait with `ERESTARTSYS`.
    Interrupt,
    /// A signal that kills the process ends the wait with `ERESTARTSYS`.
    Kill,
    /// As [`Signals::Kill`], and the freezer waits for the task: for bounded waits of one that
    /// holds others up, such as a device that is being resumed.
    KillAwake,
    /// None: for waits with a short bound.
    Ignore,
}

/// Time between two checks of [`WaitQueue::wait_rechecking`].
const RECHECK_MILLISECONDS: Msecs = 100;

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

    /// The end of time.
    pub(crate) fn never() -> Self {
        Self {
            from: Instant::now(),
            milliseconds: Msecs::MAX,
        }
    }

    /// Milliseconds until then.
    fn left(&self) -> Msecs {
        if self.milliseconds == Msecs::MAX {
            return Msecs::MAX;
        }
        let gone = Msecs::try_from(self.from.elapsed().as_millis()).unwrap_or(Msecs::MAX);
        self.milliseconds.saturating_sub(gone)
    }
}

/// `MAX_SCHEDULE_TIMEOUT`.
const FOREVER: isize = isize::MAX;

const ANY_END: u32 = Events::ERR.0 | Events::HUP.0;

/// `struct wait_queue_head`, for tasks.
///
/// May be woken from any context. Its own lock is a leaf.
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

    /// Wakes those who wait for any of `events`; of those who wait exclusively (EPOLLEXCLUSIVE)
    /// one, or all if it is the end. Returns whether anybody was waiting at all.
    pub(crate) fn wake(&self, events: Events) -> bool {
        // SAFETY: `head` was initialised by `new`; the key is the events, as `wake_up_poll` passes
        // them.
        unsafe {
            let head = self.head.get();
            // Only a statistic: a waiter that comes now checks the condition itself.
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

    /// As [`WaitQueue::wait`] until `deadline`, without relying on wake-ups: every
    /// [`RECHECK_MILLISECONDS`] it runs `recheck`, which may bring about the condition.
    pub(crate) fn wait_rechecking(
        &self,
        what: WaitFor,
        signals: Signals,
        deadline: Deadline,
        mut recheck: impl FnMut(),
        mut condition: impl FnMut() -> bool,
    ) -> Result<Waited> {
        loop {
            let left = deadline.left();
            let step = left.min(RECHECK_MILLISECONDS);
            if self.wait(what, signals, Some(step), &mut condition)? == Waited::Done {
                return Ok(Waited::Done);
            }
            recheck();
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
            Signals::KillAwake => bindings::GLOBALFIFO_TASK_KILLABLE_AWAKE,
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

/// A [`WaitQueue`] that `poll` can register with, too. Dropped where sleeping is allowed.
///
/// Callbacks of epoll and AIO poll run under its lock: no lock that a submission path holds may be
/// held while waking.
#[pin_data(PinnedDrop)]
pub(crate) struct PollQueue {
    #[pin]
    queue: WaitQueue,
}

impl PollQueue {
    /// Creates the queue; use [`new_poll_queue!`].
    pub(crate) fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self {
            queue <- WaitQueue::new(name, key),
        })
    }

    /// The C structure.
    pub(super) fn as_raw(&self) -> *mut bindings::wait_queue_head_t {
        self.queue.head.get()
    }
}

impl Deref for PollQueue {
    type Target = WaitQueue;

    fn deref(&self) -> &WaitQueue {
        &self.queue
    }
}

#[pinned_drop]
impl PinnedDrop for PollQueue {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: `head` was initialised by `new`. As `PollCondVar` of the kernel crate: epoll and
        // AIO poll let go of a queue that is freed, those that are at it within an RCU grace
        // period.
        unsafe {
            bindings::__wake_up_pollfree(self.as_raw());
            bindings::synchronize_rcu_expedited();
        }
    }
}

/// Creates a [`PollQueue`] initialiser with the given name and a lock class of its own.
macro_rules! new_poll_queue {
    ($name:literal) => {
        $crate::kapi::wait::PollQueue::new(
            kernel::optional_name!($name),
            kernel::static_lock_class!(),
        )
    };
}
pub(crate) use new_poll_queue;

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
