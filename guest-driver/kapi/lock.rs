// SPDX-License-Identifier: GPL-2.0-only

//! A spinlock for data that interrupts use as well: `SpinLockIrq`, the kernel crate's where it has
//! one.
//!
//! Interrupts are off on this CPU from the first lock to the last unlock, in whatever order the
//! guards are dropped. With PREEMPT_RT interrupts are threads, and the lock is one that sleeps.
//!
//! C header: [`include/linux/spinlock.h`](srctree/include/linux/spinlock.h).

#[cfg(KERNEL_HAS_SPIN_LOCK_IRQ)]
pub(crate) use kernel::sync::{
    new_spinlock_irq,
    SpinLockIrq, //
};
#[cfg(not(KERNEL_HAS_SPIN_LOCK_IRQ))]
pub(crate) use ours::{
    new_spinlock_irq,
    SpinLockIrq, //
};

#[cfg(not(KERNEL_HAS_SPIN_LOCK_IRQ))]
mod ours {
    use super::super::bindings;
    use kernel::{
        ffi::c_char,
        sync::lock::{
            Backend,
            Lock, //
        },
    };

    /// As the kernel crate's.
    pub(crate) type SpinLockIrq<T> = Lock<T, SpinLockIrqBackend>;

    /// How a [`SpinLockIrq`] is locked.
    pub(crate) struct SpinLockIrqBackend;

    // SAFETY: The kernel's spinlock excludes all others, also on this CPU: while it is held, no
    // interrupt comes. `relock` is the default, which locks.
    unsafe impl Backend for SpinLockIrqBackend {
        type State = bindings::spinlock_t;
        type GuardState = ();

        unsafe fn init(
            ptr: *mut Self::State,
            name: *const c_char,
            key: *mut bindings::lock_class_key,
        ) {
            // SAFETY: By the trait's requirements.
            unsafe { bindings::__spin_lock_init(ptr, name, key) }
        }

        unsafe fn lock(ptr: *mut Self::State) -> Self::GuardState {
            // SAFETY: By the trait's requirements.
            unsafe { bindings::globalfifo_spin_lock_irq(ptr) }
        }

        unsafe fn try_lock(ptr: *mut Self::State) -> Option<Self::GuardState> {
            // SAFETY: By the trait's requirements.
            unsafe { bindings::globalfifo_spin_trylock_irq(ptr) }.then_some(())
        }

        unsafe fn unlock(ptr: *mut Self::State, _guard_state: &Self::GuardState) {
            // SAFETY: By the trait's requirements; a guard stays on its CPU, as interrupts are off.
            unsafe { bindings::globalfifo_spin_unlock_irq(ptr) }
        }

        unsafe fn assert_is_held(ptr: *mut Self::State) {
            // SAFETY: By the trait's requirements.
            unsafe { bindings::spin_assert_is_held(ptr) }
        }
    }

    macro_rules! new_spinlock_irq {
        ($inner:expr, $name:literal) => {
            $crate::kapi::lock::SpinLockIrq::new(
                $inner,
                kernel::optional_name!($name),
                kernel::static_lock_class!(),
            )
        };
    }
    pub(crate) use new_spinlock_irq;
}
