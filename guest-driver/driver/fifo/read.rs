// SPDX-License-Identifier: GPL-2.0-only

//! Reading: the transfer from the ring to a user's buffer, and the calls that wait for it.

use super::{
    core::Origin,
    file::{
        Buffer,
        FifoFile,
        Memory, //
    },
    request::Wants,
    state::{
        Reader,
        Turn, //
    },
    Fifo, //
};
use crate::{
    driver::tunables::{
        FRUITLESS_FAULTS,
        TURN, //
    },
    kapi::{
        kiocb::{
            Outcome,
            Request, //
        },
        user_memory::{
            fault_in_dest,
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
    iov::IovIterDest,
    prelude::*,
    sync::ArcBorrow,
    time::Instant, //
};

/// Where a transfer may begin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// At whatever comes next.
    Anywhere,
    /// At this position of the rx stream: it goes on with a read whose bytes have to be contiguous.
    At(u64),
}

/// Result of [`Fifo::transfer`].
pub(crate) enum Transfer {
    /// No data, or another's turn.
    Nothing,
    /// So many bytes; 0 is the end. It ended at position `next`, and if it met a page `fault`,
    /// there may be more.
    Read {
        bytes: usize,
        fault: bool,
        next: u64,
    },
}

impl Fifo {
    /// Reads what is there, or waits until something is; a request that can be deferred is.
    ///
    /// # Errors
    ///
    /// `EAGAIN` when it would have to wait and must not, `ERESTARTSYS` on a signal, `EFAULT` when
    /// not a single byte could be copied, `EIO` and `ENODEV` by the FIFO's life.
    pub(crate) fn read<'a>(
        self: ArcBorrow<'_, Self>,
        file: ArcBorrow<'_, FifoFile>,
        request: Request<'a, FifoFile>,
        to: &mut IovIterDest<'_>,
    ) -> Outcome<'a> {
        if request.can_be_deferred() {
            return self.submit_read(file, request, to);
        }
        let result = self.read_now(to, request.must_not_wait());
        request.answer(result)
    }

    fn read_now(
        self: ArcBorrow<'_, Self>,
        to: &mut IovIterDest<'_>,
        must_not_wait: bool,
    ) -> Result<usize> {
        let mut total = 0;
        let mut start = Start::Anywhere;
        let mut fruitless_faults = 0;
        loop {
            match self.transfer(to, Reader::Call, start) {
                Ok(Transfer::Read { bytes, fault, next }) => {
                    total += bytes;
                    if !fault {
                        return Ok(total);
                    }
                    fruitless_faults = if bytes > 0 { 0 } else { fruitless_faults + 1 };
                    start = if total > 0 { Start::At(next) } else { start };
                    let there = if fruitless_faults > FRUITLESS_FAULTS {
                        Err(EFAULT)
                    } else {
                        self.fault_in_first(to)
                    };
                    if let Err(error) = there {
                        if total > 0 {
                            return Ok(self.end_short(total));
                        }
                        return Err(error);
                    }
                    continue;
                }
                // Another read what follows, or there is no more.
                Ok(Transfer::Nothing) | Err(_) if total > 0 => return Ok(self.end_short(total)),
                Ok(Transfer::Nothing) => {}
                Err(error) => return Err(error),
            }
            if must_not_wait {
                return Err(EAGAIN);
            }
            self.wait_for_data()?;
        }
    }

    /// Ends a read that a page fault has cut short, after so many bytes.
    fn end_short(self: ArcBorrow<'_, Self>, bytes: usize) -> usize {
        self.change(Origin::Task, |state, effects| state.end_short_read(effects));
        bytes
    }

    /// Faults the buffer of a call in, whose turn it was: others wait for that as for a request's
    /// ([`super::line`]), so that what it asked for is not read by those who came later.
    fn fault_in_first(self: ArcBorrow<'_, Self>, to: &mut IovIterDest<'_>) -> Result {
        let id = self.change(Origin::Task, |state, _| state.requests.hold_reads());
        let result = fault_in_dest(to, self.capacity as usize);
        self.change(Origin::Task, |state, _| state.requests.release_lines(id));
        result
    }

    /// Waits until a read would find something, or fail.
    pub(super) fn wait_for_data(self: ArcBorrow<'_, Self>) -> Result {
        self.change(Origin::Task, |state, effects| state.expect_data(effects));
        let began = Instant::now();
        if !(self.hooks.before_wait_for_data)(self, began) {
            let wait = &self.notifier.wait;
            wait.wait(WaitFor::Readable, Signals::Interrupt, None, || {
                let mut state = self.state.lock();
                state.check().is_err() || !state.reader.is_anothers() && state.has_data_for_calls()
            })?;
        }
        (self.hooks.after_wait_for_data)(self, began);
        Ok(())
    }

    /// Copies from the ring to `to`: the only place that does. Takes no page faults.
    ///
    /// # Errors
    ///
    /// `EIO` and `ENODEV` by the FIFO's life: a transfer that is not over when the device is taken
    /// away has not happened.
    pub(crate) fn transfer(
        self: ArcBorrow<'_, Self>,
        to: &mut IovIterDest<'_>,
        reader: Reader,
        start: Start,
    ) -> Result<Transfer> {
        // Before the turn is taken: its holder is not preempted.
        let no_faults = NoFaults::new();
        let mut buffer = {
            let mut state = self.state.lock();
            state.check()?;
            let here = state.rx.consumed();
            if !state.begin_reading(reader) || start != Start::Anywhere && start != Start::At(here)
            {
                return Ok(Transfer::Nothing);
            }
            let Some(buffer) = state.rx.take() else {
                return Ok(match state.rx.at_end() {
                    true => Transfer::Read {
                        bytes: 0,
                        fault: false,
                        next: here,
                    },
                    false => Transfer::Nothing,
                });
            };
            state.reader = Turn::Taken;
            buffer
        };
        let origin = match reader {
            Reader::Server => Origin::Server,
            Reader::Call | Reader::Submission => Origin::Task,
        };
        let mut total = 0;
        loop {
            let wanted = buffer.unread().len().min(to.len());
            let bytes = buffer.unread().get(..wanted).unwrap_or(&[]);
            let copied = to.copy_to_iter(bytes);
            let fault = copied < wanted;
            let give_way = total + copied >= TURN && no_faults.must_end_soon();
            let next = self.change(origin, |state, effects| {
                if let Err(gone) = state.check() {
                    state.reader = Turn::Free;
                    return Err(gone);
                }
                state.rx.give_back(buffer, copied);
                let goes_on = !fault && !give_way && !to.is_empty();
                let next = if goes_on { state.rx.take() } else { None };
                if next.is_none() {
                    state.end_reading(!to.is_empty() && !fault, effects);
                }
                Ok(next.ok_or_else(|| state.rx.consumed()))
            });
            total += copied;
            match next? {
                Ok(more) => buffer = more,
                Err(next) => {
                    self.trace.read(next - total as u64, total as u64);
                    return Ok(Transfer::Read {
                        bytes: total,
                        fault,
                        next,
                    });
                }
            }
        }
    }

    /// Submits a read of native AIO: served at once if it can be, otherwise deferred. Never waits.
    fn submit_read<'a>(
        self: ArcBorrow<'_, Self>,
        file: ArcBorrow<'_, FifoFile>,
        request: Request<'a, FifoFile>,
        to: &mut IovIterDest<'_>,
    ) -> Outcome<'a> {
        match self.transfer(to, Reader::Submission, Start::Anywhere) {
            // Short where the rest of the buffer would have to be faulted in: a submission never
            // waits.
            Ok(Transfer::Read { bytes, fault, .. }) if bytes > 0 || !fault => {
                self.stats.aio_at_submit.add(1);
                if fault {
                    self.end_short(bytes);
                }
                return request.answer(Ok(bytes));
            }
            Ok(_) => {}
            Err(error) => return request.answer(Err(error)),
        }
        if request.must_not_wait() {
            return request.answer(Err(EAGAIN));
        }
        self.change(Origin::Task, |state, effects| state.expect_data(effects));
        let buffer = UserMemory::of_dest(to).and_then(|mut memory| {
            let pinned = (self.hooks.pin_at_submit)(self, &mut memory);
            Buffer::new(file.into(), Memory::Dest(memory, pinned))
        });
        match buffer {
            Ok(buffer) => self.defer(file, request, |_| Ok(Wants::Data(buffer))),
            Err(error) => request.answer(Err(error)),
        }
    }
}
