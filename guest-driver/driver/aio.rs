// SPDX-License-Identifier: GPL-2.0-only

//! The asynchronous requests of one FIFO, by what they wait for.
//!
//! Plain state; [`super::fifo`] locks it. A request is in one of four trees, ordered by the numbers
//! that requests get as they come, so that each direction is served in order. Moving between trees
//! moves a node, which never allocates: it happens under AIO's lock and in interrupts.
//!
//! A request is *armed* once it can be cancelled; until then it belongs to the task that submits it,
//! and is left alone, as are those behind it.

use crate::kapi::aio::{
    FileId,
    Id,
    Pending,
    UserDest,
    UserSource, //
};
use core::mem;
use kernel::{
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode,
        RBTreeNodeReservation, //
    },
};

/// What a request needs to go on.
pub(crate) enum Wants {
    /// Data to be put there.
    Data(UserDest),
    /// Space for what is there.
    Space(UserSource),
    /// The worker to be done with it.
    Worker,
    /// The device to accept all below `end`; `bytes` of that are its own.
    Acceptance { end: u64, bytes: usize },
}

/// A request.
pub(crate) struct Aio {
    pending: Pending,
    /// Buffers belong to a process, and hold on to its memory: dropped before the request is completed, up
    /// to when the process cannot end, so that ours is never the last hold; that could only be let go of in
    /// process context.
    wants: Wants,
    /// What it is to be completed with, once that is known.
    result: Option<Result<usize>>,
    armed: bool,
    /// Cancelled while it was not armed, or with the worker.
    cancelled: bool,
}

/// Memory to queue a request with.
pub(crate) type Reservation = RBTreeNodeReservation<Id, Aio>;

type Node = RBTreeNode<Id, Aio>;
type Tree = RBTree<Id, Aio>;

/// Requests taken out to be completed once the lock is released.
pub(crate) struct Completions(Tree);

impl Completions {
    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.0.keys().count()
    }

    /// Completes them, in order, each with what it has come to. Not under a lock.
    pub(crate) fn complete(mut self) {
        while let Some(node) = take_first(&mut self.0) {
            Completion(node).complete();
        }
    }
}

/// One such request.
pub(crate) struct Completion(Node);

impl Completion {
    /// As [`Completions::complete`].
    pub(crate) fn complete(self) {
        let (_, aio) = self.0.to_key_value();
        let result = aio.result.unwrap_or(match aio.wants {
            Wants::Acceptance { bytes, .. } => Ok(bytes),
            Wants::Data(_) | Wants::Space(_) | Wants::Worker => Err(EIO),
        });
        drop(aio.wants);
        aio.pending.complete(result);
    }
}

/// What came of arming a request.
pub(crate) enum Armed {
    /// It will be completed; the task that submitted it is done with it.
    Yes,
    /// It was taken back: this is the answer.
    Answer(Result<usize>),
}

/// What the worker takes in hand.
pub(crate) enum Job {
    /// To read into there.
    Read(Id, UserDest),
    /// To write what is there.
    Write(Id, UserSource),
    /// To pin the memory of the reads that are next in line, which [`Requests::take_untried`] gives out.
    Pin,
}

/// Most reads in line whose memory is pinned. Those that wait behind them may wait for long, and for no
/// data ever: nobody is to take memory from others by that.
pub(crate) const PINNED: usize = 8;

/// All asynchronous requests of a FIFO.
pub(crate) struct Requests {
    last: Id,
    /// Somebody serves requests, the worker or in place: nobody else does meanwhile, to keep the order.
    serving: bool,
    /// Want data.
    reads: Tree,
    /// Want space.
    writes: Tree,
    /// Were written: the device has to accept it.
    sent: Tree,
    /// Are accepted, and to be completed in this order.
    accepted: Tree,
    /// Somebody is completing accepted requests: others leave theirs to them, to keep the order.
    completing: bool,
    /// Want nothing but to be completed, by the worker.
    finished: Tree,
}

impl Requests {
    /// None.
    pub(crate) fn new() -> Self {
        Self {
            last: 0,
            serving: false,
            reads: Tree::new(),
            writes: Tree::new(),
            sent: Tree::new(),
            accepted: Tree::new(),
            completing: false,
            finished: Tree::new(),
        }
    }

    /// A number for the next request.
    pub(crate) fn next_id(&mut self) -> Id {
        self.last += 1;
        self.last
    }

    /// Queues a request, not armed yet.
    pub(crate) fn add(&mut self, memory: Reservation, id: Id, pending: Pending, wants: Wants) {
        let tree = match wants {
            Wants::Data(_) => &mut self.reads,
            Wants::Space(_) => &mut self.writes,
            Wants::Acceptance { .. } => &mut self.sent,
            Wants::Worker => &mut self.finished,
        };
        tree.insert(memory.into_node(
            id,
            Aio {
                pending,
                wants,
                result: None,
                armed: false,
                cancelled: false,
            },
        ));
    }

