// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A lock whose holder gives way: between two pieces of work it lets in who waits, and goes on after them.
//!
//! A fair unlock alone is not enough. It hands over to a thread that sleeps, but a thread that finds the lock taken first spins
//! and yields, and on a machine with more to do than CPUs a yield is a time slice: the holder had taken its lock again long before.
//! So who waits is counted, and the holder stays outside until they are in. This file must not know what is locked.

#![forbid(unsafe_code)]

use std::ops::Deref;
use std::ops::DerefMut;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;

use parking_lot::Mutex;
use parking_lot::MutexGuard;

/// The lock.
#[derive(Debug)]
pub struct Turns<T> {
    /// Threads that wait for the lock.
    waiting: AtomicU32,
    data: Mutex<T>,
}

/// The lock, held until this is dropped.
#[derive(Debug)]
pub struct Turn<'a, T> {
    waiting: &'a AtomicU32,
    guard: MutexGuard<'a, T>,
}

impl<T> Turns<T> {
    /// A lock around `data`, free.
    pub const fn new(data: T) -> Self {
        Self {
            waiting: AtomicU32::new(0),
            data: Mutex::new(data),
        }
    }

    /// Waits for the lock.
    pub fn lock(&self) -> Turn<'_, T> {
        let guard = self.data.try_lock().unwrap_or_else(|| {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            let guard = self.data.lock();
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            guard
        });
        Turn {
            waiting: &self.waiting,
            guard,
        }
    }
}

impl<T> Turn<'_, T> {
    /// Lets in every thread that waits now. An atomic load where there is none.
    pub fn bump(this: &mut Self) {
        while this.waiting.load(Ordering::Relaxed) > 0 {
            MutexGuard::unlocked(&mut this.guard, thread::yield_now);
        }
    }
}

impl<T> Deref for Turn<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Turn<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The holder never drops the lock, and who waits gets it all the same: before the next piece of work.
    #[test]
    fn who_waits_gets_the_lock_at_the_next_bump() {
        let lock = Turns::new(0_u32);
        let mut turn = lock.lock();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| *lock.lock());
            while lock.waiting.load(Ordering::Relaxed) == 0 {
                thread::yield_now();
            }
            *turn = 1;
            Turn::bump(&mut turn);
            *turn = 2;
            assert_eq!(waiter.join().unwrap(), 1);
        });
    }

    #[test]
    fn a_bump_with_nobody_waiting_keeps_the_lock() {
        let lock = Turns::new(());
        let mut turn = lock.lock();
        Turn::bump(&mut turn);
        assert!(lock.data.try_lock().is_none());
    }
}
