// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the queues of a FIFO were stopped for: a pause of the machine, or a reset of the device, which a vhost-user backend
//! is not told of (DEV-33). Pure: must not know virtqueues, nor what follows.

/// Where the rings of a FIFO stood when they were stopped: `next_avail` of rx and tx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bases {
    /// Of rx.
    pub rx: u16,
    /// Of tx.
    pub tx: u16,
}

/// Where the device stands in a virtqueue.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// Whether the VMM has it started.
    pub ready: bool,
    /// `next_avail`
    pub at: u16,
}

impl Position {
    fn goes_on_at(self, base: u16) -> bool {
        !self.ready || self.at == base
    }

    fn has_moved(self) -> bool {
        self.ready && self.at != 0
    }
}

/// What the queues of a FIFO were stopped for (DEV-33).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A pause of the machine.
    Pause,
    /// A reset of the device.
    Reset,
    /// The one or the other: neither queue had moved, so no driver has got anything.
    Either,
}

impl Bases {
    /// What the rings, as they are now, say of a stop at these bases; `None` while they say nothing.
    pub fn verdict(self, rx: Position, tx: Position) -> Option<Verdict> {
        // A ring that is not started says nothing.
        if !rx.ready && !tx.ready {
            None
        } else if !rx.goes_on_at(self.rx) || !tx.goes_on_at(self.tx) {
            Some(Verdict::Reset)
        } else if rx.has_moved() || tx.has_moved() {
            Some(Verdict::Pause)
        } else if self.rx == 0 && self.tx == 0 {
            Some(Verdict::Either)
        } else {
            // The one that had moved is not started yet.
            None
        }
    }
}

/// When a FIFO that was stopped is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// Once a ring of it is started: only that tells a pause from a reset.
    WhenStarted,
    /// At once, since the driver asks.
    Now,
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const NOT: Option<u16> = None;

    #[rstest]
    #[case::nothing_started((3, 4), NOT, NOT, None)]
    #[case::both_go_on((3, 4), Some(3), Some(4), Some(Verdict::Pause))]
    #[case::one_goes_on((3, 4), NOT, Some(4), Some(Verdict::Pause))]
    #[case::both_anew((3, 4), Some(0), Some(0), Some(Verdict::Reset))]
    #[case::one_anew((3, 4), Some(3), Some(0), Some(Verdict::Reset))]
    #[case::one_anew_alone((3, 4), Some(0), NOT, Some(Verdict::Reset))]
    #[case::neither_had_moved((0, 0), Some(0), Some(0), Some(Verdict::Either))]
    #[case::neither_had_moved_one_started((0, 0), NOT, Some(0), Some(Verdict::Either))]
    #[case::the_one_that_had_moved_is_missing((0, 4), Some(0), NOT, None)]
    #[case::the_other_had_moved((4, 0), NOT, Some(0), None)]
    #[case::the_one_that_had_moved_goes_on((0, 4), Some(0), Some(4), Some(Verdict::Pause))]
    #[case::the_one_that_had_moved_is_anew((0, 4), Some(0), Some(0), Some(Verdict::Reset))]
    #[case::elsewhere((0, 4), Some(2), Some(4), Some(Verdict::Reset))]
    fn a_stop_is_judged_by_where_the_rings_go_on(
        #[case] (rx, tx): (u16, u16),
        #[case] rx_now: Option<u16>,
        #[case] tx_now: Option<u16>,
        #[case] verdict: Option<Verdict>,
    ) {
        let now = |at: Option<u16>| Position {
            ready: at.is_some(),
            at: at.unwrap_or_default(),
        };
        assert_eq!(Bases { rx, tx }.verdict(now(rx_now), now(tx_now)), verdict);
    }
}
