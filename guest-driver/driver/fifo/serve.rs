// SPDX-License-Identifier: GPL-2.0-only

//! Deferred requests: submitted, served in process context, handed to a page fault, cancelled.
//!
//! The server is one work of a FIFO's. It takes no page faults and waits for nobody: a request
//! whose buffer is not there leaves the line, and a work of its file ([`FifoFile`]) faults the
//! buffer in. That work may take for ever; meanwhile the request can be cancelled and completed,
//! and others are served.

use super::{
    core::Origin,
    file::{
        Buffer,
        FifoFile,
        Memory, //
    },
    read::{
        Start,
        Transfer, //
    },
    request::{
        Reservation,
        Wants, //
    },
    requests::{
        Armed,
        Circumstances, //
    },
    state::{
        Effects,
        Reader,
        State, //
    },
    write::copy_present,
    Fifo,
    SERVE, //
};
use crate::{
    driver::tunables::{
        JOBS,
        REQUESTS, //
    },
    kapi::{
        kiocb::{
            FileId,
            Id,
            Outcome,
            Request, //
        },
        open_file::ProcessId,
        source::Source,
        wait::Events, //
    },
    trace::raw, //
};
use core::mem;
use kernel::{
    iov::IovIterDest,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    workqueue::WorkItem, //
};

/// What a server's attempt led to.
enum Served {
    /// The request has its result.
    Done(Result<usize>),
    /// The request stays first in line.
    NotNow,
    /// The rest of the buffer is not there; so many bytes have been read, up to this position.
    Fault(usize, Option<u64>),
    /// Bytes of a write were sent: the request waits for acceptance.
    Sent,
}

