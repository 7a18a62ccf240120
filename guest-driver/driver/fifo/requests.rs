// SPDX-License-Identifier: GPL-2.0-only

//! The deferred requests of one FIFO, by what they wait for.
//!
//! Plain state: must not know locks, interrupts, or where bytes come from. A request is in one of
//! the trees of [`Requests`], ordered by the numbers that requests get as they come, so that each
//! direction is served in the order of submission. Moving between trees moves a node, which never
//! allocates: it happens under AIO's lock and in interrupts. An index by file makes closing a file
//! cost what that file has.
//!
//! ```text
//!  Data --> reads --serve--> done       sent --accept--> done --complete-->
//!  Space -> writes -serve--> sent, done
//!              ^ |
//!   faulted in | | the buffer is not there
//!              | v
//!           faulting
//! ```

use super::{
    file::{
        Buffer,
        Memory, //
    },
    line::Line,
    request::{
        is_first_ready,
        move_node,
        take_buffer,
        Done,
        Index,
        Phase,
        Request,
        Reservation,
        Tree,
        Wants, //
    },
};
use crate::kapi::{
    kiocb::{
        canceled,
        FileId,
        Id,
        Pending, //
    },
    open_file::ProcessId, //
};
use core::mem;
use kernel::prelude::*;

/// Result of [`Requests::arm`].
pub(crate) enum Armed {
    /// The request will be completed.
    Queued,
    /// The request was taken back: this is the answer.
    Answer(Pending, Result<usize>),
}

/// What decides whether a request can still be served.
pub(crate) struct Circumstances {
    /// Whether reads, writes, and bytes that were sent still have a FIFO.
    pub(crate) alive: Result,
    pub(crate) writing: Result,
    pub(crate) sending: Result,
    /// Positions of the tx stream: accepted by the device, and written.
    pub(crate) accepted: u64,
    pub(crate) sent: u64,
}

/// All deferred requests of a FIFO.
pub(crate) struct Requests {
    pub(super) last: Id,
    /// Somebody serves requests. Nobody else does meanwhile, to keep the order.
    pub(super) serving: bool,
    /// Somebody completes requests. Nobody else does meanwhile, to keep the order.
    pub(super) completing: bool,
    /// Lines of `reads` and `writes`.
    pub(super) read_line: Line,
    pub(super) write_line: Line,
    /// Want data.
    pub(super) reads: Tree,
    /// Want space.
    pub(super) writes: Tree,
    /// Want their buffer to be faulted in; then they go back to `reads` or `writes`.
    pub(super) faulting: Tree,
    /// Want acceptance.
    pub(super) sent: Tree,
    /// Want to be completed.
    pub(super) done: Tree,
    /// Requests of each file.
    pub(super) index: Index,
}

impl Requests {
    /// None.
    pub(crate) fn new() -> Self {
        Self {
            last: 0,
            serving: false,
            completing: false,
            read_line: Line::new(),
            write_line: Line::new(),
            reads: Tree::new(),
            writes: Tree::new(),
            faulting: Tree::new(),
            sent: Tree::new(),
            done: Tree::new(),
            index: Index::new(),
        }
    }

    /// Number for the next request.
    pub(crate) fn next_id(&mut self) -> Id {
        self.last += 1;
        self.last
    }

    /// Queues request `id` of `file`, which is being submitted by `process`.
    pub(crate) fn add(
        &mut self,
        memory: Reservation,
        id: Id,
        (file, process): (FileId, ProcessId),
        pending: Pending,
        mut wants: Wants,
    ) {
        let tree = match &mut wants {
            Wants::Data(buffer) => {
                buffer.id = id;
                &mut self.reads
            }
            Wants::Space(buffer) => {
                buffer.id = id;
                &mut self.writes
            }
            Wants::Acceptance { .. } => &mut self.sent,
            Wants::Server | Wants::Fault => &mut self.done,
        };
        let request = Request {
            pending,
            file,
            process,
            wants,
            phase: Phase::Submitting,
            so_far: 0,
            result: None,
        };
        tree.insert(memory.node.into_node(id, request));
        self.index.insert(memory.index.into_node((file, id), ()));
    }

    /// Ends the submission of request `id`: from now on others serve and complete it, unless it was
    /// cancelled, or nothing is left to wait for.
    pub(crate) fn arm(&mut self, id: Id, now: &Circumstances) -> Armed {
        // An answer must not overtake the completion of an earlier request.
        let first = self.done.is_empty() && !self.completing && self.is_first_sent(id);
        for tree in [&mut self.reads, &mut self.writes, &mut self.sent] {
            let Some(request) = tree.get_mut(&id) else {
                continue;
            };
            let cancelled = request.phase == Phase::Cancelled;
            let answer = match request.wants {
                Wants::Acceptance { end, bytes } => {
                    // Above what was sent: discarded, so there is nothing to wait for.
                    if end <= now.accepted && first || end > now.sent || cancelled {
                        Some(Ok(bytes))
                    } else if end <= now.accepted {
                        None
                    } else {
                        now.sending.err().map(Err)
                    }
                }
                Wants::Space(_) => now.writing.err().map(Err),
                _ => now.alive.err().map(Err),
            };
            let answer = answer.or(cancelled.then_some(Err(canceled())));
            let Some(answer) = answer else {
                request.phase = Phase::Queued;
                return Armed::Queued;
            };
            if let Some(request) = tree.remove(&id) {
                self.index.remove(&(request.file, id));
                return Armed::Answer(request.pending, answer);
            }
        }
        // Not reached: nobody else takes a request that is being submitted.
        Armed::Queued
    }

