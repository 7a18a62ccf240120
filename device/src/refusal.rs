// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why something from the guest was refused, how often, and when to say so.
//!
//! A guest can send rubbish as fast as it likes: every refusal is counted, and a line is logged at
//! most once a second for each FIFO (DEV-27).

use std::fmt::Display;
use std::time::Duration;
use std::time::Instant;

use tracing::warn;

/// Shortest time between two log lines about one peer's refusals.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Why a descriptor chain, or a whole virtqueue, was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The chain loops, leaves its table, is too long, or changed while it was read.
    #[error("invalid descriptor chain")]
    InvalidChain,
    /// A descriptor points outside guest memory.
    #[error("descriptor address outside guest memory")]
    InvalidAddress,
    /// A device-writable descriptor where only device-readable ones belong, or the reverse.
    #[error("descriptor of the wrong direction")]
    WrongDirection,
    /// The chain has not the length that its message needs.
    #[error("buffer length does not fit the message")]
    WrongLength,
    /// DRV-5: the payload does not follow what was accepted.
    #[error("tx offset is not the number of bytes accepted")]
    WrongOffset,
    /// DRV-6: the payload exceeds the credit.
    #[error("tx payload exceeds the limit")]
    OverLimit,
    /// DRV-7: bytes are reported consumed that were never sent.
    #[error("rx bytes reported consumed that were never sent")]
    NotSent,
    /// The FIFO is in `STATE_ERROR` and waits for a reset.
    #[error("the FIFO has failed and waits for a device reset")]
    Failed,
    /// The FIFO's endpoint wants another byte than the one that was sent.
    #[error("written bytes are not those of the pattern")]
    Mismatch,
    /// The host side cannot do what it should: its disk is full, its file cannot be read …
    #[error("the host side failed")]
    Endpoint,
    /// The virtqueue itself is corrupt and is ignored until it is stopped.
    #[error("corrupt virtqueue")]
    CorruptQueue,
}

impl Refusal {
    /// Every reason, in the order in which [`Refusals::counts`] lists them.
    pub const ALL: [Self; 11] = [
        Self::InvalidChain,
        Self::InvalidAddress,
        Self::WrongDirection,
        Self::WrongLength,
        Self::WrongOffset,
        Self::OverLimit,
        Self::NotSent,
        Self::Failed,
        Self::Mismatch,
        Self::Endpoint,
        Self::CorruptQueue,
    ];

    /// A word for it, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidChain => "invalid-chain",
            Self::InvalidAddress => "invalid-address",
            Self::WrongDirection => "wrong-direction",
            Self::WrongLength => "wrong-length",
            Self::WrongOffset => "wrong-offset",
            Self::OverLimit => "over-limit",
            Self::NotSent => "not-sent",
            Self::Failed => "failed",
            Self::CorruptQueue => "corrupt-queue",
            Self::Mismatch => "mismatch",
            Self::Endpoint => "endpoint",
        }
    }
}

/// Says when something may be logged that a guest or a peer can make happen at any rate.
#[derive(Debug, Default)]
pub struct LogLimit {
    logged: Option<Instant>,
    unlogged: u64,
}

impl LogLimit {
    /// Whether to log now; if so, how many times were passed over since the last.
    pub fn pass(&mut self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&mut self, now: Instant) -> Option<u64> {
        let due = self
            .logged
            .is_none_or(|last| now.saturating_duration_since(last) >= LOG_INTERVAL);
        if due {
            self.logged = Some(now);
            Some(std::mem::take(&mut self.unlogged))
        } else {
            self.unlogged = self.unlogged.saturating_add(1);
            None
        }
    }
}

/// Counts refusals by reason.
#[derive(Debug, Default)]
pub struct Refusals {
    counts: [u64; Refusal::ALL.len()],
    limit: LogLimit,
}

impl Refusals {
    /// Counts one refusal on `queue` and logs it unless another was logged within a second.
    pub fn add(&mut self, queue: impl Display, reason: Refusal) {
        let place = Refusal::ALL.iter().position(|known| *known == reason);
        if let Some(count) = place.and_then(|at| self.counts.get_mut(at)) {
            *count = count.saturating_add(1);
        }
        if let Some(unlogged) = self.limit.pass() {
            warn!(%queue, unlogged, "refused: {reason}");
        }
    }

    /// How often each reason occurred.
    pub fn counts(&self) -> impl Iterator<Item = (Refusal, u64)> + '_ {
        Refusal::ALL.into_iter().zip(self.counts)
    }

    /// How often `reason` occurred.
    pub fn count(&self, reason: Refusal) -> u64 {
        self.counts()
            .find_map(|(known, count)| (known == reason).then_some(count))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DEV-27
    #[test]
    fn every_refusal_is_counted_by_reason() {
        let mut refusals = Refusals::default();
        for (times, reason) in Refusal::ALL.into_iter().enumerate() {
            for _ in 0..times {
                refusals.add("tx 0", reason);
            }
        }
        for (times, reason) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusals.count(reason), times as u64);
        }
    }

    /// DEV-27
    #[test]
    fn one_line_a_second() {
        let mut limit = LogLimit::default();
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(limit.pass_at(start), Some(0));
        assert_eq!(limit.pass_at(after(500)), None);
        assert_eq!(limit.pass_at(after(999)), None);
        assert_eq!(limit.pass_at(after(1000)), Some(2));
        assert_eq!(limit.pass_at(after(1500)), None);
    }
}
