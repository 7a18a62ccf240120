// SPDX-License-Identifier: GPL-2.0-only

//! Pinned reads: the memory of the first deferred reads in line is pinned, and they are served in
//! the interrupt.
//!
//! Without it the server's thread has to be woken, and enters the process's memory. Few are pinned,
//! and small ones: a read may wait for ever, and its memory is pinned for as long. Memory is never
//! faulted in for that. A process that has changed its mappings since is served by the server,
//! which finds what the address means now.
//!
//! Gain (docs/performance.md): libaio 1.37 to 1.15 of a blocking read, 10,000 waiters 1.29 to 1.08
//! of one.

use crate::{
    driver::{
        fast_tunables::{
            PINNED,
            PINNED_PER_INTERRUPT, //
        },
        fifo::{
            file::{
                Buffer,
                Memory, //
            },
            read::{
                Start,
                Transfer, //
            },
            request::Wants,
            requests::Requests,
            state::{
                Reader,
                State, //
            },
            Fifo,
            Origin, //
        },
    },
    kapi::{
        pinned::Pinned,
        user_memory::{
            Dest,
            UserMemory, //
        },
    },
    trace::raw, //
};
use kernel::{
    prelude::*,
    sync::ArcBorrow, //
};

/// A read is about to be deferred: pins its memory if it is among the first in line. Otherwise pins
/// that of the first untried one of the same process: a task that submits a read for each that is
/// completed never needs the server.
pub(super) fn at_submit(fifo: ArcBorrow<'_, Fifo>, memory: &mut UserMemory<Dest>) -> Pinned {
    let in_line = fifo.state.lock().requests.reads_in_line(PINNED);
    if in_line < PINNED {
        return Pinned::pin(memory);
    }
    let untried = take_untried(&mut fifo.state.lock().requests, UserMemory::is_of_current);
    if let Some(mut buffer) = untried {
        if let Memory::Dest(memory, pinned) = &mut buffer.memory {
            *pinned = Pinned::pin(memory);
        }
        give_back(fifo, buffer);
    }
    Pinned::default()
}

/// Takes the buffer of the first of the reads in line that nobody has tried to pin, if it `suits`.
fn take_untried(
    requests: &mut Requests,
    suits: impl Fn(&UserMemory<Dest>) -> bool,
) -> Option<KBox<Buffer>> {
    let untried = requests.first_reads(PINNED).find(|wants| match wants {
        Wants::Data(buffer) => {
            matches!(&buffer.memory, Memory::Dest(_, pinned) if pinned.is_untried())
        }
        _ => false,
    })?;
    let suitable = match untried {
        Wants::Data(buffer) => {
            matches!(&buffer.memory, Memory::Dest(memory, _) if suits(memory))
        }
        _ => false,
    };
    suitable.then(|| untried.take_buffer()).flatten()
}

/// Gives a buffer back; data that has come for its request meanwhile could not be served.
fn give_back(fifo: ArcBorrow<'_, Fifo>, buffer: KBox<Buffer>) {
    fifo.change(Origin::Task, |state, _| {
        let alive = state.check();
        state.requests.put_back(buffer, alive);
    });
}

/// The server has nothing left to do: pins the reads that are next in line.
pub(super) fn pin_next(fifo: ArcBorrow<'_, Fifo>) {
    for _ in 0..PINNED {
        let Some(mut buffer) = take_untried(&mut fifo.state.lock().requests, |_| true) else {
            return;
        };
        if let Memory::Dest(memory, pinned) = &mut buffer.memory {
            *pinned = Pinned::pin_entered(memory);
        }
        give_back(fifo, buffer);
    }
}

/// Whether the first read in line is pinned.
fn is_first_pinned(requests: &mut Requests) -> bool {
    match requests.first_read() {
        Some(Wants::Data(buffer)) => {
            matches!(&buffer.memory, Memory::Dest(_, pinned) if pinned.is_pinned())
        }
        _ => false,
    }
}

/// Whether the caller is to serve in place: there is data, and the first read in line is pinned.
pub(super) fn begin(state: &mut State) -> bool {
    let (data, _) = state.for_requests();
    data && !state.requests.is_serving()
        && is_first_pinned(&mut state.requests)
        && state.requests.begin_serving()
}

/// Serves pinned reads, a bounded number; the server goes on with the rest.
pub(super) fn serve(fifo: ArcBorrow<'_, Fifo>) {
    for _ in 0..PINNED_PER_INTERRUPT {
        let buffer = fifo.change(Origin::Interrupt, |state, _| {
            let (data, _) = state.for_requests();
            if data && is_first_pinned(&mut state.requests) {
                return state.requests.first_read().and_then(Wants::take_buffer);
            }
            state.requests.end_serving();
            None
        });
        let Some(buffer) = buffer else {
            return;
        };
        serve_one(fifo, buffer);
    }
    fifo.change(Origin::Interrupt, |state, _| state.requests.end_serving());
}

fn serve_one(fifo: ArcBorrow<'_, Fifo>, mut buffer: KBox<Buffer>) {
    let id = buffer.id;
    let start = buffer.resumes_at.map_or(Start::Anywhere, Start::At);
    let Memory::Dest(memory, pinned) = &mut buffer.memory else {
        return;
    };
    let read = pinned.with(memory, |to| fifo.transfer(to, Reader::Server, start));
    let result = match read {
        Some(Ok(Transfer::Read { bytes, .. })) => Ok(bytes),
        Some(Err(error)) => Err(error),
        Some(Ok(Transfer::Nothing)) => return put_back(fifo, buffer),
        None => {
            // The server finds what the address means now.
            pinned.release();
            return put_back(fifo, buffer);
        }
    };
    // Before the request is completed: afterwards it may be the last that refers to the file and to
    // the address space, which are not freed in an interrupt.
    drop(buffer);
    fifo.stats.aio_in_place.add(result.is_ok().into());
    fifo.trace.request_serve(id as u64, raw(result));
    fifo.change(Origin::Interrupt, |state, _| {
        state.requests.finish(id, result)
    });
}

fn put_back(fifo: ArcBorrow<'_, Fifo>, buffer: KBox<Buffer>) {
    fifo.change(Origin::Interrupt, |state, _| {
        let alive = state.check();
        state.requests.put_back(buffer, alive);
    });
}
