// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for timers: those of [`crate::world`]. Of the fast edition alone.

use crate::init::PinInit;
use crate::prelude::*;
use crate::sync::{Arc, ArcBorrow};
use crate::world;
use std::marker::PhantomData;

/// As in `kapi`.
pub(crate) trait TimerCallback<const ID: u64> {
    fn expired(self: ArcBorrow<'_, Self>);
}

/// As in `kapi`.
pub(crate) struct Timer<T, const ID: u64> {
    // An address of its own.
    id: Box<u8>,
    _target: PhantomData<fn(T)>,
}

impl<T: TimerCallback<ID> + 'static, const ID: u64> Timer<T, ID> {
    pub(crate) fn new() -> Self {
        Self {
            id: Box::new(0),
            _target: PhantomData,
        }
    }

    fn id(&self) -> usize {
        std::ptr::from_ref(&*self.id) as usize
    }

    pub(crate) fn start(&self, target: ArcBorrow<'_, T>, microseconds: u32) {
        let target = Arc::from(target);
        let call = move || T::expired(target.as_arc_borrow());
        world::start_timer(self.id(), microseconds, Box::new(call));
    }

    pub(crate) fn cancel(&self) {
        world::assert_unlocked("a wait for a timer");
        world::stop_timer(self.id());
    }
}

impl<T, const ID: u64> PinInit<Timer<T, ID>> for Timer<T, ID> {
    fn make(self) -> Result<Self, std::convert::Infallible> {
        Ok(self)
    }
}
