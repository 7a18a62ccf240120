// SPDX-License-Identifier: GPL-2.0-only

//! The border to what stands above the core: [`crate::driver::fast`] in the fast edition, nothing
//! in the teaching edition.
//!
//! A table of functions, as the kernel's: the core calls them where they can save time, and is
//! right whatever they answer. What each of them gains is said in the file that it is from.

use super::{
    file::Pinning,
    state::State,
    Fifo, //
};
use crate::kapi::{
    source::Source,
    user_memory::{
        Dest,
        UserMemory, //
    },
};
use kernel::{
    prelude::*,
    sync::ArcBorrow,
    time::{
        Instant,
        Monotonic, //
    },
};

/// Bytes written, and the position after them.
pub(crate) type Written = (usize, u64);

/// See the module.
pub(crate) struct Hooks {
    /// A read is about to sleep until there is data; true if there is some by now.
    pub(crate) before_wait_for_data: fn(ArcBorrow<'_, Fifo>, Instant<Monotonic>) -> bool,
    /// A read has waited, since then.
    pub(crate) after_wait_for_data: fn(ArcBorrow<'_, Fifo>, Instant<Monotonic>),
    /// A write begins: bytes written and the position after them, if nothing had to be done but to
    /// add them to a message that is held.
    pub(crate) join: fn(ArcBorrow<'_, Fifo>, &mut Source<'_, '_>) -> Option<Written>,
    /// A write that may wait has bytes that fit: bytes written and the position after them, if this
    /// did it.
    pub(crate) write:
        fn(ArcBorrow<'_, Fifo>, &mut Source<'_, '_>, usize) -> Result<Option<Written>>,
    /// A write is about to sleep until there is space for some of so many bytes; true if there is
    /// some by now.
    pub(crate) before_wait_for_space: fn(ArcBorrow<'_, Fifo>, usize) -> bool,
    /// A read is about to be deferred.
    pub(crate) pin_at_submit: fn(ArcBorrow<'_, Fifo>, &mut UserMemory<Dest>) -> Pinning,
    /// An interrupt, a timer or the server has changed the state: whether to call `serve_in_place`
    /// once the lock is released.
    pub(crate) begin_in_place: fn(&mut State) -> bool,
    /// See `begin_in_place`.
    pub(crate) serve_in_place: fn(ArcBorrow<'_, Fifo>),
    /// The server has nothing left to do.
    pub(crate) after_serving: fn(ArcBorrow<'_, Fifo>),
}

impl Hooks {
    /// Nothing stands above the core.
    #[cfg(not(GLOBALFIFO_FAST))]
    pub(crate) const NONE: Self = Self {
        before_wait_for_data: |_, _| false,
        after_wait_for_data: |_, _| {},
        join: |_, _| None,
        write: |_, _, _| Ok(None),
        before_wait_for_space: |_, _| false,
        pin_at_submit: |_, _| Pinning::default(),
        begin_in_place: |_| false,
        serve_in_place: |_| {},
        after_serving: |_| {},
    };
}