    fn is_first_sent(&self, id: Id) -> bool {
        let first = self.sent.cursor_front();
        first.is_none_or(|first| *first.current().0 >= id)
    }

    /// Whether requests are first in line for data.
    pub(crate) fn want_data(&self) -> bool {
        !self.reads.is_empty() || self.read_line.is_held()
    }

    /// Whether requests are first in line for space.
    pub(crate) fn want_space(&self) -> bool {
        !self.writes.is_empty() || self.write_line.is_held()
    }

    /// Requests that wait for acceptance: none, one, or several (2).
    pub(crate) fn want_acceptance(&self) -> usize {
        self.sent.keys().take(2).count()
    }

    /// Whether somebody serves requests.
    pub(crate) fn is_serving(&self) -> bool {
        self.serving
    }

    /// Whether the first read in line can be served, given `data`.
    fn can_read(&self, data: bool) -> bool {
        data && !self.read_line.is_held() && is_first_ready(&self.reads)
    }

    /// Whether the first write in line can be served, given `space`.
    fn can_write(&self, space: bool) -> bool {
        space && !self.write_line.is_held() && is_first_ready(&self.writes)
    }

    /// Whether there is something for a server, given `data` and `space` for requests; not while
    /// one is at it.
    pub(crate) fn have_work(&self, data: bool, space: bool) -> bool {
        !self.serving && (self.can_read(data) || self.can_write(space))
    }

    /// Begins to serve; whether the caller may.
    pub(crate) fn begin_serving(&mut self) -> bool {
        !mem::replace(&mut self.serving, true)
    }

    /// Ends what [`Requests::begin_serving`] began.
    pub(crate) fn end_serving(&mut self) {
        self.serving = false;
    }

    /// Takes the buffer of the request that is first in line, reads before writes; `None` ends the
    /// serving.
    pub(crate) fn next_job(&mut self, data: bool, space: bool) -> Option<KBox<Buffer>> {
        if self.can_read(data) {
            return take_buffer(&mut self.reads);
        }
        if self.can_write(space) {
            return take_buffer(&mut self.writes);
        }
        self.serving = false;
        None
    }

    /// The first read in line, if it may be served.
    #[cfg(GLOBALFIFO_FAST)]
    pub(crate) fn first_read(&mut self) -> Option<&mut Wants> {
        if self.read_line.is_held() {
            return None;
        }
        let (_, request) = self.reads.iter_mut().next()?;
        (request.phase == Phase::Queued).then_some(&mut request.wants)
    }

    /// The first `n` reads in line, as far as they may be served.
    #[cfg(GLOBALFIFO_FAST)]
    pub(crate) fn first_reads(&mut self, n: usize) -> impl Iterator<Item = &mut Wants> {
        let first = self.reads.iter_mut().take(n);
        let queued = first.take_while(|(_, request)| request.phase == Phase::Queued);
        queued.map(|(_, request)| &mut request.wants)
    }

    /// Number of reads in line, at most `most`.
    #[cfg(GLOBALFIFO_FAST)]
    pub(crate) fn reads_in_line(&self, most: usize) -> usize {
        self.reads.keys().take(most).count()
    }

    /// Gives the buffer of a request back, which a server could not serve now: it stays first in
    /// line, unless it is not `alive` any more, or cancelled.
    pub(crate) fn put_back(&mut self, buffer: KBox<Buffer>, alive: Result) {
        let id = buffer.id;
        let tree = match buffer.memory {
            Memory::Dest(..) => &mut self.reads,
            Memory::Source(_) => &mut self.writes,
        };
        let Some(request) = tree.get_mut(&id) else {
            return;
        };
        request.wants = match buffer.memory {
            Memory::Dest(..) => Wants::Data(buffer),
            Memory::Source(_) => Wants::Space(buffer),
        };
        if let Err(error) = alive {
            request.result = Some(request.result_or(error));
        } else if request.phase == Phase::Cancelled {
            request.result = Some(request.result_or(canceled()));
        } else {
            return;
        }
        move_node(tree, &mut self.done, id);
    }