    /// Lets others complete request `id`, unless it was cancelled, `alive` says that it should fail
    /// (`writing`, if it wants space, `sending`, if its bytes are on their way), or nothing is left to
    /// wait for: its bytes are below `accepted`, or not among those `sent`.
    pub(crate) fn arm(
        &mut self,
        id: Id,
        alive: Result,
        writing: Result,
        sending: Result,
        accepted: u64,
        sent: u64,
    ) -> Armed {
        // An answer must not overtake the completion of an earlier request.
        let first = self.accepted.is_empty() && !self.completing && self.is_first_sent(id);
        for tree in [&mut self.reads, &mut self.writes, &mut self.sent] {
            let Some(aio) = tree.get_mut(&id) else {
                continue;
            };
            let alive = match &aio.wants {
                // Accepted behind others, which complete first.
                Wants::Acceptance { end, .. } if *end <= accepted => Ok(()),
                Wants::Acceptance { .. } => sending,
                Wants::Space(_) => writing,
                Wants::Data(_) | Wants::Worker => alive,
            };
            let answer = match (&aio.wants, alive) {
                (Wants::Acceptance { end, bytes }, _)
                    if first && *end <= accepted || *end > sent || aio.cancelled =>
                {
                    Ok(*bytes)
                }
                (_, Err(error)) => Err(error),
                (_, Ok(())) if aio.cancelled => Err(ECANCELED),
                (_, Ok(())) => {
                    aio.armed = true;
                    return Armed::Yes;
                }
            };
            if let Some(aio) = tree.remove(&id) {
                aio.pending.withdraw();
            }
            return Armed::Answer(answer);
        }
        // Not armed, so nobody else can have taken it.
        Armed::Answer(Err(EIO))
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

    /// Whether requests wait for the device to accept what they wrote.
    pub(crate) fn want_acceptance(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Whether more than one does.
    pub(crate) fn many_want_acceptance(&self) -> bool {
        self.sent.keys().nth(1).is_some()
    }

    /// Whether the memory of one more read may be pinned.
    pub(crate) fn may_pin(&self) -> bool {
        self.reads.keys().nth(PINNED - 1).is_none()
    }

    /// Whether there is something for the worker, given what there is for requests; not while somebody
    /// serves them, who looks himself.
    pub(crate) fn have_work(&self, data: bool, space: bool) -> bool {
        !self.serving
            && (!self.finished.is_empty()
                || data && is_first_ready(&self.reads)
                || space && is_first_ready(&self.writes))
    }

    /// Whether the caller is to serve reads in place, until [`Requests::goes_on_landing`] is false: there is
    /// data, and the memory for it is pinned.
    pub(crate) fn begin_landing(&mut self, data: bool) -> bool {
        let begin = !self.serving && data && is_first_pinned(&self.reads);
        self.serving |= begin;
        begin
    }

    /// Whether there still is a read to be served in place; if not, the caller's turn is over.
    pub(crate) fn goes_on_landing(&mut self, data: bool) -> bool {
        self.serving = data && is_first_pinned(&self.reads);
        self.serving
    }

    /// The read that is first in line and to be served in place, if it wants `most` bytes at most.
    pub(crate) fn take_landing(&mut self, most: usize) -> Option<UserDest> {
        let mut first = self.reads.cursor_front_mut()?;
        let (_, aio) = first.current_mut();
        match mem::replace(&mut aio.wants, Wants::Worker) {
            Wants::Data(to) if aio.armed && to.pinned_len().is_some_and(|len| len <= most) => {
                Some(to)
            }
            other => {
                aio.wants = other;
                None
            }
        }
    }

    /// Whether the caller, the worker, is to serve requests, until [`Requests::take_job`] is `None`.
    pub(crate) fn begin_serving(&mut self) -> bool {
        !mem::replace(&mut self.serving, true)
    }

    /// Whether somebody serves requests.
    pub(crate) fn is_serving(&self) -> bool {
        self.serving
    }

    /// Whoever serves requests stops, whatever there is to do.
    pub(crate) fn end_serving(&mut self) {
        self.serving = false;
    }

    /// Gives the worker the request that is first in line. With `pin` it is to prepare for more data once
    /// there is none.
    pub(crate) fn take_job(&mut self, data: bool, space: bool, pin: bool) -> Option<Job> {
        if data && is_first_ready(&self.reads) {
            if let Some((id, Wants::Data(to))) = take_wants(&mut self.reads) {
                return Some(Job::Read(id, to));
            }
        }
        if space && is_first_ready(&self.writes) {
            if let Some((id, Wants::Space(from))) = take_wants(&mut self.writes) {
                return Some(Job::Write(id, from));
            }
        }
        if pin && !data && untried(&mut self.reads).next().is_some() {
            return Some(Job::Pin);
        }
        self.serving = false;
        None
    }

    /// Gives the worker those of the first [`PINNED`] reads that may be pinned, as many as `into` has room
    /// for.
    pub(crate) fn take_untried(&mut self, into: &mut KVec<(Id, UserDest)>) {
        for (id, wants) in untried(&mut self.reads) {
            match mem::replace(wants, Wants::Worker) {
                Wants::Data(to) => {
                    if let Err(full) = into.push_within_capacity((id, to)) {
                        let (_, to) = full.0;
                        *wants = Wants::Data(to);
                    }
                }
                other => *wants = other,
            }
        }
    }

    /// Gives a task that submits the first of those that [`Requests::take_untried`] would give out, if it is of the
    /// same process. That does not make it the one who serves: the others are served meanwhile.
    pub(crate) fn take_untried_of_current(&mut self) -> Option<(Id, UserDest)> {
        let (id, wants) = untried(&mut self.reads).next()?;
        match mem::replace(wants, Wants::Worker) {
            Wants::Data(to) if to.is_of_current() => Some((id, to)),
            other => {
                *wants = other;
                None
            }
        }
    }

    /// The worker is done with a request: it has a `result`, or wants something else. A write that
    /// was sent waits for acceptance, one that found no space after all stays first in line.
    pub(crate) fn put_back(&mut self, id: Id, wants: Wants, result: Option<Result<usize>>) {
        for tree in [&mut self.reads, &mut self.writes] {
            let Some(aio) = tree.get_mut(&id) else {
                continue;
            };
            let was_sent = matches!(wants, Wants::Acceptance { .. });
            aio.wants = wants;
            aio.result = result;
            if aio.cancelled && aio.result.is_none() && !was_sent {
                aio.result = Some(Err(ECANCELED));
            }
            let target = if aio.result.is_some() {
                &mut self.finished
            } else if was_sent {
                &mut self.sent
            } else {
                return;
            };
            if let Some(node) = tree.remove_node(&id) {
                target.insert(node);
            }
            return;
        }
    }

    /// As [`Requests::put_back`] for what [`Requests::take_landing`] has given, which is still first in line; if
    /// it has a `result`, it is the caller's to complete.
    pub(crate) fn put_back_landing(
        &mut self,
        to: UserDest,
        result: Option<Result<usize>>,
    ) -> Option<Completion> {
        let mut first = self.reads.cursor_front_mut()?;
        let (_, aio) = first.current_mut();
        debug_assert!(matches!(aio.wants, Wants::Worker));
        aio.wants = Wants::Data(to);
        aio.result = result.or(aio.cancelled.then_some(Err(ECANCELED)));
        let is_over = aio.result.is_some();
        is_over.then(|| Completion(first.remove_current().1))
    }

    /// Notes what the device has accepted.
    pub(crate) fn accept(&mut self, accepted: u64) {
        while let Some(first) = self.sent.cursor_front() {
            let (_, aio) = first.current();
            match aio.wants {
                Wants::Acceptance { end, .. } if aio.armed && end <= accepted => {}
                _ => return,
            }
            match take_first(&mut self.sent) {
                Some(node) => self.accepted.insert(node),
                None => return,
            };
        }
    }

    /// Notes that the bytes above `sent` were discarded before they were posted: there is nothing to
    /// wait for.
    pub(crate) fn discard(&mut self, sent: u64) {
        while let Some(last) = self.sent.cursor_back_mut() {
            let (_, aio) = last.current();
            match aio.wants {
                Wants::Acceptance { end, .. } if aio.armed && end > sent => {}
                _ => return,
            }
            self.accepted.insert(last.remove_current().1);
        }
    }

    /// Whether the caller is to complete accepted requests, batch by batch, until there are none.
    pub(crate) fn begin_completing(&mut self) -> bool {
        let begin = !self.completing && !self.accepted.is_empty();
        self.completing |= begin;
        begin
    }

    /// The next accepted requests, `most` at most; with `None` the caller's turn is over. One who
    /// stops before that has to have somebody go on.
    pub(crate) fn next_accepted(&mut self, most: usize) -> Option<Completions> {
        let mut next = Tree::new();
        for _ in 0..most {
            match take_first(&mut self.accepted) {
                Some(node) => next.insert(node),
                None => break,
            };
        }
        self.completing = !next.is_empty();
        self.completing.then_some(Completions(next))
    }

    /// Takes out what is finished.
    pub(crate) fn take_finished(&mut self) -> Completions {
        Completions(mem::replace(&mut self.finished, Tree::new()))
    }

    /// Request `id` is not wanted any more.
    pub(crate) fn cancel(&mut self, id: Id) {
        for tree in [&mut self.reads, &mut self.writes, &mut self.sent] {
            let Some(aio) = tree.get_mut(&id) else {
                continue;
            };
            aio.cancelled = true;
            if !aio.armed {
                // Its submitter sees it.
                return;
            }
            aio.result = Some(match aio.wants {
                // It sees to it when it has nothing better to report.
                Wants::Worker => return,
                // The bytes cannot be called back.
                Wants::Acceptance { bytes, .. } => Ok(bytes),
                Wants::Data(_) | Wants::Space(_) => Err(ECANCELED),
            });
            if let Some(node) = tree.remove_node(&id) {
                self.finished.insert(node);
            }
            return;
        }
    }

    /// How many requests of `file` there are.
    pub(crate) fn count_of(&self, file: FileId) -> usize {
        [
            &self.reads,
            &self.writes,
            &self.sent,
            &self.accepted,
            &self.finished,
        ]
        .into_iter()
        .flat_map(|tree| tree.values())
        .filter(|aio| aio.pending.file() == file)
        .count()
    }

    /// Cancels all requests of `file`.
    pub(crate) fn cancel_of(&mut self, file: FileId) {
        while let Some(id) = self.first_of(file) {
            self.cancel(id);
        }
    }

    /// The first request of `file` that is not cancelled.
    fn first_of(&self, file: FileId) -> Option<Id> {
        [&self.reads, &self.writes, &self.sent]
            .into_iter()
            .flat_map(|tree| tree.iter())
            .find(|(_, aio)| aio.pending.file() == file && !aio.cancelled)
            .map(|(id, _)| *id)
    }

    /// The FIFO takes no more I/O: what waits for data or space ends with `error`.
    pub(crate) fn abort(&mut self, error: Error) {
        abort_tree(&mut self.reads, &mut self.finished, |_| Err(error));
        self.abort_writes(error);
    }

    /// The FIFO takes no more writes: those that wait end with `error`.
    pub(crate) fn abort_writes(&mut self, error: Error) {
        abort_tree(&mut self.writes, &mut self.finished, |_| Err(error));
    }

    /// The device will accept nothing more: what waits for that ends with `error`, but for what is
    /// below `accepted`. Such requests may still be here, behind one that is not armed.
    pub(crate) fn abort_sent(&mut self, accepted: u64, error: Error) {
        abort_tree(&mut self.sent, &mut self.finished, |wants| match wants {
            Wants::Acceptance { end, bytes } if *end <= accepted => Ok(*bytes),
            _ => Err(error),
        });
    }
}

fn is_first_ready(tree: &Tree) -> bool {
    tree.cursor_front().is_some_and(|first| {
        let (_, aio) = first.current();
        aio.armed && !matches!(aio.wants, Wants::Worker)
    })
}

fn is_first_pinned(tree: &Tree) -> bool {
    tree.cursor_front().is_some_and(|first| {
        let (_, aio) = first.current();
        aio.armed && matches!(&aio.wants, Wants::Data(to) if to.pinned_len().is_some())
    })
}

/// What the first [`PINNED`] reads want, of those that nobody has tried to pin.
fn untried(reads: &mut Tree) -> impl Iterator<Item = (Id, &mut Wants)> {
    let first = reads.iter_mut().take(PINNED);
    let armed = first.take_while(|(_, aio)| aio.armed);
    armed.filter_map(|(id, aio)| match &aio.wants {
        Wants::Data(to) if to.is_untried() => Some((*id, &mut aio.wants)),
        _ => None,
    })
}

fn take_first(tree: &mut Tree) -> Option<Node> {
    Some(tree.cursor_front_mut()?.remove_current().1)
}

/// Takes what the first request wants; it stays first in line.
fn take_wants(tree: &mut Tree) -> Option<(Id, Wants)> {
    let mut first = tree.cursor_front_mut()?;
    let (id, aio) = first.current_mut();
    Some((*id, mem::replace(&mut aio.wants, Wants::Worker)))
}

/// Moves the armed requests that are not with the worker, each with the result for what it wants.
fn abort_tree(tree: &mut Tree, finished: &mut Tree, result: impl Fn(&Wants) -> Result<usize>) {
    let mut cursor = tree.cursor_front_mut();
    while let Some(mut at) = cursor {
        let (_, aio) = at.current_mut();
        if !aio.armed || matches!(aio.wants, Wants::Worker) {
            cursor = at.move_next();
            continue;
        }
        aio.result = Some(result(&aio.wants));
        let (next, node) = at.remove_current();
        finished.insert(node);
        cursor = next;
    }
}
