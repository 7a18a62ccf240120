// SPDX-License-Identifier: GPL-2.0-only

//! The policies of the teaching edition (`GLOBALFIFO_FAST=n`): everything at once, nothing kept.
//!
//! Each type here has a namesake in a file beside this one, with the same methods.

/// Coalescing: everything is posted, acknowledged and interrupted for at once.
pub(crate) mod coalesce {
    use crate::{
        driver::{
            buffers::{
                Tx,
                TxBuffer, //
            },
            policy::Await, //
        },
        kapi::virtio::Queue, //
    };

    /// What would decide whether the next message may be held.
    #[expect(dead_code, reason = "nothing is held")]
    pub(crate) struct Facts {
        pub(crate) others: Await,
        pub(crate) is_awaited: bool,
        pub(crate) has_credit: bool,
        pub(crate) all_is_read: bool,
    }

    /// Holds nothing.
    pub(crate) struct Coalescer {
        others: Await,
    }

    impl Coalescer {
        pub(crate) fn new(_loopback: bool) -> Self {
            Self {
                others: Await::None,
            }
        }

        pub(crate) fn has_timer(&self) -> bool {
            false
        }

        pub(crate) fn stop(&mut self) {}

        pub(crate) fn note_answer(&mut self) {}

        pub(crate) fn stop_holding(&mut self, _is_one: bool) -> bool {
            false
        }

        /// Acknowledges at once.
        pub(crate) fn must_ack_now(&mut self) -> bool {
            true
        }

        pub(crate) fn acked(&mut self) {}

        pub(crate) fn begin_round(&mut self, others: Await) {
            self.others = others;
        }

        pub(crate) fn holds(&mut self, _facts: &Facts, _only: Option<&mut TxBuffer>) -> bool {
            false
        }

        pub(crate) fn describe(&self, _message: &TxBuffer, _others: Await) {}

        pub(crate) fn posted(&mut self, (): ()) {}

        pub(crate) fn timer_for(
            &mut self,
            _held: bool,
            _progress: bool,
            _carrying: bool,
        ) -> Option<u32> {
            None
        }

        pub(crate) fn ack_timer(&mut self) -> bool {
            false
        }

        /// Interrupts for each message that a request waits for.
        pub(crate) fn wants_interrupt(&self, _progress: bool) -> bool {
            self.others != Await::None
        }

        pub(crate) fn end_round(&mut self) {}

        pub(crate) fn enable_interrupts(queue: &mut Queue<Tx>) -> bool {
            queue.enable_interrupts()
        }

        pub(crate) fn wants_large_messages(&self) -> bool {
            false
        }
    }
}

/// Messages that are used again: none, each write allocates its own.
pub(crate) mod spares {
    use crate::{
        driver::{
            buffers::TxBuffer,
            chain::Chain,
            tunables::MESSAGE, //
        },
        virtio_fifo::TxHeader,
    };
    use kernel::prelude::*;

    /// Keeps nothing.
    pub(crate) struct Spares;

    impl Spares {
        pub(crate) fn new(_capacity: usize) -> Self {
            Self
        }

        pub(crate) fn queue_has(&mut self, _descriptors: u32) {}

        pub(crate) fn take(&mut self, n: usize, _is_stream: bool) -> (Chain<TxBuffer>, usize) {
            let (least, most) = MESSAGE;
            let room = (n + TxHeader::LEN).clamp(least, most) - TxHeader::LEN;
            (Chain::new(), room)
        }

        pub(crate) fn keep(&mut self, _messages: &mut Chain<TxBuffer>) {}

        pub(crate) fn allocate(room: usize) -> Result<KBox<TxBuffer>> {
            TxBuffer::for_tx(room)
        }
    }
}
