// SPDX-License-Identifier: GPL-2.0-only

//! How deferred requests end other than by being served: accepted by the device, discarded by a
//! clear, cancelled, or aborted with their FIFO.
//!
//! Plain state, as [`Requests`]. Nothing here looks at more requests than its budget.

use super::{
    request::{
        end_all,
        move_node,
        Phase,
        Request,
        Wants, //
    },
    requests::Requests, //
};
use crate::kapi::{
    kiocb::{
        canceled,
        FileId,
        Id, //
    },
    open_file::ProcessId, //
};
use core::mem;
use kernel::prelude::*;

/// Requests whose bytes a clear has discarded: those above position `sent`, up to number `last`.
/// Those above `last` have been looked at, or came later.
pub(crate) struct Discard {
    sent: u64,
    last: Id,
}

impl Requests {
    /// Notes what the device has accepted; at most `budget` requests, and whether there may be
    /// more.
    pub(crate) fn accept(&mut self, accepted: u64, budget: usize) -> bool {
        for _ in 0..budget {
            let Some(mut first) = self.sent.cursor_front_mut() else {
                return false;
            };
            let (_, request) = first.current_mut();
            match request.wants {
                Wants::Acceptance { end, bytes }
                    if request.phase == Phase::Queued && end <= accepted =>
                {
                    request.result = Some(Ok(bytes));
                }
                _ => return false,
            }
            self.done.insert(first.remove_current().1);
        }
        true
    }

    /// Begins to end the requests whose bytes above `sent` were discarded before they were posted.
    pub(crate) fn begin_discard(&self, sent: u64) -> Discard {
        Discard {
            sent,
            last: self.last,
        }
    }

    /// Looks at `budget` requests at most, and ends those of these; whether there may be more. The
    /// tree is not ordered by position: a request that was faulted in stands before those that were
    /// sent meanwhile.
    pub(crate) fn discard(&mut self, discard: &mut Discard, budget: usize) -> bool {
        let mut left = budget;
        let behind = self.sent.cursor_lower_bound_mut(&(discard.last + 1));
        let mut cursor = match behind {
            Some(at) => at.move_prev(),
            None => self.sent.cursor_back_mut(),
        };
        while let Some(mut at) = cursor {
            let (id, request) = at.current_mut();
            let Wants::Acceptance { end, bytes } = request.wants else {
                return false;
            };
            // A later one is not meant, or has been looked at.
            if *id > discard.last {
                cursor = at.move_prev();
                continue;
            }
            if left == 0 {
                return true;
            }
            left -= 1;
            discard.last = *id - 1;
            // One that is being submitted sees it when it is armed.
            if end <= discard.sent || request.phase != Phase::Queued {
                cursor = at.move_prev();
                continue;
            }
            request.result = Some(Ok(bytes));
            // The cursor goes to the next, or from the last to the one before.
            let (next, node) = at.remove_current();
            self.done.insert(node);
            cursor = next;
        }
        false
    }

    /// Request `id` is not wanted any more.
    pub(crate) fn cancel(&mut self, id: Id) {
        let trees = [
            &mut self.reads,
            &mut self.writes,
            &mut self.sent,
            &mut self.faulting,
        ];
        for tree in trees {
            let Some(request) = tree.get_mut(&id) else {
                continue;
            };
            let was_queued = mem::replace(&mut request.phase, Phase::Cancelled) == Phase::Queued;
            match request.wants {
                // Its submitter or its server ends it.
                _ if !was_queued => return,
                Wants::Server => return,
                // The bytes cannot be called back.
                Wants::Acceptance { bytes, .. } => request.result = Some(Ok(bytes)),
                Wants::Data(_) | Wants::Space(_) | Wants::Fault => {
                    request.result = Some(request.result_or(canceled()));
                }
            }
            move_node(tree, &mut self.done, id);
            self.read_line.release(id);
            self.write_line.release(id);
            return;
        }
    }

    /// Cancels requests of `file` that `process` submitted, from number `from` on: looks at
    /// `budget` of the file's at most. Where to go on, if there may be more.
    pub(crate) fn cancel_of(
        &mut self,
        file: FileId,
        process: ProcessId,
        from: Id,
        budget: usize,
    ) -> Option<Id> {
        let mut next = from;
        for _ in 0..budget {
            let key = *self.index.cursor_lower_bound(&(file, next))?.current().0;
            let (of, id) = key;
            if of != file {
                return None;
            }
            if self.process_of(id) == Some(process) {
                self.cancel(id);
            }
            next = id + 1;
        }
        Some(next)
    }

    fn process_of(&self, id: Id) -> Option<ProcessId> {
        [&self.reads, &self.writes, &self.sent, &self.faulting]
            .into_iter()
            .find_map(|tree| tree.get(&id))
            .map(|request| request.process)
    }

    /// The FIFO takes no more I/O: ends with `error` what waits for data or space, `budget`
    /// requests at most; whether there may be more.
    pub(crate) fn abort(&mut self, error: Error, budget: usize) -> bool {
        let mut left = budget;
        let no_bytes = |request: &Request| request.result_or(error);
        end_all(&mut self.reads, &mut self.done, &mut left, no_bytes);
        end_all(&mut self.faulting, &mut self.done, &mut left, no_bytes);
        end_all(&mut self.writes, &mut self.done, &mut left, no_bytes);
        left == 0
    }

    /// The FIFO takes no more writes: as [`Requests::abort`] for those that wait for space.
    pub(crate) fn abort_writes(&mut self, error: Error, budget: usize) -> bool {
        let mut left = budget;
        end_all(&mut self.writes, &mut self.done, &mut left, |_| Err(error));
        left == 0
    }

    /// The device will accept nothing more: ends what waits for that, with `error` unless it is
    /// below `accepted`. As [`Requests::abort`].
    pub(crate) fn abort_sent(&mut self, accepted: u64, error: Error, budget: usize) -> bool {
        // What was accepted may still be here, behind one that is being submitted.
        let mut left = budget;
        end_all(
            &mut self.sent,
            &mut self.done,
            &mut left,
            |request| match request.wants {
                Wants::Acceptance { end, bytes } if end <= accepted => Ok(bytes),
                _ => Err(error),
            },
        );
        left == 0
    }
}
