// SPDX-License-Identifier: GPL-2.0-only

//! Policies: when to post a message, when to be interrupted, which messages to keep.
//!
//! Ground of the house: plain state, no FIFO, no lock, no queue of its own. Each policy is right
//! without its optimisation: the teaching edition has the ones of [`plain`].

use super::{
    buffers::TxBuffer,
    chain::Chain, //
};

#[cfg(GLOBALFIFO_FAST)]
pub(crate) mod coalesce;
#[cfg(GLOBALFIFO_FAST)]
pub(crate) mod patience;
#[cfg(not(GLOBALFIFO_FAST))]
mod plain;
#[cfg(GLOBALFIFO_FAST)]
pub(crate) mod spares;

#[cfg(not(GLOBALFIFO_FAST))]
pub(crate) use plain::{
    coalesce,
    spares, //
};

/// Requests that wait for messages to be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Await {
    /// None.
    None,
    /// One: an interrupt is to tell.
    Interrupt,
    /// Several: it may take a little longer, so that one check finds all of them.
    Batched,
}

/// Messages to be filled, and the payload that new ones should have room for.
pub(crate) type Empty = (Chain<TxBuffer>, usize);