    /// A server is done with a request: it has a result. Bytes are added to what the request got
    /// before.
    pub(crate) fn finish(&mut self, id: Id, result: Result<usize>) {
        for tree in [&mut self.reads, &mut self.writes] {
            let Some(request) = tree.get_mut(&id) else {
                continue;
            };
            request.result = Some(match result {
                Ok(bytes) => Ok(request.so_far + bytes),
                Err(error) => request.result_or(error),
            });
            move_node(tree, &mut self.done, id);
            return;
        }
    }

    /// A server has sent `bytes` of a write, which end at `end`: it waits for acceptance.
    pub(crate) fn sent(&mut self, id: Id, end: u64, bytes: usize) {
        if let Some(request) = self.writes.get_mut(&id) {
            request.wants = Wants::Acceptance { end, bytes };
            // The bytes cannot be called back.
            let to = if request.phase == Phase::Cancelled {
                request.result = Some(Ok(bytes));
                &mut self.done
            } else {
                &mut self.sent
            };
            move_node(&mut self.writes, to, id);
        }
    }

    /// A server found that the buffer of request `id`, `to_read` or to be written, is not there,
    /// after a read got `bytes`: the request leaves the line until [`Requests::faulted_in`]. False
    /// if it was cancelled meanwhile; then it is done.
    pub(crate) fn fault(&mut self, id: Id, to_read: bool, bytes: usize) -> bool {
        let tree = if to_read {
            &mut self.reads
        } else {
            &mut self.writes
        };
        let Some(request) = tree.get_mut(&id) else {
            return false;
        };
        request.so_far += bytes;
        if request.phase == Phase::Cancelled {
            request.result = Some(request.result_or(canceled()));
            move_node(tree, &mut self.done, id);
            return false;
        }
        request.wants = Wants::Fault;
        move_node(tree, &mut self.faulting, id);
        if to_read {
            self.read_line.hold(id);
        } else {
            self.write_line.hold(id);
        }
        true
    }

    /// The buffer of a request is there now, or will never be (`result`): it goes back to its
    /// place. Gives the buffer back if the request has ended meanwhile.
    pub(crate) fn faulted_in(
        &mut self,
        mut buffer: KBox<Buffer>,
        result: Result,
    ) -> Option<KBox<Buffer>> {
        let id = buffer.id;
        self.release_lines(id);
        let Some(request) = self.faulting.get_mut(&id) else {
            return Some(buffer);
        };
        if let Err(error) = result {
            request.result = Some(request.result_or(error));
            move_node(&mut self.faulting, &mut self.done, id);
            return Some(buffer);
        }
        buffer.was_faulted_in = true;
        match buffer.memory {
            Memory::Dest(..) => {
                request.wants = Wants::Data(buffer);
                move_node(&mut self.faulting, &mut self.reads, id);
            }
            Memory::Source(_) => {
                request.wants = Wants::Space(buffer);
                move_node(&mut self.faulting, &mut self.writes, id);
            }
        }
        None
    }

    /// Whether request `id` waits for [`Requests::faulted_in`].
    pub(crate) fn is_faulting(&self, id: Id) -> bool {
        self.faulting.get(&id).is_some()
    }

    /// Holds the line of reads for a call that is in a page fault; until
    /// [`Requests::release_lines`].
    pub(super) fn hold_reads(&mut self) -> Id {
        let id = self.next_id();
        self.read_line.hold(id);
        id
    }

    /// Request or call `id` is back from its page fault, or has ended.
    pub(super) fn release_lines(&mut self, id: Id) {
        self.read_line.release(id);
        self.write_line.release(id);
    }

    /// Ends holds of the lines whose time is used up.
    pub(crate) fn expire_holds(&mut self) {
        self.read_line.expire();
        self.write_line.expire();
    }

    /// Whether requests want to be completed, and nobody is at it.
    pub(crate) fn have_done(&self) -> bool {
        !self.completing && !self.done.is_empty()
    }

    /// Begins to complete; whether the caller is to call [`Requests::take_done`] until that is
    /// `None`.
    pub(crate) fn begin_completing(&mut self) -> bool {
        let begin = self.have_done();
        self.completing |= begin;
        begin
    }

    /// Takes the next requests to complete, `most` at most; with `None` the caller's turn is over.
    pub(crate) fn take_done(&mut self, most: usize) -> Option<Done> {
        let mut done = Done {
            requests: Tree::new(),
            served: 0,
            ended: 0,
            is_short: false,
        };
        for _ in 0..most {
            let Some(first) = self.done.cursor_front_mut() else {
                break;
            };
            let (id, request) = first.current();
            match request.result {
                Some(Ok(_)) => done.served += 1,
                _ => done.ended += 1,
            }
            done.is_short |= request.so_far > 0;
            self.index.remove(&(request.file, *id));
            done.requests.insert(first.remove_current().1);
        }
        self.completing = done.len() > 0;
        self.completing.then_some(done)
    }

    /// Ends what [`Requests::begin_completing`] began, though there may be more.
    pub(crate) fn end_completing(&mut self) {
        self.completing = false;
    }
}
