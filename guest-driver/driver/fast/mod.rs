// SPDX-License-Identifier: GPL-2.0-only

//! What only speeds things up: above the core, which knows it by [`Hooks`] alone.
//!
//! Each file is one piece with one or two hooks, can be left out, and says what it gains
//! (docs/performance.md has the measurements). The policies of coalescing and of spare messages are
//! ground ([`crate::driver::policy`]); the numbers are in
//! [`fast_tunables`](crate::driver::fast_tunables).

use super::fifo::hooks::Hooks;

mod busy_poll;
mod joining;
mod pinned_reads;
mod zero_copy;

/// The table of the fast edition.
pub(crate) const HOOKS: Hooks = Hooks {
    before_wait_for_data: busy_poll::poll_for_data,
    after_wait_for_data: busy_poll::learn,
    join: joining::join,
    write: zero_copy::write,
    before_wait_for_space: zero_copy::poll_for_space,
    pin_at_submit: pinned_reads::at_submit,
    begin_in_place: pinned_reads::begin,
    serve_in_place: pinned_reads::serve,
    after_serving: pinned_reads::pin_next,
};
