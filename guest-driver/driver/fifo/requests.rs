// SPDX-License-Identifier: GPL-2.0-only

//! The deferred requests of one FIFO, by what they wait for.
//!
//! Plain state: must not know locks, interrupts, or where bytes come from. A request is in one of the
//! trees of [`Requests`], ordered by the numbers that requests get as they come, so that each direction is
//! served in the order of submission. Moving between trees moves a node, which never allocates: it happens
//! under AIO's lock and in interrupts. An index by file makes closing a file cost what that file has.
//!
//! ```text
//!            submit                      the device accepts
//!  Data ──▶ reads ──serve──▶ done        sent ─────────────▶ done ──complete──▶
//!  Space ─▶ writes ─serve──▶ sent, done
//!              ▲ │
//!   faulted in │ │ the buffer is not there
//!              │ ▼
//!            faulting
//! ```

use crate::{
    driver::{
        chain::Linked,
        file::FifoFile, //
    },
    kapi::{
        chardev::ProcessId,
        kiocb::{
            FileId,
            Id,
            Pending, //
        },
        user_memory::{
            Dest,
            Src,
            UserMemory, //
        },
    },
};
use core::mem;
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode,
        RBTreeNodeReservation, //
    },
    sync::Arc, //
};

/// Buffer of a request, apart from it: the server has it while it serves the request.
pub(crate) struct Buffer {
    next: Option<KBox<Buffer>>,
    /// Number of the request.
    pub(crate) id: Id,
    /// File of the request, whose work faults the buffer in.
    pub(crate) file: Arc<FifoFile>,
    pub(crate) memory: Memory,
    /// The buffer has been faulted in once: what is still missing is not there.
    pub(crate) was_faulted_in: bool,
    /// Position of the rx stream at which a read has to go on that met a page fault.
    pub(crate) resumes_at: Option<u64>,
}

/// Pinned memory of a read: [`Pinned`] in the fast edition, nothing in the teaching edition.
#[cfg(GLOBALFIFO_FAST)]
pub(crate) type Pinning = crate::kapi::pinned::Pinned;
#[cfg(not(GLOBALFIFO_FAST))]
pub(crate) type Pinning = ();

/// Addresses of a buffer.
pub(crate) enum Memory {
    /// Destination of a read.
    Dest(UserMemory<Dest>, Pinning),
    /// Source of a write.
    Source(UserMemory<Src>),
}

impl Buffer {
    /// The buffer of a request that has no number yet.
    pub(crate) fn new(file: Arc<FifoFile>, memory: Memory) -> Result<KBox<Self>> {
        let buffer = Self {
            next: None,
            id: 0,
            file,
            memory,
            was_faulted_in: false,
            resumes_at: None,
        };
        Ok(KBox::new(buffer, GFP_KERNEL_ACCOUNT)?)
    }
}

impl Linked for Buffer {
    fn next(&mut self) -> &mut Option<KBox<Self>> {
        &mut self.next
    }
}

/// Condition that a request waits for.
pub(crate) enum Wants {
    /// Data, or the end.
    Data(KBox<Buffer>),
    /// Space.
    Space(KBox<Buffer>),
    /// A server, which has the buffer and is done with it soon.
    Server,
    /// A page fault, which may take for ever. The work that takes it has the buffer.
    Fault,
    /// Acceptance of all below `end` by the device; `bytes` of that are the request's.
    Acceptance { end: u64, bytes: usize },
}

/// Life cycle of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Belongs to the task that submits it, and is left alone, as are those behind it.
    Submitting,
    /// May be served, cancelled and completed.
    Queued,
    /// Cancelled while it was being submitted or served: who has it ends it.
    Cancelled,
}

/// A request.
pub(crate) struct Request {
    pending: Pending,
    file: FileId,
    /// The process that submitted it.
    process: ProcessId,
    /// The buffer, where it is here, is dropped before the request is completed: until then the process cannot
    /// end, so that its reference to the address space is not the last.
    wants: Wants,
    phase: Phase,
    /// Bytes that a read has got so far, while the rest of its buffer is being faulted in.
    so_far: usize,
    /// Its result, once that is known.
    result: Option<Result<usize>>,
}

impl Request {
    /// What the request ends with if nothing more comes: what it has got, or `error`.
    fn result_or(&self, error: Error) -> Result<usize> {
        if self.so_far > 0 {
            Ok(self.so_far)
        } else {
            Err(error)
        }
    }
}

type Tree = RBTree<Id, Request>;
type Node = RBTreeNode<Id, Request>;
type Index = RBTree<(FileId, Id), ()>;

