// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for wait queues. A queue keeps the wake-ups that it was given. There is one thread: a wait whose
//! condition does not hold has [`Point::Sleep`](crate::world::Point) run, and ends with `ERESTARTSYS` if that does
//! not wake it.

use crate::init::PinInit;
use crate::prelude::*;
use crate::time::Msecs;
use crate::world::{self, Point};
use std::cell::{Cell, RefCell};

/// As in `kapi`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Events(u32);

impl Events {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const IN: Self = Self(0x1 | 0x40);
    pub(crate) const OUT: Self = Self(0x4 | 0x100);
    pub(crate) const ERR: Self = Self(0x8);
    pub(crate) const READ_HUP: Self = Self(0x2000);
    pub(crate) const ALL_HUP: Self = Self(0x10);
    pub(crate) const HUP: Self = Self(0x10 | 0x2000);

    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    pub(crate) const fn since(self, before: Self) -> Self {
        Self(self.0 & !before.0)
    }

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    pub(crate) const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Events {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Events {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

/// As in `kapi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitFor {
    Readable,
    Writable,
}

impl WaitFor {
    /// Wake-ups that reach such a waiter.
    pub(crate) fn mask(self) -> Events {
        let end = Events::ERR | Events::HUP;
        match self {
            Self::Readable => Events::IN | end,
            Self::Writable => Events::OUT | end,
        }
    }
}

/// As in `kapi`.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Waited {
    Done,
    TimedOut,
}

/// As in `kapi`.
#[derive(Clone, Copy)]
pub(crate) enum Signals {
    Interrupt,
    Kill,
    KillAwake,
    Ignore,
}

/// As in `kapi`.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(i64);

impl Deadline {
    pub(crate) fn in_seconds(seconds: u8) -> Self {
        Self(world::now() + i64::from(seconds) * 1_000_000_000)
    }

    pub(crate) fn never() -> Self {
        Self(i64::MAX)
    }
}

/// As in `kapi`.
pub(crate) struct WaitQueue {
    wakes: RefCell<Vec<Events>>,
    /// Number of wake-ups before the last wait.
    waited_at: Cell<usize>,
}

impl WaitQueue {
    pub(crate) fn new() -> Self {
        Self {
            wakes: RefCell::default(),
            waited_at: Cell::new(0),
        }
    }

    pub(crate) fn wake(&self, events: Events) -> bool {
        world::assert_unlocked("a wake-up");
        self.wakes.borrow_mut().push(events);
        true
    }

    /// Number of wake-ups so far.
    pub(crate) fn count(&self) -> usize {
        self.wakes.borrow().len()
    }

    /// Number of wake-ups before the last wait.
    pub(crate) fn waited_at(&self) -> usize {
        self.waited_at.get()
    }

    /// Whether one since the first `count` has any of `events`.
    pub(crate) fn woke(&self, count: usize, events: Events) -> bool {
        let wakes = self.wakes.borrow();
        wakes
            .iter()
            .skip(count)
            .any(|wake| wake.and(events) != Events::NONE)
    }

    pub(crate) fn wait_rechecking(
        &self,
        what: WaitFor,
        _signals: Signals,
        deadline: Deadline,
        mut recheck: impl FnMut(),
        mut condition: impl FnMut() -> bool,
    ) -> Result<Waited> {
        let mut tries = 0;
        loop {
            if self.wait(what, Signals::Ignore, Some(0), &mut condition)? == Waited::Done {
                return Ok(Waited::Done);
            }
            recheck();
            tries += 1;
            if world::now() >= deadline.0 || tries > 100 {
                let done = condition();
                return Ok(if done { Waited::Done } else { Waited::TimedOut });
            }
            world::pass(100_000);
        }
    }

    pub(crate) fn wait(
        &self,
        what: WaitFor,
        _signals: Signals,
        milliseconds: Option<Msecs>,
        mut condition: impl FnMut() -> bool,
    ) -> Result<Waited> {
        world::assert_unlocked("a wait");
        let before = self.count();
        self.waited_at.set(before);
        if condition() {
            return Ok(Waited::Done);
        }
        world::reach(Point::Sleep);
        if self.woke(before, what.mask()) && condition() {
            return Ok(Waited::Done);
        }
        match milliseconds {
            Some(_) => Ok(Waited::TimedOut),
            None => Err(ERESTARTSYS),
        }
    }
}

impl PinInit<WaitQueue> for WaitQueue {
    fn make(self) -> Result<Self, std::convert::Infallible> {
        Ok(self)
    }
}

/// As in `kapi`.
macro_rules! new_wait_queue {
    ($name:literal) => {
        $crate::kapi::wait::WaitQueue::new()
    };
}
pub(crate) use new_wait_queue;

/// As in `kapi`: here there is nothing that a poll would have to let go of.
pub(crate) type PollQueue = WaitQueue;
pub(crate) use new_wait_queue as new_poll_queue;
