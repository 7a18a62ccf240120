// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is done to a FIFO from outside, by hand: bytes put in and taken out, cleared, hung up.
//!
//! To the driver all of it looks like something that the host side did. This file must not know
//! who asks, or how.

use super::Fifo;
use super::trace_moved;
use crate::trace::What;

/// Why something cannot be done by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotByHand {
    /// Only the driver reads and writes a loopback.
    #[error("a loopback FIFO has no host side to {0}: use a FIFO of another kind")]
    Loopback(&'static str),
    /// There is no place for others in what it makes.
    #[error("the FIFO makes its bytes itself: push into one of another kind")]
    Made,
    /// Somebody who has hung up sends nothing.
    #[error("the FIFO is hung up: take that back first")]
    HungUp,
}

impl Fifo {
    /// Puts what fits of `bytes` into the rx stream, as if the host side had sent it; returns how
    /// many that is.
    ///
    /// # Errors
    ///
    /// [`NotByHand`]
    pub fn push(&mut self, bytes: &[u8]) -> Result<usize, NotByHand> {
        if self.host.is_none() {
            return Err(NotByHand::Loopback("push bytes into"));
        }
        if self.makes_bytes() {
            return Err(NotByHand::Made);
        }
        if self.hung_up {
            return Err(NotByHand::HungUp);
        }
        Ok(self.put(bytes))
    }

    /// Takes at most `most` of the bytes that the driver has sent and the host side has not taken.
    ///
    /// # Errors
    ///
    /// [`NotByHand`]
    pub fn pull(&mut self, most: usize) -> Result<Vec<u8>, NotByHand> {
        let Some(host) = &mut self.host else {
            return Err(NotByHand::Loopback("pull bytes from"));
        };
        let begun = self.tracer.begin();
        let mut bytes = vec![0; most.min(host.tx.unsent())];
        let (position, len) = host.tx.peek(&mut bytes);
        trace_moved(&self.tracer, begun, len, |bytes| What::EndpointWrite {
            fifo: self.index,
            position,
            bytes,
        });
        host.tx.drop_to(position.saturating_add(len as u64));
        Ok(bytes)
    }

    /// Bytes that can be pushed now.
    pub fn free(&self) -> usize {
        self.rx.free()
    }

    /// Bytes that can be pulled now.
    pub fn untaken(&self) -> usize {
        self.host.as_ref().map_or(0, |host| host.tx.unsent())
    }

    /// Discards every byte in both directions; returns how many there were. The driver learns of
    /// it by an event (DEV-16).
    pub fn clear_by_hand(&mut self) -> usize {
        let count = self.clear();
        self.changed |= count > 0;
        count
    }

    /// Hangs the host side up, or takes that back. Until then the endpoint neither gives nor takes
    /// anything.
    pub fn hang_up(&mut self, on: bool) {
        self.change(|fifo| fifo.hung_up = on);
        self.exchange();
        self.ring_bell();
    }

    /// Whether it was hung up by hand.
    pub fn is_hung_up_by_hand(&self) -> bool {
        self.hung_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;
    use crate::fifo::ResetPolicy;
    use virtio_fifo_protocol::virtio_fifo::RxHeader;
    use virtio_fifo_protocol::virtio_fifo::STATE_HANGUP;
    use virtio_fifo_protocol::virtio_fifo::TxHeader;

    fn fifo() -> Fifo {
        let mut fifo = Fifo::with_endpoint(0, 8, ResetPolicy::Keep, Endpoint::Null);
        fifo.tell_state();
        fifo
    }

    fn send(fifo: &mut Fifo, payload: &[u8]) {
        let header = TxHeader {
            offset: fifo.tx_accepted(),
            rx_consumed: 0,
        };
        let mut source = payload;
        fifo.accept(header, &mut source, payload.len()).unwrap();
    }

    /// DEV-4: no more than the FIFO holds, those counted that the driver has received.
    #[test]
    fn what_fits_is_pushed() {
        let mut fifo = fifo();
        assert_eq!(fifo.push(b"abcde"), Ok(5));
        let mut message = Vec::new();
        fifo.deliver(&mut message, 1000).unwrap();
        assert_eq!(&message[RxHeader::LEN..], b"abcde");
        assert_eq!(fifo.push(b"fghij"), Ok(3));
        assert_eq!(fifo.push(b"k"), Ok(0));
        message.clear();
        fifo.deliver(&mut message, 1000).unwrap();
        assert_eq!(&message[RxHeader::LEN..], b"fgh");
    }

    /// DEV-16: what was pulled is credit again.
    #[test]
    fn what_the_host_side_left_is_pulled() {
        let mut fifo = fifo();
        send(&mut fifo, b"12345678");
        assert_eq!(fifo.pull(3).unwrap(), b"123");
        assert!(fifo.event_due());
        assert_eq!(fifo.tell_state().tx_limit, 11);
        send(&mut fifo, b"9ab");
        assert_eq!(fifo.untaken(), 8);
        assert_eq!(fifo.pull(100).unwrap(), b"456789ab");
        assert_eq!(fifo.pull(100).unwrap(), b"");
    }

    /// DEV-16: bytes discarded other than by CTRL_CLEAR are told.
    #[test]
    fn a_clear_by_hand_is_an_event() {
        let mut fifo = fifo();
        assert_eq!(fifo.clear_by_hand(), 0);
        assert!(!fifo.event_due());
        fifo.push(b"abc").unwrap();
        send(&mut fifo, b"12");
        assert_eq!(fifo.clear_by_hand(), 5);
        assert!(fifo.event_due());
        let state = fifo.tell_state();
        assert_eq!((state.rx_floor, state.rx_end), (3, 3));
        assert_eq!((state.tx_accepted, state.tx_limit), (2, 10));
    }

    /// The endpoint has no part in it while the FIFO is hung up.
    #[test]
    fn hung_up_and_back() {
        let mut fifo = fifo();
        fifo.hang_up(true);
        assert_eq!(fifo.tell_state().flags, STATE_HANGUP);
        assert_eq!(fifo.push(b"x"), Err(NotByHand::HungUp));
        send(&mut fifo, b"held");
        fifo.exchange();
        assert_eq!(fifo.untaken(), 4);
        fifo.hang_up(false);
        assert_eq!(fifo.tell_state().flags, 0);
        assert_eq!(fifo.untaken(), 0);
        assert_eq!(fifo.push(b"x"), Ok(1));
    }

    #[test]
    fn a_loopback_has_no_host_side() {
        let mut fifo = Fifo::loopback(0, 8, ResetPolicy::Keep);
        assert!(matches!(fifo.push(b"x"), Err(NotByHand::Loopback(_))));
        assert!(matches!(fifo.pull(1), Err(NotByHand::Loopback(_))));
        fifo.hang_up(true);
        assert!(fifo.event_due());
        assert_ne!(fifo.tell_state().flags & STATE_HANGUP, 0);
    }

    #[test]
    fn nothing_is_pushed_into_what_is_made() {
        let mut fifo = Fifo::with_endpoint(0, 8, ResetPolicy::Keep, Endpoint::Zero);
        assert_eq!(fifo.push(b"x"), Err(NotByHand::Made));
        let mut fifo = Fifo::with_endpoint(0, 8, ResetPolicy::Keep, Endpoint::Null);
        assert_eq!(fifo.push(b"x"), Ok(1));
    }
}