/// Memory to queue a request with.
pub(crate) struct Reservation {
    node: RBTreeNodeReservation<Id, Request>,
    index: RBTreeNodeReservation<(FileId, Id), ()>,
}

impl Reservation {
    /// Allocates it, charged to the current task's memory cgroup.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            node: RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT)?,
            index: RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT)?,
        })
    }
}

/// Requests taken out to be completed once the lock is released.
pub(crate) struct Done {
    requests: Tree,
    /// Number of those that got bytes, and of those that ended otherwise.
    pub(crate) served: usize,
    pub(crate) ended: usize,
}

impl Done {
    /// Number of requests.
    pub(crate) fn len(&self) -> usize {
        self.served + self.ended
    }

    /// Completes them in order. Not under a lock.
    pub(crate) fn complete(mut self) {
        while let Some(node) = take_first(&mut self.requests) {
            let (_, request) = node.to_key_value();
            drop(request.wants);
            request.pending.complete(request.result.unwrap_or(Err(EIO)));
        }
    }
}

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

/// Requests whose bytes a clear has discarded: those up to number `last`, above position `sent`.
pub(crate) struct Discard {
    sent: u64,
    last: Id,
}

/// All deferred requests of a FIFO.
pub(crate) struct Requests {
    last: Id,
    /// Somebody serves requests. Nobody else does meanwhile, to keep the order.
    serving: bool,
    /// Somebody completes requests. Nobody else does meanwhile, to keep the order.
    completing: bool,
    /// Want data.
    reads: Tree,
    /// Want space.
    writes: Tree,
    /// Want their buffer to be faulted in; then they go back to `reads` or `writes`.
    faulting: Tree,
    /// Want acceptance.
    sent: Tree,
    /// Want to be completed.
    done: Tree,
    /// Requests of each file.
    index: Index,
}

impl Requests {
    /// None.
    pub(crate) fn new() -> Self {
        Self {
            last: 0,
            serving: false,
            completing: false,
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

    /// Ends the submission of request `id`: from now on others serve and complete it, unless it was cancelled, or
    /// nothing is left to wait for.
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
            let answer = answer.or(cancelled.then_some(Err(ECANCELED)));
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
        !self.reads.is_empty()
    }

    /// Whether requests are first in line for space.
    pub(crate) fn want_space(&self) -> bool {
        !self.writes.is_empty()
    }

    /// Requests that wait for acceptance: none, one, or several (2).
    pub(crate) fn want_acceptance(&self) -> usize {
        self.sent.keys().take(2).count()
    }

    /// Whether somebody serves requests.
    pub(crate) fn is_serving(&self) -> bool {
        self.serving
    }

    /// Whether there is something for a server, given `data` and `space` for requests; not while one is at it.
    pub(crate) fn have_work(&self, data: bool, space: bool) -> bool {
        !self.serving && (data && is_first_ready(&self.reads) || space && is_first_ready(&self.writes))
    }

    /// Begins to serve; whether the caller may.
    pub(crate) fn begin_serving(&mut self) -> bool {
        !mem::replace(&mut self.serving, true)
    }

    /// Ends what [`Requests::begin_serving`] began.
    pub(crate) fn end_serving(&mut self) {
        self.serving = false;
    }

    /// Takes the buffer of the request that is first in line, reads before writes; `None` ends the serving.
    pub(crate) fn next_job(&mut self, data: bool, space: bool) -> Option<KBox<Buffer>> {
        if data && is_first_ready(&self.reads) {
            return take_buffer(&mut self.reads);
        }
        if space && is_first_ready(&self.writes) {
            return take_buffer(&mut self.writes);
        }
        self.serving = false;
        None
    }

    /// The first read in line, if it may be served.
    #[cfg(GLOBALFIFO_FAST)]
    pub(crate) fn first_read(&mut self) -> Option<&mut Wants> {
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

    /// Gives the buffer of a request back, which a server could not serve now: it stays first in line, unless
    /// it is not `alive` any more, or cancelled.
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
            request.result = Some(request.result_or(ECANCELED));
        } else {
            return;
        }
        move_node(tree, &mut self.done, id);
    }