impl Fifo {
    /// Defers a request until it gets what it `wants`, which is decided under the lock.
    pub(super) fn defer<'a>(
        self: ArcBorrow<'_, Self>,
        file: ArcBorrow<'_, FifoFile>,
        request: Request<'a, FifoFile>,
        wants: impl FnOnce(&mut State) -> Result<Wants>,
    ) -> Outcome<'a> {
        self.try_defer(file, request, |state, _| wants(state).map(Some))
            .unwrap_or_else(|request| request.answer(Err(EAGAIN)))
    }

    /// As [`Fifo::defer`], where the decision changes the state, or gives the request back: by
    /// `None`.
    pub(super) fn try_defer<'a>(
        self: ArcBorrow<'_, Self>,
        file: ArcBorrow<'_, FifoFile>,
        request: Request<'a, FifoFile>,
        wants: impl FnOnce(&mut State, &mut Effects) -> Result<Option<Wants>>,
    ) -> Result<Outcome<'a>, Request<'a, FifoFile>> {
        let memory = match Reservation::new() {
            Ok(memory) => memory,
            Err(error) => return Ok(request.answer(Err(error))),
        };
        let owner = (file.id(), ProcessId::of_current());
        let deferred = self.change(Origin::Task, |state, effects| {
            let wants = match state.check().and_then(|()| wants(state, effects)) {
                Ok(Some(wants)) => wants,
                Ok(None) => return Err((request, None)),
                Err(error) => return Err((request, Some(error))),
            };
            let id = state.requests.next_id();
            let (pending, submission) = match request.defer(id) {
                Ok(deferred) => deferred,
                Err(request) => return Err((request, Some(EINVAL))),
            };
            self.trace.request_queue(id as u64, wants.kind() as u32);
            state.requests.add(memory, id, owner, pending, wants);
            Ok((id, submission))
        });
        let (id, submission) = match deferred {
            Ok(deferred) => deferred,
            Err((request, Some(error))) => return Ok(request.answer(Err(error))),
            Err((request, None)) => return Err(request),
        };
        submission.allow_cancel();
        let armed = self.change(Origin::Task, |state, effects| {
            let now = Circumstances {
                alive: state.check(),
                writing: state.check_writing(),
                sending: state.check_sending(),
                accepted: state.tx.accepted(),
                sent: state.tx.positions().0,
            };
            let armed = state.requests.arm(id, &now);
            state.pump(effects);
            armed
        });
        Ok(match armed {
            Armed::Queued => submission.queued(),
            Armed::Answer(pending, answer) => {
                self.stats.aio_at_submit.add(1);
                submission.answer(pending, answer)
            }
        })
    }

    /// Completes what is done, announces what cancels brought about, and serves requests as long as
    /// there is something for them; after [`JOBS`] others in the work queue come first.
    fn serve(self: ArcBorrow<'_, Self>) {
        let (owed, serving) = self.change(Origin::Server, |state, _| {
            let owed = mem::replace(&mut state.owed, Events::NONE);
            state.requests_rest = false;
            (owed, state.requests.begin_serving())
        });
        self.notifier.notify(owed, &self.stats, &self.trace);
        if !serving {
            // The one that serves queues this work again.
            return;
        }
        for _ in 0..JOBS {
            let job = self.change(Origin::Server, |state, _| {
                let (data, space) = state.for_requests();
                state.requests.next_job(data, space)
            });
            match job {
                Some(buffer) => self.serve_one(buffer),
                None => return (self.hooks.after_serving)(self),
            }
        }
        self.state.lock().requests.end_serving();
        self.start_server();
    }

    /// Serves the request that is first in line, whose buffer this is.
    fn serve_one(self: ArcBorrow<'_, Self>, mut buffer: KBox<Buffer>) {
        let id = buffer.id;
        let start = buffer.resumes_at.map_or(Start::Anywhere, Start::At);
        let part_is_enough = buffer.was_faulted_in;
        let gives_up = buffer.gives_up();
        let (to_read, served) = match &mut buffer.memory {
            Memory::Dest(memory, _) => (true, memory.enter(|to| self.serve_read(to, start))),
            Memory::Source(memory) => {
                let serve =
                    |from: &mut _| self.serve_write(id, &mut Source::new(from), part_is_enough);
                (false, memory.enter(serve))
            }
        };
        // Without the process, nothing was read or written.
        match served.unwrap_or(Served::Done(Err(EFAULT))) {
            Served::Fault(0, _) if gives_up => self.finish(buffer, Err(EFAULT)),
            Served::Done(result) => self.finish(buffer, result),
            Served::Sent => {}
            Served::NotNow => self.change(Origin::Server, |state, _| {
                let alive = if to_read {
                    state.check()
                } else {
                    state.check_writing()
                };
                state.requests.put_back(buffer, alive);
            }),
            Served::Fault(bytes, next) => {
                buffer.note_fault(bytes);
                buffer.resumes_at = next.or(buffer.resumes_at);
                let faults = self.change(Origin::Server, |state, _| {
                    state.requests.fault(id, to_read, bytes)
                });
                if faults {
                    FifoFile::fault_in(buffer);
                }
            }
        }
    }

    /// Gives a request its result.
    fn finish(self: ArcBorrow<'_, Self>, buffer: KBox<Buffer>, result: Result<usize>) {
        let id = buffer.id;
        // First: once the request is completed this may be the last that refers to the file.
        drop(buffer);
        self.trace.request_serve(id as u64, raw(result));
        self.change(Origin::Server, |state, _| state.requests.finish(id, result));
    }

    fn serve_read(self: ArcBorrow<'_, Self>, to: &mut IovIterDest<'_>, start: Start) -> Served {
        match self.transfer(to, Reader::Server, start) {
            Ok(Transfer::Read {
                bytes,
                fault: true,
                next,
            }) => Served::Fault(bytes, (bytes > 0).then_some(next)),
            Ok(Transfer::Read { bytes, .. }) => Served::Done(Ok(bytes)),
            // What it got before a page fault has to be followed by the very next byte.
            Ok(Transfer::Nothing) if start != Start::Anywhere => Served::Done(Ok(0)),
            Ok(Transfer::Nothing) => Served::NotNow,
            Err(error) => Served::Done(Err(error)),
        }
    }

    fn serve_write(
        self: ArcBorrow<'_, Self>,
        id: Id,
        from: &mut Source<'_, '_>,
        part_is_enough: bool,
    ) -> Served {
        let asked = from.len();
        let (wanted, empty) = {
            let mut state = self.state.lock();
            let credit = usize::try_from(state.credit()).unwrap_or(usize::MAX);
            let wanted = credit.min(asked);
            (wanted, state.tx.empty(wanted))
        };
        if wanted == 0 {
            return Served::NotNow;
        }
        let mut outgoing = match copy_present(from, wanted, empty, part_is_enough) {
            Ok(Some(outgoing)) => outgoing,
            Ok(None) => return Served::Fault(0, None),
            Err(error) => return Served::Done(Err(error)),
        };
        // Nobody else writes while a request is first in line, so all of it still fits, or the FIFO
        // is gone.
        self.change(Origin::Server, |state, effects| {
            if let Err(gone) = state.check_writing() {
                return Served::Done(Err(gone));
            }
            let (messages, sizes) = (&mut outgoing.messages, (outgoing.bytes, asked));
            let credit = state.credit();
            let bytes = state.enqueue(messages, sizes, credit, effects);
            if bytes == 0 {
                from.put_back(outgoing.bytes);
                return Served::NotNow;
            }
            // In the same hold: a clear that came between would not find the request.
            self.trace.request_serve(id as u64, raw(Ok(bytes)));
            state.requests.sent(id, state.tx.positions().0, bytes);
            state.pump(effects);
            Served::Sent
        })
    }

    /// Whether request `id` waits for its buffer to be faulted in.
    pub(crate) fn is_faulting(&self, id: Id) -> bool {
        self.state.lock().requests.is_faulting(id)
    }

    /// A buffer has been faulted in, or cannot be.
    pub(crate) fn faulted_in(self: ArcBorrow<'_, Self>, buffer: KBox<Buffer>, result: Result) {
        let left = self.change(Origin::Server, |state, _| {
            state.requests.faulted_in(buffer, result)
        });
        drop(left);
    }

    /// Cancels the requests of `file` that `process` submitted.
    pub(crate) fn end_requests_of(self: ArcBorrow<'_, Self>, file: FileId, process: ProcessId) {
        let mut from = Some(0);
        while let Some(first) = from {
            from = self.change(Origin::Task, |state, _| {
                state.requests.cancel_of(file, process, first, REQUESTS)
            });
        }
    }

    /// Cancels a request: under AIO's lock, where nothing can be completed, woken or signalled.
    pub(crate) fn cancel(self: ArcBorrow<'_, Self>, id: Id) {
        self.trace.request_cancel(id as u64);
        let work = {
            let mut state = self.state.lock();
            let before = state.readiness();
            state.requests.cancel(id);
            let rising = state.readiness().since(before);
            state.owed |= rising;
            state.have_work() || state.requests.have_done()
        };
        if work {
            self.start_server();
        }
    }
}

impl WorkItem<SERVE> for Fifo {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.as_arc_borrow().serve();
    }
}
