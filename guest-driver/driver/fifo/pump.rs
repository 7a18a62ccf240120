// SPDX-License-Identifier: GPL-2.0-only

//! Pumping of the sending half: used messages come back, pending ones are posted, interrupts asked
//! for.
//!
//! Plain state, as [`TxSide`]: must not know locks or wake-ups.

use super::{
    rx::Broken,
    tx::TxSide, //
};
use crate::{
    driver::{
        buffers::TxBuffer,
        chain::Chain,
        policy::{
            coalesce::{
                Coalescer,
                Facts, //
            },
            Await, //
        },
        tunables::BUDGET, //
    },
    kapi::virtio::{
        Queue,
        Refused, //
    },
};
use kernel::prelude::*;

/// Result of [`TxSide::pump`].
#[derive(Default)]
pub(crate) struct Pumped {
    /// Messages given to the device.
    pub(crate) messages: u64,
    /// Messages came back.
    pub(crate) progress: bool,
    /// The budget is used up: there is more to be moved, and no interrupt will tell of it.
    pub(crate) more: bool,
    /// Microseconds after which to pump again.
    pub(crate) timer: Option<u32>,
    /// The delay of an acknowledgment is to be started.
    pub(crate) ack_timer: bool,
}

impl TxSide {
    /// Takes back used messages, posts what is pending, and acknowledges if that is due; as far as
    /// [`BUDGET`] goes. If there were messages, [`TxSide::kick`] has to follow.
    ///
    /// Used messages that are not kept go to `done`, to be dropped outside the lock. The device
    /// interrupts for used messages while something waits for that, here or elsewhere (`others`).
    pub(crate) fn pump(
        &mut self,
        rx_consumed: u64,
        others: Await,
        done: &mut Chain<TxBuffer>,
    ) -> Result<Pumped, Broken> {
        let mut pumped = Pumped::default();
        let mut budget = BUDGET;
        self.coalescer.begin_round(others);
        while !self.abandoned {
            let mut moved = self.reclaim(&mut budget, done, &mut pumped);
            let held = self.post(rx_consumed, others, &mut budget, &mut pumped, &mut moved)?;
            if budget == 0 {
                if let Some(queue) = self.queue.as_mut() {
                    queue.disable_interrupts();
                }
                pumped.more = true;
                break;
            }
            if self.queue.is_some() {
                let carrying = self.carrying > 0;
                let timer = self.coalescer.timer_for(held, pumped.progress, carrying);
                pumped.timer = timer.or(pumped.timer);
                pumped.ack_timer |= self.coalescer.ack_timer();
            }
            let wanted = self.coalescer.wants_interrupt(pumped.progress)
                || self.waiting > 0
                || self.ack_due
                || !self.pending.is_empty() && !held;
            if self.set_interrupts(wanted, moved) {
                break;
            }
        }
        self.coalescer.end_round();
        if !self.abandoned && self.queue.as_ref().is_some_and(Queue::is_broken) {
            return Err(Broken("an invalid used ring (tx)"));
        }
        Ok(pumped)
    }

    /// Notifies the device of what [`TxSide::pump`] has posted.
    pub(crate) fn kick(&mut self) {
        if let Some(queue) = self.queue.as_mut() {
            queue.kick();
        }
    }

    /// Asks for interrupts if they are `wanted`, anew if messages `moved` since; false if there are
    /// used messages already.
    fn set_interrupts(&mut self, wanted: bool, moved: bool) -> bool {
        match self.queue.as_mut() {
            // What was asked for before still holds.
            Some(queue) if wanted && queue.interrupts() && !moved => true,
            Some(queue) if wanted => Coalescer::enable_interrupts(queue),
            Some(queue) => {
                queue.disable_interrupts();
                true
            }
            None => true,
        }
    }

    /// Takes back used messages; whether there were any.
    fn reclaim(
        &mut self,
        budget: &mut usize,
        done: &mut Chain<TxBuffer>,
        pumped: &mut Pumped,
    ) -> bool {
        let mut any = false;
        while *budget > 0 {
            let Some((message, _)) = self.queue.as_mut().and_then(Queue::get) else {
                break;
            };
            *budget -= 1;
            any = true;
            self.in_flight -= 1;
            if message.payload_len() == 0 {
                self.ack = Some(message);
            } else {
                self.carrying -= 1;
                self.accepted = self.accepted.max(message.tx_end());
                done.push_back(message);
            }
        }
        pumped.progress |= any;
        self.spares.keep(done);
        any
    }

    /// Posts what is pending, except a message that is held back; whether there is one. Sets
    /// `moved` if something was posted.
    fn post(
        &mut self,
        rx_consumed: u64,
        others: Await,
        budget: &mut usize,
        pumped: &mut Pumped,
        moved: &mut bool,
    ) -> Result<bool, Broken> {
        while *budget > 0 && !self.pending.is_empty() {
            let facts = Facts {
                others,
                is_awaited: self.waiting > 0,
                has_credit: self.credit(rx_consumed) > 0,
                all_is_read: rx_consumed >= self.posted,
            };
            if self.coalescer.holds(&facts, self.pending.only()) {
                return Ok(true);
            }
            let Some(message) = self.pending.pop_front() else {
                break;
            };
            let end = message.tx_end();
            if self.loopback && end > rx_consumed + self.capacity {
                // After a reset the device may not be told yet of all that was read.
                self.pending.push_front(message);
                return Ok(false);
            }
            let facts = self.coalescer.describe(&message, others);
            if let Some(message) = self.add(message, rx_consumed)? {
                self.pending.push_front(message);
                return Ok(false);
            }
            self.posted = end;
            self.carrying += 1;
            self.coalescer.posted(facts);
            *budget -= 1;
            pumped.messages += 1;
            *moved = true;
        }
        if self.ack_due {
            if let Some(mut ack) = self.ack.take() {
                ack.place(self.posted);
                self.ack = self.add(ack, rx_consumed)?;
                pumped.messages += u64::from(self.ack.is_none());
                *moved |= self.ack.is_none();
            }
        }
        Ok(false)
    }

    /// Posts one message; gives it back when there is no room.
    fn add(
        &mut self,
        mut message: KBox<TxBuffer>,
        rx_consumed: u64,
    ) -> Result<Option<KBox<TxBuffer>>, Broken> {
        let Some(queue) = self.queue.as_mut() else {
            return Ok(Some(message));
        };
        message.stamp(rx_consumed);
        match queue.add(message) {
            Ok(()) => {
                self.in_flight += 1;
                self.reported = rx_consumed;
                self.ack_due = false;
                self.coalescer.acked();
                Ok(None)
            }
            Err(Refused::Full(message)) => Ok(Some(message)),
            Err(Refused::Broken(_)) => Err(Broken("an invalid used ring (tx)")),
        }
    }
}
