// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for `kernel::sync`. A lock that is taken twice is a test that fails.

use crate::alloc::{AllocError, Flags};
use crate::init::{InPlaceInit, PinInit};
use crate::prelude::{Error, Result};
use crate::world;
use std::cell::{RefCell, RefMut};
use std::ops::{Deref, DerefMut};
use std::sync::Arc as StdArc;

/// Reference-counted memory.
#[derive(Debug)]
pub struct Arc<T>(StdArc<T>);

/// A reference to what is in an [`Arc`]. In the kernel crate a type of its own, which stable Rust does not take as
/// a method's receiver.
pub type ArcBorrow<'a, T> = &'a T;

impl<T> Arc<T> {
    /// As in the kernel crate.
    #[allow(clippy::arc_with_non_send_sync)]
    pub fn new(value: T, _flags: Flags) -> Result<Self, AllocError> {
        Ok(Self(StdArc::new(value)))
    }

    /// How many there are.
    pub fn references(&self) -> usize {
        StdArc::strong_count(&self.0)
    }

    /// As in the kernel crate.
    pub fn as_arc_borrow(&self) -> ArcBorrow<'_, T> {
        &self.0
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> From<ArcBorrow<'_, T>> for Arc<T> {
    fn from(borrow: ArcBorrow<'_, T>) -> Self {
        let pointer = std::ptr::from_ref(borrow);
        // SAFETY: What the driver has an `ArcBorrow` of is in an `Arc`: this crate makes it by `as_arc_borrow` alone.
        unsafe { StdArc::increment_strong_count(pointer) };
        // SAFETY: As above; the reference was just counted.
        Self(unsafe { StdArc::from_raw(pointer) })
    }
}

impl<T> InPlaceInit<T> for Arc<T> {
    type PinnedSelf = Self;

    fn pin_init<E>(init: impl PinInit<T, E>, flags: Flags) -> Result<Self>
    where
        Error: From<E>,
    {
        Ok(Self::new(init.make()?, flags)?)
    }
}

/// References to what the kernel counts.
pub mod aref {
    /// As in the kernel crate.
    #[derive(Clone, Debug)]
    pub struct ARef<T>(T);

    impl<T: Clone> From<&T> for ARef<T> {
        fn from(value: &T) -> Self {
            Self(value.clone())
        }
    }

    impl<T> std::ops::Deref for ARef<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }
}

/// A lock, taken by one thread.
#[derive(Debug)]
pub struct SpinLock<T>(RefCell<T>);

/// The same, with interrupts off in the kernel.
pub type SpinLockIrq<T> = SpinLock<T>;

impl<T> SpinLock<T> {
    /// As in the kernel crate, without name and class.
    pub fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    /// Takes the lock.
    ///
    /// # Panics
    ///
    /// If it is taken: a deadlock.
    pub fn lock(&self) -> Guard<'_, T> {
        let guard = self.0.try_borrow_mut().expect("a lock is taken twice");
        world::locked();
        Guard(guard)
    }
}

impl<T> PinInit<SpinLock<T>> for SpinLock<T> {
    fn make(self) -> Result<SpinLock<T>, std::convert::Infallible> {
        Ok(self)
    }
}

/// As in the kernel crate.
#[derive(Debug)]
pub struct Guard<'a, T>(RefMut<'a, T>);

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        world::unlocked();
    }
}

/// As in the kernel crate.
#[macro_export]
macro_rules! new_spinlock {
    ($value:expr, $name:literal) => {
        $crate::sync::SpinLock::new($value)
    };
}

pub use new_spinlock;
pub use new_spinlock as new_spinlock_irq;

/// Atomics.
pub mod atomic {
    use std::sync::atomic::{AtomicI64, Ordering};

    /// The ordering that nothing is ordered by.
    #[derive(Clone, Copy, Debug)]
    pub struct Relaxed;

    /// As in the kernel crate; of `i64` only.
    #[derive(Debug)]
    pub struct Atomic<T>(AtomicI64, std::marker::PhantomData<T>);

    impl Atomic<i64> {
        /// As in the kernel crate.
        pub const fn new(value: i64) -> Self {
            Self(AtomicI64::new(value), std::marker::PhantomData)
        }

        /// As in the kernel crate.
        pub fn fetch_add(&self, n: i64, _order: Relaxed) -> i64 {
            self.0.fetch_add(n, Ordering::Relaxed)
        }

        /// As in the kernel crate.
        pub fn load(&self, _order: Relaxed) -> i64 {
            self.0.load(Ordering::Relaxed)
        }
    }
}
