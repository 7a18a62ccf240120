// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for the memory of a process: the buffers of [`crate::iov`].

use super::source::Source;
use crate::iov::{IovIterDest, IovIterSource, Place};
use crate::prelude::*;
use crate::world;

/// As in `kapi`.
pub(crate) trait Direction {
    type Iter;

    fn place(iter: &Self::Iter) -> &Place;
}

/// As in `kapi`.
pub(crate) struct Dest;

impl Direction for Dest {
    type Iter = IovIterDest<'static>;

    fn place(iter: &Self::Iter) -> &Place {
        &iter.0
    }
}

/// As in `kapi`.
pub(crate) struct Src;

impl Direction for Src {
    type Iter = IovIterSource<'static>;

    fn place(iter: &Self::Iter) -> &Place {
        &iter.0
    }
}

/// As in `kapi`.
pub(crate) struct NoFaults(());

impl NoFaults {
    pub(crate) fn new() -> Self {
        world::no_faults(true);
        Self(())
    }

    pub(crate) fn must_end_soon(&self) -> bool {
        false
    }
}

impl Drop for NoFaults {
    fn drop(&mut self) {
        world::no_faults(false);
    }
}

/// As in `kapi`.
pub(crate) fn fault_in_dest(to: &mut IovIterDest<'_>, size: usize) -> Result {
    let size = size.min(to.len());
    some_of(size, to.0.fault_in(size))
}

fn some_of(size: usize, missing: usize) -> Result {
    if missing < size {
        Ok(())
    } else {
        Err(EFAULT)
    }
}

/// As in `kapi`.
pub(crate) struct UserMemory<D: Direction> {
    iter: D::Iter,
    process: usize,
}

impl UserMemory<Dest> {
    pub(crate) fn of_dest(to: &mut IovIterDest<'_>) -> Result<Self> {
        Ok(Self::at(to.0.clone()))
    }

    pub(crate) fn at(place: Place) -> Self {
        Self {
            iter: IovIterDest::new(place),
            process: world::process(),
        }
    }
}

impl UserMemory<Src> {
    pub(crate) fn of_source(from: &mut Source<'_, '_>) -> Result<Self> {
        Ok(Self::at(from.iter().0.clone()))
    }

    pub(crate) fn at(place: Place) -> Self {
        Self {
            iter: IovIterSource::new(place),
            process: world::process(),
        }
    }
}

impl<D: Direction> UserMemory<D> {
    pub(crate) fn len(&self) -> usize {
        D::place(&self.iter).left()
    }

    pub(crate) fn is_of_current(&self) -> bool {
        self.process == world::process()
    }

    pub(crate) fn place(&self) -> &Place {
        D::place(&self.iter)
    }

    pub(crate) fn enter<R>(&mut self, work: impl FnOnce(&mut D::Iter) -> R) -> Option<R> {
        world::assert_unlocked("entering a process");
        Some(work(&mut self.iter))
    }

    pub(crate) fn fault_in(&mut self, size: usize) -> Result {
        let size = size.min(self.len());
        some_of(size, self.place().fault_in(size))
    }
}
