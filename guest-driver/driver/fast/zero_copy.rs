// SPDX-License-Identifier: GPL-2.0-only

//! Zero copy: the device reads large writes from the pages of the process.
//!
//! The pages are pinned, a bounded number a message, and let go of when the device has used it. The
//! memory is the caller's again when the write is over: so it is over only when the device has
//! accepted the bytes, and a signal that kills is all that ends it before. Then the pages stay
//! pinned until the device has used them or is reset.
//!
//! A write goes out in several messages, each pinned while the device is at the one before. So that
//! its bytes stay together it has the writer's turn meanwhile. No page fault is taken during the
//! turn: where pages are missing, the turn ends, and goes on after the fault if nobody else has
//! written.
//!
//! Gain (docs/performance.md): 1 MiB guest to host 0.9 to 2.2 of virtio-serial.

use crate::{
    driver::{
        buffers::TxBuffer,
        chain::Chain,
        fast_tunables::{
            DIRECT,
            DIRECT_PAGES,
            POLL_MICROSECONDS, //
        },
        fifo::{
            state::{
                State,
                Turn, //
            },
            Fifo,
            Origin, //
        },
    },
    kapi::{
        pages::{
            Present,
            UserPages, //
        },
        source::Source,
        spin::{
            others_want_cpu,
            relax, //
        },
        wait::Events, //
    },
};
use kernel::{
    prelude::*,
    sync::ArcBorrow,
    time::{
        Instant,
        Monotonic, //
    },
};

/// A write in progress.
struct Write {
    /// Pages that a message has at most.
    num_pages: usize,
    /// Bytes written, and the position after them.
    total: usize,
    end: u64,
    has_turn: bool,
    /// Number of clears when it began: one in between took a part of the write with it.
    clears: u64,
}

/// Writes up to `wanted` bytes, or more if they come to fit, and waits until the device has them:
/// bytes, and the position after them. `None` if the write is to be an ordinary one.
pub(super) fn write(
    fifo: ArcBorrow<'_, Fifo>,
    from: &mut Source<'_, '_>,
    mut wanted: usize,
) -> Result<Option<(usize, u64)>> {
    if wanted < DIRECT {
        return Ok(None);
    }
    let (least, most) = DIRECT_PAGES;
    let (descriptors, clears) = {
        let state = fifo.state.lock();
        (state.tx.descriptors(), state.clears)
    };
    // A message and its header have to fit into the queue.
    let num_pages = descriptors.saturating_sub(2).min(most);
    if num_pages < least {
        return Ok(None);
    }
    let mut write = Write {
        num_pages,
        total: 0,
        end: 0,
        has_turn: false,
        clears,
    };
    while write.post(fifo, from, wanted - write.total) {
        if write.total == wanted {
            let more = poll_for_credit(fifo, from.len());
            if more == 0 {
                break;
            }
            wanted += more;
        }
    }
    fifo.change(Origin::Task, |state, effects| {
        if write.has_turn {
            state.writer = Turn::Free;
        }
        // A short write is followed by an edge if there is space.
        if from.len() > 0 && state.credit_for_calls() > 0 {
            effects.edges |= Events::OUT;
        }
    });
    if write.total == 0 {
        return Ok(None);
    }
    fifo.stats.tx_direct.add(write.total as u64);
    wait_for_acceptance(fifo, write.end)?;
    Ok(Some((write.total, write.end)))
}

impl Write {
    /// Pins and posts one more message, of `wanted` bytes at most; whether to go on.
    fn post(
        &mut self,
        fifo: ArcBorrow<'_, Fifo>,
        from: &mut Source<'_, '_>,
        wanted: usize,
    ) -> bool {
        let present = if self.has_turn {
            Present::Required
        } else {
            Present::FaultIn
        };
        let Some(message) = pin(from, wanted, self.num_pages, present) else {
            if self.has_turn {
                self.has_turn = false;
                fifo.change(Origin::Task, |state, _| state.writer = Turn::Free);
                return true;
            }
            return false;
        };
        let length = message.payload_len();
        let mut messages = Chain::new();
        messages.push_back(message);
        let sent = fifo.change(Origin::Task, |state, effects| {
            let sent = match self.credit(state) {
                0 => 0,
                credit => {
                    let asked = (length, length);
                    state.enqueue(&mut messages, asked, credit, effects)
                }
            };
            if sent > 0 {
                self.end = state.tx.positions().0;
            }
            let goes_on = sent == length && from.len() > 0;
            if self.has_turn || goes_on {
                state.writer = match (goes_on, state.writer) {
                    (true, Turn::Contended) => Turn::Contended,
                    (true, _) => Turn::Taken,
                    (false, _) => Turn::Free,
                };
            }
            self.has_turn = goes_on;
            state.pump(effects);
            sent
        });
        self.total += sent;
        from.put_back(length - sent);
        self.has_turn
    }

