// SPDX-License-Identifier: GPL-2.0-only

//! One deferred request: what it waits for, and its place in a tree.
//!
//! Plain state: must not know the rules by which requests are served and ended
//! ([`super::requests`], [`super::endings`]).

use super::file::Buffer;
use crate::{
    kapi::{
        kiocb::{
            FileId,
            Id,
            Pending, //
        },
        open_file::ProcessId, //
    },
    trace::{
        raw,
        Tracer,
        Want, //
    }, //
};
use core::mem;
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode,
        RBTreeNodeReservation, //
    }, //
};

/// Condition that a request waits for.
pub(crate) enum Wants {
    /// Data, or the end.
    Data(KBox<Buffer>),
    /// Space.
    Space(KBox<Buffer>),
    /// A server, which has the buffer and is done with it soon.
    Server,
    /// A page fault, which may take for ever; whoever waits for it has the buffer.
    Fault,
    /// Acceptance of all below `end` by the device; `bytes` of that are the request's.
    Acceptance { end: u64, bytes: usize },
}

/// Life cycle of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Belongs to the task that submits it, and is left alone, as are those behind it.
    Submitting,
    /// May be served, cancelled and completed.
    Queued,
    /// Cancelled while it was being submitted or served: who has it ends it.
    Cancelled,
}

/// A request.
pub(crate) struct Request {
    pub(super) pending: Pending,
    pub(super) file: FileId,
    /// The process that submitted it.
    pub(super) process: ProcessId,
    /// The buffer, where it is here, is dropped before the request is completed: until then the
    /// process cannot end, so that its reference to the address space is not the last.
    pub(super) wants: Wants,
    pub(super) phase: Phase,
    /// Bytes that a read has got so far, while the rest of its buffer is being faulted in.
    pub(super) so_far: usize,
    /// Its result, once that is known.
    pub(super) result: Option<Result<usize>>,
}

impl Request {
    /// What the request ends with if nothing more comes: what it has got, or `error`.
    pub(super) fn result_or(&self, error: Error) -> Result<usize> {
        if self.so_far > 0 {
            Ok(self.so_far)
        } else {
            Err(error)
        }
    }
}

pub(super) type Tree = RBTree<Id, Request>;
type Node = RBTreeNode<Id, Request>;
pub(super) type Index = RBTree<(FileId, Id), ()>;

/// Memory to queue a request with.
pub(crate) struct Reservation {
    pub(super) node: RBTreeNodeReservation<Id, Request>,
    pub(super) index: RBTreeNodeReservation<(FileId, Id), ()>,
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
    pub(super) requests: Tree,
    /// Number of those that got bytes, and of those that ended otherwise.
    pub(crate) served: usize,
    pub(crate) ended: usize,
    /// One has got bytes before a page fault, and perhaps not all that it asked for.
    pub(super) is_short: bool,
}

impl Done {
    /// Number of requests.
    pub(crate) fn len(&self) -> usize {
        self.served + self.ended
    }

    /// Completes them in order. Not under a lock.
    pub(crate) fn complete(mut self, trace: &Tracer) {
        while let Some(node) = take_first(&mut self.requests) {
            let (id, request) = node.to_key_value();
            let result = request.result.unwrap_or(Err(EIO));
            drop(request.wants);
            trace.request_complete(id as u64, raw(result));
            request.pending.complete(result);
        }
    }
}

/// Whether the first request of a tree can be served.
pub(super) fn is_first_ready(tree: &Tree) -> bool {
    tree.cursor_front().is_some_and(|first| {
        let (_, request) = first.current();
        request.phase == Phase::Queued && !matches!(request.wants, Wants::Server)
    })
}

pub(super) fn take_first(tree: &mut Tree) -> Option<Node> {
    Some(tree.cursor_front_mut()?.remove_current().1)
}

/// Takes the buffer of the first request, which stays first in line.
pub(super) fn take_buffer(tree: &mut Tree) -> Option<KBox<Buffer>> {
    let (_, request) = tree.iter_mut().next()?;
    request.wants.take_buffer()
}

impl Wants {
    /// What to call it in a tracepoint.
    pub(super) fn kind(&self) -> Want {
        match self {
            Self::Space(_) => Want::Space,
            Self::Acceptance { .. } => Want::Acceptance,
            Self::Data(_) | Self::Server | Self::Fault => Want::Data,
        }
    }

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

pub(super) fn move_node(from: &mut Tree, to: &mut Tree, id: Id) {
    if let Some(node) = from.remove_node(&id) {
        to.insert(node);
    }
}

/// Moves requests that are queued and not with a server to `done`, each with its `result`, as many
/// as are `left`.
pub(super) fn end_all(
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
