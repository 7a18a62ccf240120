// SPDX-License-Identifier: GPL-2.0-only

//! A first-in-first-out chain of boxes, linked through the boxes themselves.
//!
//! To queue a box never allocates: it happens in interrupt context, where to lose data for want of
//! memory is not an option. Knows nothing of what is in the boxes.

use core::mem;
use kernel::prelude::*;

/// Something with a place for its successor in a [`Chain`].
pub(crate) trait Linked: Sized {
    /// That place.
    fn next(&mut self) -> &mut Option<KBox<Self>>;
}

/// A first-in-first-out chain, all operations O(1) amortised, without allocation.
///
/// Two stacks: `back` takes what comes, newest first; `front` gives, oldest first, and is filled by
/// turning `back` round when it is empty.
pub(crate) struct Chain<T: Linked> {
    front: Option<KBox<T>>,
    back: Option<KBox<T>>,
}

impl<T: Linked> Chain<T> {
    /// An empty chain.
    pub(crate) const fn new() -> Self {
        Self {
            front: None,
            back: None,
        }
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.front.is_none() && self.back.is_none()
    }

    /// Adds the newest.
    pub(crate) fn push_back(&mut self, mut link: KBox<T>) {
        *link.next() = self.back.take();
        self.back = Some(link);
    }

    /// Gives back what was the oldest.
    pub(crate) fn push_front(&mut self, mut link: KBox<T>) {
        *link.next() = self.front.take();
        self.front = Some(link);
    }

    /// Takes the oldest.
    pub(crate) fn pop_front(&mut self) -> Option<KBox<T>> {
        if self.front.is_none() {
            while let Some(mut link) = self.back.take() {
                self.back = link.next().take();
                self.push_front(link);
            }
        }
        let mut link = self.front.take()?;
        self.front = link.next().take();
        Some(link)
    }

    /// The one that is in it, if it is alone.
    pub(crate) fn only(&mut self) -> Option<&mut T> {
        match (&mut self.front, &mut self.back) {
            (Some(link), None) | (None, Some(link)) => {
                let alone = link.next().is_none();
                alone.then_some(&mut **link)
            }
            _ => None,
        }
    }

    /// The oldest.
    pub(crate) fn oldest(&mut self) -> Option<&mut T> {
        let link = self.pop_front()?;
        self.push_front(link);
        self.front.as_deref_mut()
    }

    /// Moves all of `other` behind the newest.
    pub(crate) fn append(&mut self, mut other: Self) {
        while let Some(link) = other.pop_front() {
            self.push_back(link);
        }
    }

    /// The newest, if it came after the last turn-round.
    pub(crate) fn newest(&mut self) -> Option<&mut T> {
        self.back.as_deref_mut()
    }

    /// Puts them in the order of `key`: a merge sort, which allocates nothing either.
    pub(crate) fn sort_by_key(&mut self, key: impl Fn(&T) -> u64) {
        // Sorted runs: one at index i is of 2^i entries.
        let mut runs = [const { Self::new() }; usize::BITS as usize];
        while let Some(link) = self.pop_front() {
            let mut run = Self::new();
            run.push_back(link);
            for place in &mut runs {
                if place.is_empty() {
                    *place = run;
                    break;
                }
                run = Self::merge(place.take(), run, &key);
            }
        }
        *self = runs.into_iter().fold(Self::new(), |longer, run| {
            Self::merge(run, longer, &key) //
        });
    }

    /// Merges two sorted chains; of equals, those of `first` come first.
    fn merge(mut first: Self, mut second: Self, key: &impl Fn(&T) -> u64) -> Self {
        let mut merged = Self::new();
        loop {
            let from = match (first.oldest(), second.oldest()) {
                (Some(one), Some(other)) if key(other) < key(one) => &mut second,
                (Some(_), _) => &mut first,
                (None, _) => &mut second,
            };
            match from.pop_front() {
                Some(link) => merged.push_back(link),
                None => return merged,
            }
        }
    }

    /// Takes all of them.
    pub(crate) fn take(&mut self) -> Self {
        mem::replace(self, Self::new())
    }
}

impl<T: Linked> Default for Chain<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Linked> Drop for Chain<T> {
    fn drop(&mut self) {
        // One by one: dropping the head would recurse as deep as the chain is long.
        while self.pop_front().is_some() {}
    }
}
