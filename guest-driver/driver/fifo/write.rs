// SPDX-License-Identifier: GPL-2.0-only

//! Writing: messages are filled from the user's buffer without any lock, and queued in one piece.
//!
//! A page fault while a message is filled delays nobody else: the message belongs to its writer
//! until it is queued.

use super::{
    core::Origin,
    file::{
        Buffer,
        FifoFile,
        Memory, //
    },
    request::Wants,
    Fifo, //
};
use crate::{
    driver::{
        buffers::TxBuffer,
        chain::Chain,
        policy::{
            spares::Spares,
            Empty, //
        }, //
    },
    kapi::{
        kiocb::{
            Outcome,
            Request, //
        },
        source::Source,
        user_memory::{
            NoFaults,
            UserMemory, //
        },
        wait::{
            Signals,
            WaitFor, //
        },
    },
};
use kernel::{
    prelude::*,
    sync::ArcBorrow, //
};

/// Messages to be sent.
pub(super) struct Outgoing {
    pub(crate) messages: Chain<TxBuffer>,
    pub(crate) bytes: usize,
}

impl Fifo {
    /// Writes what fits, or waits until something does; a request that can be deferred is, until
    /// the device has accepted its bytes.
    ///
    /// # Errors
    ///
    /// As for [`Fifo::read`], `ENOMEM`, and `EPIPE` when the other side is gone.
    pub(crate) fn write<'a>(
        self: ArcBorrow<'_, Self>,
        file: ArcBorrow<'_, FifoFile>,
        request: Request<'a, FifoFile>,
        from: &mut Source<'_, '_>,
    ) -> Outcome<'a> {
        if request.can_be_deferred() {
            return self.submit_write(file, request, from);
        }
        if request.is_synchronous() && request.cannot_sleep() {
            return request.answer(Err(EAGAIN));
        }
        let written = self.write_now(from, request.must_not_wait());
        let result = written.and_then(|(bytes, end)| {
            if request.is_synchronous() {
                self.wait_for_acceptance(end)?;
            }
            Ok(bytes)
        });
        request.answer(result)
    }

    /// As [`Fifo::write`], of a call; also the position after the bytes.
    fn write_now(
        self: ArcBorrow<'_, Self>,
        from: &mut Source<'_, '_>,
        must_not_wait: bool,
    ) -> Result<(usize, u64)> {
        loop {
            if let Some(written) = (self.hooks.join)(self, from) {
                return Ok(written);
            }
            let asked = from.len();
            let (wanted, mut empty) = self.prepare_write(asked)?;
            if wanted > 0 {
                if !must_not_wait {
                    if let Some(written) = (self.hooks.write)(self, from, wanted)? {
                        self.state.lock().tx.keep(&mut empty.0);
                        return Ok(written);
                    }
                }
                let mut outgoing = copy_plainly(from, wanted, empty)?;
                let (sent, end) = self.change(Origin::Task, |state, effects| {
                    state.check_writing()?;
                    let credit = state.credit_noting_caller();
                    let (messages, sizes) = (&mut outgoing.messages, (outgoing.bytes, asked));
                    let sent = state.enqueue(messages, sizes, credit, effects);
                    state.pump(effects);
                    Ok::<_, Error>((sent, state.tx.positions().0))
                })?;
                from.put_back(outgoing.bytes - sent);
                if sent > 0 {
                    return Ok((sent, end));
                }
            }
            // Somebody else took the space, or there was none.
            if must_not_wait {
                return Err(EAGAIN);
            }
            if !(self.hooks.before_wait_for_space)(self, from.len()) {
                self.wait_for_space()?;
            }
        }
    }

    /// Bytes that a call may write, of those `asked`, and messages for them.
    fn prepare_write(&self, asked: usize) -> Result<(usize, Empty)> {
        let mut state = self.state.lock();
        state.check_writing()?;
        let credit = usize::try_from(state.credit_noting_caller()).unwrap_or(usize::MAX);
        let wanted = credit.min(asked);
        Ok((wanted, state.tx.empty(wanted)))
    }

    /// Waits until a write would find space, or fail.
    pub(super) fn wait_for_space(self: ArcBorrow<'_, Self>) -> Result {
        self.state.lock().space_waiters += 1;
        let wait = &self.notifier.wait;
        let waited = wait.wait(WaitFor::Writable, Signals::Interrupt, None, || {
            let mut state = self.state.lock();
            state.check_writing().is_err() || state.credit_noting_caller() > 0
        });
        self.state.lock().space_waiters -= 1;
        waited.map(|_| ())
    }

    /// Submits a write of native AIO: sent at once if it can be, otherwise deferred. Never waits.
    fn submit_write<'a>(
        self: ArcBorrow<'_, Self>,
        file: ArcBorrow<'_, FifoFile>,
        request: Request<'a, FifoFile>,
        from: &mut Source<'_, '_>,
    ) -> Outcome<'a> {
        let asked = from.len();
        let (wanted, empty) = match self.prepare_write(asked) {
            Ok(prepared) => prepared,
            Err(error) => return request.answer(Err(error)),
        };
        if wanted > 0 {
            match copy_present(from, wanted, empty, false) {
                Ok(Some(outgoing)) => {
                    return self.submit_messages(file, request, from, outgoing, asked);
                }
                // The buffer has to be faulted in first.
                Ok(None) => {}
                Err(error) => return request.answer(Err(error)),
            }
        }
        self.defer_write(file, request, from)
    }

    /// Sends the messages of a request, which is then deferred until the device has them; if there
    /// is no space for any byte after all, until there is.
    fn submit_messages<'a>(
        self: ArcBorrow<'_, Self>,
        file: ArcBorrow<'_, FifoFile>,
        request: Request<'a, FifoFile>,
        from: &mut Source<'_, '_>,
        mut outgoing: Outgoing,
        asked: usize,
    ) -> Outcome<'a> {
        let copied = outgoing.bytes;
        let sent = self.try_defer(file, request, |state, effects| {
            state.check_writing()?;
            let credit = state.credit_noting_caller();
            let (messages, sizes) = (&mut outgoing.messages, (copied, asked));
            let bytes = state.enqueue(messages, sizes, credit, effects);
            let end = state.tx.positions().0;
            Ok((bytes > 0).then_some(Wants::Acceptance { end, bytes }))
        });
        sent.unwrap_or_else(|request| {
            from.put_back(copied);
            self.defer_write(file, request, from)
        })
    }

    fn defer_write<'a>(
        self: ArcBorrow<'_, Self>,
        file: ArcBorrow<'_, FifoFile>,
        request: Request<'a, FifoFile>,
        from: &mut Source<'_, '_>,
    ) -> Outcome<'a> {
        if request.must_not_wait() {
            return request.answer(Err(EAGAIN));
        }
        let buffer = UserMemory::of_source(from)
            .and_then(|memory| Buffer::new(file.into(), Memory::Source(memory)));
        match buffer {
            Ok(buffer) => self.defer(file, request, |state| {
                state.check_writing()?;
                Ok(Wants::Space(buffer))
            }),
            Err(error) => request.answer(Err(error)),
        }
    }
}

