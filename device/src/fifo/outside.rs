// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A FIFO's side towards the event loop: bytes that come in and go out, the bell that tells of them,
//! and the outlet by which they leave without it.
//!
//! This file must not know what is outside, or messages of the driver.

use std::sync::Arc;

use super::End;
use super::Fifo;
use super::Host;
use super::trace_moved;
use crate::outlet::Outlet;
use crate::outlet::Payload;
use crate::trace::What;
use crate::wake::Wake;

/// Most bytes that wait for the end of a pass before they leave by an [`Outlet`].
pub(super) const LEAVE_AT: usize = 16_384;

/// Least payload that is offered to an [`Outlet`] where it is. That spares a copy, but the driver has its
/// message back only after it.
pub(super) const LEAVE_FROM: usize = 65536;

/// How the event loop learns that there is something to move.
#[derive(Debug, Default)]
pub(super) struct Doorbell {
    bell: Option<Arc<dyn Wake>>,
    /// By this, bytes leave without the event loop, …
    outlet: Option<Arc<dyn Outlet>>,
    /// … except while it is taking some out itself: later ones must not overtake them.
    leaving: bool,
    /// When that began, for the tracer.
    begun: Option<u64>,
    /// Something outside is open that takes bytes.
    taker: bool,
    /// The outlet has not taken all it was offered in this pass.
    narrow: bool,
    /// It found the rx ring full, …
    wants_space: bool,
    /// … or the tx ring empty, and does not look again before the bell.
    wants_bytes: bool,
}

impl Doorbell {
    fn ring(&mut self) {
        self.wants_space = false;
        self.wants_bytes = false;
        if let Some(bell) = &self.bell {
            bell.wake();
        }
    }
}

impl Fifo {
    /// Offers the outlet the `len` bytes of a large payload where they are; how many it took.
    pub(super) fn let_through(&mut self, payload: &mut impl Payload, len: usize) -> usize {
        if len < LEAVE_FROM || !self.leaves_at_once() || self.is_narrow() {
            return 0;
        }
        if self.untaken() > 0 {
            self.let_out();
        }
        let Some(Host {
            end: End::Outside(doorbell),
            tx,
            ..
        }) = &mut self.host
        else {
            return 0;
        };
        let Some(outlet) = doorbell.outlet.as_ref().filter(|_| tx.is_empty()) else {
            return 0;
        };
        let (position, begun, fifo) = (tx.written(), self.tracer.begin(), self.index);
        let mut narrow = false;
        let taken = payload.show(len, |pieces| {
            let taken = outlet.offer_pieces(pieces).unwrap_or(0);
            narrow = taken < len;
            taken
        });
        tx.pass_through(taken);
        trace_moved(&self.tracer, begun, taken, |bytes| What::EndpointWrite {
            fifo,
            position,
            bytes,
        });
        doorbell.narrow = narrow;
        taken
    }

    /// A pass over tx messages is over: what can leave at once does.
    pub fn pass_over(&mut self) {
        if self.leaves_at_once() {
            if self.is_narrow() {
                self.ring_bell();
            } else {
                self.let_out();
            }
        }
        if let Some(doorbell) = self.doorbell() {
            doorbell.narrow = false;
        }
    }

    pub(super) fn is_narrow(&mut self) -> bool {
        self.doorbell().is_some_and(|doorbell| doorbell.narrow)
    }

    /// Whether what comes in leaves by the outlet.
    pub(super) fn leaves_at_once(&self) -> bool {
        match &self.host {
            Some(Host {
                end: End::Outside(doorbell),
                ..
            }) => doorbell.outlet.is_some() && !doorbell.leaving && !self.stands_still(),
            _ => false,
        }
    }

    /// Offers the outlet what waits; what stays is for the event loop.
    pub(super) fn let_out(&mut self) {
        if let Some(Host {
            end: End::Outside(doorbell),
            tx,
            ..
        }) = &mut self.host
            && let Some(outlet) = &doorbell.outlet
            && tx.unsent() > 0
        {
            let (position, begun, fifo) = (tx.sent(), self.tracer.begin(), self.index);
            let (first, second) = tx.unsent_parts();
            if let Ok(len) = outlet.offer(first, second) {
                trace_moved(&self.tracer, begun, len, |bytes| What::EndpointWrite {
                    fifo,
                    position,
                    bytes,
                });
                tx.drop_to(tx.sent().saturating_add(len as u64));
            }
            doorbell.narrow = tx.unsent() > 0;
        }
        self.ring_bell();
    }

    /// Sets what is rung when there is something to move to or from the outside.
    pub fn set_bell(&mut self, bell: Arc<dyn Wake>) {
        if let Some(doorbell) = self.doorbell() {
            doorbell.bell = Some(bell);
        }
    }

