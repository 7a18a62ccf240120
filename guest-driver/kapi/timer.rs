// SPDX-License-Identifier: GPL-2.0-only

//! A timer for microseconds, whose owner is told in hard interrupt context.
//!
//! The kernel crate's timers give a handle for each start, which waits for the timer when it is
//! dropped: not for those who start it in an interrupt and do not wait for it.
//!
//! C header: [`include/linux/hrtimer.h`](srctree/include/linux/hrtimer.h).

use super::{
    bindings,
    lock::{
        new_spinlock_irq,
        SpinLockIrq, //
    },
};
use kernel::{
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    types::Opaque, //
};

/// What a [`Timer`] does. What has several of them tells them apart by `ID`.
pub(crate) trait TimerCallback<const ID: u64>: Send + Sync {
    /// The time is over. Called in hard interrupt context.
    fn expired(self: ArcBorrow<'_, Self>);
}

/// `struct hrtimer`, of CLOCK_MONOTONIC.
///
/// From its first start to [`Timer::cancel`] it keeps its target alive, which can be what it is a
/// part of. So the target is never dropped by the callback, in an interrupt: [`Timer::cancel`] does
/// that, or nobody.
#[pin_data(PinnedDrop)]
#[repr(C)]
pub(crate) struct Timer<T: TimerCallback<ID>, const ID: u64> {
    #[pin]
    timer: Opaque<bindings::hrtimer>,
    /// Target of the callback. Leaf: taken in any context, nothing is taken under it.
    #[pin]
    target: SpinLockIrq<Option<Arc<T>>>,
}

// SAFETY: An hrtimer may be used from any thread; it locks by itself.
unsafe impl<T: TimerCallback<ID>, const ID: u64> Send for Timer<T, ID> {}
// SAFETY: As above.
unsafe impl<T: TimerCallback<ID>, const ID: u64> Sync for Timer<T, ID> {}

impl<T: TimerCallback<ID>, const ID: u64> Timer<T, ID> {
    /// A timer that does not run.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `slot` is valid for writes and pinned.
            timer <- Opaque::ffi_init(|slot| unsafe {
                bindings::hrtimer_setup(
                    slot,
                    Some(expired::<T, ID>),
                    bindings::CLOCK_MONOTONIC as i32,
                    bindings::hrtimer_mode_HRTIMER_MODE_REL,
                )
            }),
            target <- new_spinlock_irq!(None, "Timer::target"),
        })
    }

    /// Calls back in so many microseconds, once: `target`, or that of the first start. From any
    /// context.
    pub(crate) fn start(&self, target: ArcBorrow<'_, T>, microseconds: u32) {
        self.target.lock().get_or_insert_with(|| target.into());
        // SAFETY: The timer was set up by `new`, and is not moved.
        unsafe {
            bindings::hrtimer_start_range_ns(
                self.timer.get(),
                i64::from(microseconds) * 1000,
                0,
                bindings::hrtimer_mode_HRTIMER_MODE_REL,
            );
        }
    }

    /// Stops it, and waits if it is just telling. May sleep.
    pub(crate) fn cancel(&self) {
        // SAFETY: The timer was set up by `new`.
        unsafe { bindings::hrtimer_cancel(self.timer.get()) };
        let target = self.target.lock().take();
        drop(target);
    }
}

#[pinned_drop]
impl<T: TimerCallback<ID>, const ID: u64> PinnedDrop for Timer<T, ID> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The timer was set up by `new`. The callback is over when this returns.
        unsafe { bindings::hrtimer_cancel(self.timer.get()) };
    }
}

/// # Safety
///
/// The callback of a timer that [`Timer::new`] set up for this `T` and `ID`.
unsafe extern "C" fn expired<T: TimerCallback<ID>, const ID: u64>(
    timer: *mut bindings::hrtimer,
) -> bindings::hrtimer_restart {
    // SAFETY: The timer is the first field of a `Timer<T, ID>`, whose drop waits for this callback.
    let timer = unsafe { &*timer.cast::<Timer<T, ID>>() };
    // Another reference stays in the timer, as `cancel` waits for this callback before it takes
    // that.
    let target = timer.target.lock().clone();
    if let Some(target) = &target {
        T::expired(target.as_arc_borrow());
    }
    no_restart()
}

/// `HRTIMER_NORESTART`: kernel crates have `enum hrtimer_restart` as a number, or as a type of its
/// own.
#[allow(clippy::useless_transmute)]
const fn no_restart() -> bindings::hrtimer_restart {
    const VALUE: u32 = bindings::GLOBALFIFO_HRTIMER_NORESTART;
    // SAFETY: Either is a C enum of this value.
    unsafe { core::mem::transmute::<u32, bindings::hrtimer_restart>(VALUE) }
}