/// As [`copy_plainly`], without page faults: `None` if there would be one, unless `part_is_enough`
/// and there is some.
pub(super) fn copy_present(
    from: &mut Source<'_, '_>,
    wanted: usize,
    empty: Empty,
    part_is_enough: bool,
) -> Result<Option<Outgoing>> {
    let copied = copy_messages(from, wanted, empty, |message, from, part| {
        let _no_faults = NoFaults::new();
        message.fill_from(from, part)
    });
    match copied {
        Ok(outgoing) if outgoing.bytes == wanted || part_is_enough => Ok(Some(outgoing)),
        Ok(outgoing) => {
            from.put_back(outgoing.bytes);
            Ok(None)
        }
        Err(error) if error == EFAULT => Ok(None),
        Err(error) => Err(error),
    }
}

/// Copies up to `wanted` bytes into messages; some bytes, or an error. Sleeps in a page fault.
fn copy_plainly(from: &mut Source<'_, '_>, wanted: usize, empty: Empty) -> Result<Outgoing> {
    copy_messages(from, wanted, empty, TxBuffer::fill_from)
}

/// Fills messages with up to `wanted` bytes, by `fill`: `empty` ones and then new ones, with room
/// for so many bytes each.
///
/// # Errors
///
/// `EFAULT` when not a single byte was there, `ENOMEM`.
fn copy_messages<'a, 'data>(
    from: &mut Source<'a, 'data>,
    wanted: usize,
    (mut empty, room): Empty,
    mut fill: impl FnMut(&mut TxBuffer, &mut Source<'a, 'data>, usize) -> usize,
) -> Result<Outgoing> {
    let mut messages = Chain::new();
    let mut copied = 0;
    while copied < wanted {
        let message = match empty.pop_front() {
            Some(message) => Ok(message),
            None => Spares::allocate(room),
        };
        let mut message = match message {
            Ok(message) => message,
            Err(_) if copied > 0 => break,
            Err(error) => return Err(error),
        };
        // Of a new one it may be less than was asked for.
        let part = (wanted - copied).min(message.room());
        let got = fill(&mut message, from, part);
        copied += got;
        if got > 0 {
            messages.push_back(message);
        }
        if got < part {
            break;
        }
    }
    if copied == 0 {
        return Err(EFAULT);
    }
    Ok(Outgoing {
        messages,
        bytes: copied,
    })
}