    /// A server is done with a request: it has a result. Bytes are added to what the request got before.
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
            move_node(&mut self.writes, &mut self.sent, id);
        }
    }

    /// A server found that the buffer of request `id`, `to_read` or to be written, is not there, after a read got
    /// `bytes`: the request leaves the line until [`Requests::faulted_in`]. False if it was cancelled meanwhile; then
    /// it is done.
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
            request.result = Some(request.result_or(ECANCELED));
            move_node(tree, &mut self.done, id);
            return false;
        }
        request.wants = Wants::Fault;
        move_node(tree, &mut self.faulting, id);
        true
    }

    /// The buffer of a request is there now, or will never be (`result`): it goes back to its place. Gives the
    /// buffer back if the request has ended meanwhile.
    pub(crate) fn faulted_in(
        &mut self,
        mut buffer: KBox<Buffer>,
        result: Result,
    ) -> Option<KBox<Buffer>> {
        let id = buffer.id;
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

    /// Notes what the device has accepted; at most `budget` requests, and whether there may be more.
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

    /// Ends `budget` of those requests at most; whether there may be more.
    pub(crate) fn discard(&mut self, discard: &Discard, budget: usize) -> bool {
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
            if end <= discard.sent {
                return false;
            }
            // One that is being submitted sees it when it is armed; a later one is not meant.
            if request.phase != Phase::Queued || *id > discard.last {
                cursor = at.move_prev();
                continue;
            }
            if left == 0 {
                return true;
            }
            left -= 1;
            request.result = Some(Ok(bytes));
            // The cursor goes to the next, or from the last to the one before.
            let (next, node) = at.remove_current();
            self.done.insert(node);
            cursor = next;
        }
        false
    }

    /// Whether requests want to be completed, and nobody is at it.
    pub(crate) fn have_done(&self) -> bool {
        !self.completing && !self.done.is_empty()
    }

    /// Begins to complete; whether the caller is to call [`Requests::take_done`] until that is `None`.
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
                    request.result = Some(request.result_or(ECANCELED));
                }
            }
            move_node(tree, &mut self.done, id);
            return;
        }
    }

    /// Cancels requests of `file` that `process` submitted, from number `from` on: looks at `budget` of the file's
    /// at most. Where to go on, if there may be more.
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

    /// The FIFO takes no more I/O: ends with `error` what waits for data or space, `budget` requests at most; whether
    /// there may be more.
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

    /// The device will accept nothing more: ends what waits for that, with `error` unless it is below `accepted`. As
    /// [`Requests::abort`].
    pub(crate) fn abort_sent(&mut self, accepted: u64, error: Error, budget: usize) -> bool {
        // What was accepted may still be here, behind one that is being submitted.
        let mut left = budget;
        end_all(&mut self.sent, &mut self.done, &mut left, |request| {
            match request.wants {
                Wants::Acceptance { end, bytes } if end <= accepted => Ok(bytes),
                _ => Err(error),
            }
        });
        left == 0
    }
}

/// Whether the first request of a tree can be served.
fn is_first_ready(tree: &Tree) -> bool {
    tree.cursor_front().is_some_and(|first| {
        let (_, request) = first.current();
        request.phase == Phase::Queued && !matches!(request.wants, Wants::Server)
    })
}

fn take_first(tree: &mut Tree) -> Option<Node> {
    Some(tree.cursor_front_mut()?.remove_current().1)
}

/// Takes the buffer of the first request, which stays first in line.
fn take_buffer(tree: &mut Tree) -> Option<KBox<Buffer>> {
    let (_, request) = tree.iter_mut().next()?;
    request.wants.take_buffer()
}

impl Wants {
    /// Takes the buffer for a server.
    pub(crate) fn take_buffer(&mut self) -> Option<KBox<Buffer>> {
        match mem::replace(self, Wants::Server) {
            Wants::Data(buffer) | Wants::Space(buffer) => Some(buffer),
            other => {
                *self = other;
                None
            }
        }
    }
}

fn move_node(from: &mut Tree, to: &mut Tree, id: Id) {
    if let Some(node) = from.remove_node(&id) {
        to.insert(node);
    }
}

/// Moves requests that are queued and not with a server to `done`, each with its `result`, as many as are `left`.
fn end_all(
    tree: &mut Tree,
    done: &mut Tree,
    left: &mut usize,
    result: impl Fn(&Request) -> Result<usize>,
) {
    let mut cursor = tree.cursor_front_mut();
    while let Some(mut at) = cursor {
        if *left == 0 {
            return;
        }
        let (_, request) = at.current_mut();
        if request.phase != Phase::Queued || matches!(request.wants, Wants::Server) {
            cursor = at.move_next();
            continue;
        }
        request.result = Some(result(request));
        *left -= 1;
        let (next, node) = at.remove_current();
        done.insert(node);
        cursor = next;
    }
}
