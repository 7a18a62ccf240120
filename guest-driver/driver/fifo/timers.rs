// SPDX-License-Identifier: GPL-2.0-only

//! The timers of a FIFO, for [`Coalescer`](crate::driver::policy::coalesce::Coalescer). Of the fast
//! edition alone.

use super::{
    core::Origin,
    state::Effects,
    tx::TxSide,
    Fifo, //
};
use crate::{
    driver::fast_tunables::ACK_MICROSECONDS,
    kapi::timer::{
        Timer,
        TimerCallback, //
    },
};
use kernel::{
    prelude::*,
    sync::ArcBorrow, //
};

/// Timer that pumps the transmit queue, and the one that ends the delay of an acknowledgment.
const PUMP: u64 = 0;
const ACK: u64 = 1;

/// See the module.
#[pin_data]
pub(super) struct Timers {
    #[pin]
    pump: Timer<Fifo, PUMP>,
    #[pin]
    ack: Timer<Fifo, ACK>,
}

impl Timers {
    /// None runs.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            pump <- Timer::new(),
            ack <- Timer::new(),
        })
    }

    /// Starts those that a change asks for. Under the lock.
    pub(super) fn start(&self, fifo: ArcBorrow<'_, Fifo>, effects: &Effects) {
        if let Some(microseconds) = effects.timer {
            self.pump.start(fifo, microseconds);
        }
        if effects.ack_timer {
            self.ack.start(fifo, ACK_MICROSECONDS);
        }
    }

    /// Stops them, and waits for those that are running.
    pub(super) fn cancel(&self) {
        self.pump.cancel();
        self.ack.cancel();
    }
}

fn pump_after(fifo: ArcBorrow<'_, Fifo>, expired: fn(&mut TxSide)) {
    fifo.change(Origin::Timer, |state, effects| {
        expired(&mut state.tx);
        state.pump_unless_deferred(effects);
    });
}

impl TimerCallback<PUMP> for Fifo {
    fn expired(self: ArcBorrow<'_, Self>) {
        pump_after(self, |tx| tx.coalescer.expired());
    }
}

impl TimerCallback<ACK> for Fifo {
    fn expired(self: ArcBorrow<'_, Self>) {
        pump_after(self, TxSide::ack_expired);
    }
}