    /// Sets the way by which bytes may leave from now on without the event loop, or that there is none;
    /// the one until now, to be dropped without the lock.
    pub fn set_outlet(&mut self, outlet: Option<Arc<dyn Outlet>>) -> Option<Arc<dyn Outlet>> {
        let doorbell = self.doorbell()?;
        doorbell.narrow = false;
        std::mem::replace(&mut doorbell.outlet, outlet)
    }

    /// Sets whether something outside is open that takes bytes.
    pub fn set_taker(&mut self, taker: bool) {
        if let Some(doorbell) = self.doorbell() {
            doorbell.taker = taker;
        }
    }

    /// Bytes of the driver that something outside is about to take. Other bytes have to wait for a peer, a reset, or
    /// an end of what keeps the FIFO cut off.
    pub fn leaving(&self) -> usize {
        let moves = !self.failed && !self.hung_up && !self.cut_off;
        match &self.host {
            Some(Host {
                end: End::Outside(doorbell),
                ..
            }) if moves && doorbell.taker => self.undelivered(),
            _ => 0,
        }
    }

    /// Bytes of the driver that are lost if the device ends now: those accepted for an outside that has not taken them.
    pub fn undelivered(&self) -> usize {
        match &self.host {
            Some(Host {
                end: End::Outside(_),
                tx,
                ..
            }) => tx.unsent(),
            _ => 0,
        }
    }

    /// How many bytes can be [`Fifo::put`]; if none, the bell tells when that changes. A FIFO that
    /// has failed stands still until it is reset.
    pub fn room(&mut self) -> usize {
        let room = if self.stands_still() {
            0
        } else {
            self.rx.free()
        };
        if let Some(doorbell) = self.doorbell() {
            doorbell.wants_space |= room == 0;
        }
        room
    }

    /// Takes bytes for the driver; how many of them.
    pub fn put(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(self.rx.free());
        let (position, fifo) = (self.rx.written(), self.index);
        let mut source = bytes;
        let len = match self.rx.push_from(&mut source, len) {
            Ok(()) => len,
            Err(_) => 0,
        };
        trace_moved(&self.tracer, self.tracer.begin(), len, |bytes| {
            What::EndpointRead {
                fifo,
                position,
                bytes,
            }
        });
        len
    }

    /// Copies bytes of the driver that wait to go outside: the position of the first, and how many.
    /// If there are none, the bell tells when that changes; otherwise [`Fifo::taken`] has to follow.
    pub fn peek(&mut self, bytes: &mut [u8]) -> (u64, usize) {
        let still = self.stands_still();
        let Some(host) = &mut self.host else {
            return (0, 0);
        };
        let bytes = if still { &mut [] } else { bytes };
        let (position, len) = host.tx.peek(bytes);
        if let End::Outside(doorbell) = &mut host.end {
            doorbell.wants_bytes |= len == 0;
            doorbell.leaving = len > 0;
            doorbell.begun = self.tracer.begin();
        }
        (position, len)
    }

    /// The bytes below `position` of the tx stream are outside, of those that [`Fifo::peek`] gave. (A
    /// clear may have been faster.)
    pub fn taken(&mut self, position: u64) {
        let fifo = self.index;
        let begun = self.doorbell().and_then(|doorbell| doorbell.begun.take());
        if let Some(host) = &mut self.host {
            let from = host.tx.sent();
            host.tx.drop_to(position);
            let bytes = usize::try_from(position.saturating_sub(from)).unwrap_or(usize::MAX);
            trace_moved(&self.tracer, begun, bytes, |bytes| What::EndpointWrite {
                fifo,
                position: from,
                bytes,
            });
        }
        if let Some(doorbell) = self.doorbell() {
            doorbell.leaving = false;
        }
    }

    /// Whether bytes of the driver wait to go outside, and whether there is room for more for it.
    /// What there is not, the bell tells of.
    pub fn has_work(&mut self) -> (bool, bool) {
        let bytes = self.untaken() > 0 && !self.stands_still();
        if let Some(doorbell) = self.doorbell() {
            doorbell.wants_bytes |= !bytes;
        }
        (bytes, self.room() > 0)
    }

    fn doorbell(&mut self) -> Option<&mut Doorbell> {
        match &mut self.host {
            Some(Host {
                end: End::Outside(doorbell),
                ..
            }) => Some(doorbell),
            _ => None,
        }
    }

    /// Tells the event loop of what it wants to know, if that is so now.
    pub(super) fn ring_bell(&mut self) {
        self.ring_bell_for(true);
    }

    /// As [`Fifo::ring_bell`], of `bytes` only if they do not leave by themselves.
    pub(super) fn ring_bell_for(&mut self, bytes: bool) {
        if self.stands_still() {
            return;
        }
        let space = self.rx.free() > 0;
        let bytes = bytes && self.untaken() > 0;
        if let Some(doorbell) = self.doorbell()
            && (doorbell.wants_space && space || doorbell.wants_bytes && bytes)
        {
            doorbell.ring();
        }
    }
}