    /// Bytes that it may write now; 0 if what follows would not be contiguous.
    fn credit(&self, state: &mut State) -> u64 {
        let able = state.check_writing().is_ok() && state.clears == self.clears;
        let contiguous = self.total == 0 || state.tx.positions().0 == self.end;
        if !able || !contiguous {
            0
        } else if self.has_turn {
            state.credit()
        } else {
            state.credit_noting_caller()
        }
    }
}

/// Pins up to `wanted` bytes, and at most `num_pages` pages, for a message. `None` when that cannot
/// be done: they have to be copied, which also finds the right error.
fn pin(
    from: &mut Source<'_, '_>,
    wanted: usize,
    num_pages: usize,
    present: Present,
) -> Option<KBox<TxBuffer>> {
    let message = TxBuffer::for_tx(0).ok()?;
    let pages = UserPages::pin(from, wanted, num_pages, present).ok()?;
    Some(TxBuffer::direct(message, pages))
}

/// A write found no space for some of so many bytes: polls for it; whether there is some by now.
pub(super) fn poll_for_space(fifo: ArcBorrow<'_, Fifo>, bytes: usize) -> bool {
    // A smaller FIFO is filled sooner than a task is woken.
    bytes >= DIRECT && fifo.capacity as usize >= 2 * DIRECT && poll_for_credit(fifo, bytes) > 0
}

/// Polls for credit for `most` more bytes, while the device is at what came before; for how many.
/// None if others wait for their turn or for the CPU: who makes room may be among them.
fn poll_for_credit(fifo: ArcBorrow<'_, Fifo>, most: usize) -> usize {
    // The device gives credit when half of what the FIFO holds is free; a little is not worth
    // pinning.
    let least = most.min(DIRECT).min(fifo.capacity as usize / 2);
    if least == 0 {
        return 0;
    }
    let began = Instant::<Monotonic>::now();
    while !relax() && !others_want_cpu() {
        let credit = fifo.change(Origin::Task, |state, effects| {
            state.pump_unless_deferred(effects);
            let alone = state.writer != Turn::Contended
                && state.space_waiters == 0
                && !state.requests.want_space();
            (alone && state.check_writing().is_ok()).then(|| state.credit())
        });
        let Some(credit) = credit else {
            break;
        };
        let fits = usize::try_from(credit).map_or(most, |credit| credit.min(most));
        if fits >= least {
            return fits;
        }
        if began.elapsed().as_micros_ceil() >= POLL_MICROSECONDS {
            break;
        }
    }
    0
}

/// Waits until the device has everything below `end`, whose memory is the caller's: nothing ends
/// that but a signal that kills, or the end of the FIFO. A device that is stopped (in a debugger,
/// say) is waited for.
fn wait_for_acceptance(fifo: ArcBorrow<'_, Fifo>, end: u64) -> Result {
    let mut result = Ok(());
    let mut is_over = |state: &State| {
        let accepted = state.tx.has_accepted(end);
        result = if accepted {
            Ok(())
        } else {
            state.check_sending()
        };
        accepted || result.is_err()
    };
    // The device is at it, and done sooner than an interrupt could tell.
    let began = Instant::<Monotonic>::now();
    let mut over = false;
    while !over && began.elapsed().as_micros_ceil() < POLL_MICROSECONDS {
        over = fifo.change(Origin::Task, |state, effects| {
            state.pump_unless_deferred(effects);
            is_over(state)
        });
        if relax() {
            break;
        }
    }
    if !over {
        fifo.sleep_until(None, is_over)?;
    }
    result
}
