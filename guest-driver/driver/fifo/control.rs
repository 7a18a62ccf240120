// SPDX-License-Identifier: GPL-2.0-only

//! Calls that ask the device or wait for it: fsync, FIFO_CLEAR, FIONREAD, and the wait for
//! acceptance.
//!
//! All waits here are bounded or can be killed, and no signal with a handler ends them: so none of
//! these calls fails with `EINTR`.

use super::{
    core::Origin,
    rx::Broken,
    state::{
        check_told,
        Life,
        State, //
    },
    Fifo, //
};
use crate::{
    driver::{
        control::Control,
        tunables::{
            DRAIN_SECONDS,
            REQUESTS, //
        },
    },
    kapi::{
        file_operations::Direction,
        wait::{
            Deadline,
            Events,
            Signals,
            WaitFor,
            Waited, //
        },
    },
    virtio_fifo::{
        CtrlRequest,
        CTRL_CLEAR, //
    },
};
use kernel::{
    prelude::*,
    sync::ArcBorrow, //
};

impl Fifo {
    /// Waits until the device has accepted all that was written before (DEV-10).
    ///
    /// # Errors
    ///
    /// `EIO` when it does not in time, `EIO` and `ENODEV` by the FIFO's life, `ERESTARTSYS` on a
    /// signal that kills.
    pub(crate) fn flush(self: ArcBorrow<'_, Self>) -> Result {
        let end = {
            let state = self.state.lock();
            state.check()?;
            state.tx.positions().0
        };
        self.wait_for_acceptance(end)
    }

    /// As [`Fifo::flush`], for what was written below `end`.
    pub(super) fn wait_for_acceptance(self: ArcBorrow<'_, Self>, end: u64) -> Result {
        let mut life = Ok(());
        let waited = self.sleep_until(Some(DRAIN_SECONDS), |state| {
            if state.tx.has_accepted(end) {
                return true;
            }
            life = state.check();
            life.is_err()
        })?;
        match waited {
            Waited::Done => life,
            Waited::TimedOut => Err(EIO),
        }
    }

    /// Sleeps until `is_over`, which the device's use of messages brings about; for so many seconds
    /// at most.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS` on a signal that kills.
    pub(crate) fn sleep_until(
        self: ArcBorrow<'_, Self>,
        seconds: Option<u8>,
        mut is_over: impl FnMut(&State) -> bool,
    ) -> Result<Waited> {
        self.change(Origin::Task, |state, effects| {
            state.tx.begin_wait();
            state.pump(effects);
        });
        let waited = self.drained.wait_rechecking(
            WaitFor::Writable,
            Signals::Kill,
            seconds.map_or_else(Deadline::never, Deadline::in_seconds),
            || {
                self.check_missed();
            },
            || is_over(&self.state.lock()),
        );
        self.state.lock().tx.end_wait();
        waited
    }

    /// Empties the FIFO, here and in the device, and lets writers go on.
    ///
    /// # Errors
    ///
    /// Those of [`Control::request`], and those of the FIFO's life.
    pub(crate) fn clear(self: ArcBorrow<'_, Self>) -> Result {
        // Once more for each reset of the device that comes in between.
        while !self.try_clear()? {}
        Ok(())
    }

    /// As [`Fifo::clear`]; false if the device was reset meanwhile.
    fn try_clear(self: ArcBorrow<'_, Self>) -> Result<bool> {
        let memory = Control::prepare()?;
        // Nobody else clears meanwhile.
        let requester = self.control.requester();
        let requester = requester.map_err(|error| self.why_not(error))?;
        let begun = self.change(Origin::Task, |state, effects| {
            state.check()?;
            if state.life == Life::Suspended {
                // Positions are not known until the device has told where it stands.
                return Ok(None);
            }
            state.clears += 1;
            effects.messages.append(state.tx.unsend_pending());
            let (sent, posted) = state.tx.positions();
            Ok::<_, Error>(Some((posted, state.requests.begin_discard(sent))))
        })?;
        let Some((posted, mut discard)) = begun else {
            return Ok(false);
        };
        // A bounded number in one hold.
        while self.change(Origin::Task, |state, _| {
            state.requests.discard(&mut discard, REQUESTS)
        }) {}
        let request = CtrlRequest {
            kind: CTRL_CLEAR,
            fifo: u32::from(self.index),
            tx_sent: posted,
        };
        // Without an answer it is still under way, for all that is known.
        let told = requester.request(memory, request, &self.stats.missed_interrupts);
        let told = told.map_err(|error| self.why_not(error))?;
        drop(requester);
        let Some(told) = told else {
            return Ok(false);
        };
        self.change(Origin::Task, |state, effects| {
            if state.life == Life::Suspended {
                // The device tells again where it stands, after its reset.
                return Ok(true);
            }
            if let Err(error) = check_told(&told, self.index, self.capacity) {
                state.fail(Broken("an impossible state"), effects);
                return Err(error);
            }
            state.apply(&told, effects);
            state.tx.note_consumed(state.rx.acknowledged(), false);
            state.pump(effects);
            Ok(true)
        })
    }

    /// Why a request failed: a FIFO that has failed says so, not that the queue is gone.
    fn why_not(&self, error: Error) -> Error {
        self.state.lock().check().err().unwrap_or(error)
    }

    /// Events that hold, for a poll that relies on an edge for the others; `wants_data` if its
    /// caller may now wait for data.
    pub(crate) fn readiness(self: ArcBorrow<'_, Self>, wants_data: bool) -> Events {
        self.change(Origin::Task, |state, effects| {
            let events = state.readiness_noting_caller();
            if wants_data && !events.contains(Events::IN) {
                state.expect_data(effects);
            }
            events
        })
    }

    /// Bytes that can be read without waiting.
    pub(crate) fn level(&self) -> Result<u64> {
        let state = self.state.lock();
        state.check()?;
        Ok(state.rx.level())
    }

    /// Waits until a splice in `direction` would find something to do, or fail.
    pub(crate) fn wait_for_splice(
        self: ArcBorrow<'_, Self>,
        direction: Direction,
        must_not_wait: bool,
    ) -> Result {
        let is_ready = {
            let mut state = self.state.lock();
            match direction {
                Direction::Read => {
                    state.check().is_err()
                        || !state.reader.is_anothers() && state.has_data_for_calls()
                }
                Direction::Write => {
                    state.check_writing().is_err() || state.credit_noting_caller() > 0
                }
            }
        };
        match direction {
            _ if is_ready => Ok(()),
            _ if must_not_wait => Err(EAGAIN),
            Direction::Read => self.wait_for_data(),
            Direction::Write => self.wait_for_space(),
        }
    }
}
