// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for the pinned memory of a read: what is all there can be pinned. Of the fast edition alone.

use super::user_memory::{Dest, UserMemory};
use crate::iov::{IovIterDest, Place};
use crate::page::PAGE_SIZE;

/// As in `kapi`.
pub(crate) struct Pinned {
    /// What is pinned, from where the read stood then.
    place: Option<Place>,
    is_untried: bool,
}

impl Default for Pinned {
    fn default() -> Self {
        Self {
            place: None,
            is_untried: true,
        }
    }
}

impl Pinned {
    pub(crate) fn pin(memory: &mut UserMemory<Dest>) -> Self {
        if memory.is_of_current() {
            Self::pin_entered(memory)
        } else {
            Self {
                place: None,
                is_untried: false,
            }
        }
    }

    pub(crate) fn pin_entered(memory: &mut UserMemory<Dest>) -> Self {
        let place = memory.place();
        let there = place.buffer.present.get().min(place.buffer.mapped.get());
        let is_there = there == place.buffer.bytes.borrow().len();
        let is_small = (1..=2 * PAGE_SIZE).contains(&memory.len());
        Self {
            place: (is_there && is_small).then(|| place.clone()),
            is_untried: false,
        }
    }

    pub(crate) fn is_pinned(&self) -> bool {
        self.place.is_some()
    }

    pub(crate) fn is_untried(&self) -> bool {
        self.is_untried
    }

    pub(crate) fn release(&mut self) {
        self.place = None;
    }

    pub(crate) fn with<R>(
        &self,
        _memory: &UserMemory<Dest>,
        work: impl FnOnce(&mut IovIterDest<'_>) -> R,
    ) -> Option<R> {
        let place = self.place.clone()?;
        Some(work(&mut IovIterDest::new(place)))
    }
}
