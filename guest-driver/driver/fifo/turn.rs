// SPDX-License-Identifier: GPL-2.0-only

//! Whose turn it is to copy from or to a FIFO while its lock is not held, and who asks for it.
//!
//! Plain state: the rules of who gets it are [`State`](super::state::State)'s.

/// Right to read, or to write in several pieces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// Nobody's.
    Free,
    /// A task's. No other caller has been refused because of it.
    Taken,
    /// A task's. Another caller has been refused because of it, and relies on an edge when it ends.
    Contended,
}

impl Turn {
    /// Whether a task has the turn. If so, the caller counts as refused.
    pub(crate) fn is_anothers(&mut self) -> bool {
        let taken = *self != Self::Free;
        if taken {
            *self = Self::Contended;
        }
        taken
    }
}

/// Kind of reader.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A system call, which comes after the requests.
    Call,
    /// A request that is being submitted, which comes after the requests before it.
    Submission,
    /// The server of requests.
    Server,
}
