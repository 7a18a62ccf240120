// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Adaptive busy polling: how long the queue worker looks for more before it waits for a kick.
//!
//! It knows times and whether polling found anything; it must not know what is polled.

use std::time::Duration;
use std::time::Instant;

/// How long to look for more, after there was something, before the driver has to announce it.
///
/// For both sides an announcement costs more than many messages: here a thread is to be woken, there
/// the guest's CPU is left. So the worker stays a little if that would have spared the last
/// announcement. But who waits for an answer sends nothing before it has come, and the answer may need
/// this CPU: the more often the worker stayed in vain, the more opportunities it lets pass.
#[derive(Debug, Default)]
pub(crate) struct Linger {
    time: Duration,
    last: Option<Instant>,
    /// How often a trial was in vain since one was not.
    vain: u32,
    /// Opportunities to be let pass.
    pass: u32,
    /// The last announcement decided for the stay that goes on, which is no rest of earlier ones.
    on_trial: bool,
}

impl Linger {
    /// More than that is not waited for as a rule: a thread that is woken costs about as much.
    const MOST: Duration = Duration::from_micros(100);
    /// Announcements that are no further apart could have been spared: until one is heard takes up to half of
    /// this, which would not pass if this thread had stayed.
    const NEAR: Duration = Duration::from_micros(200);
    /// One pass does not keep the other queues waiting for longer.
    pub(crate) const PASS: Duration = Duration::from_millis(1);
    /// At most two to the power of this many opportunities are let pass.
    const DOUBT: u32 = 8;

    /// The driver has announced something `now`: how long to stay.
    pub(crate) fn begin(&mut self, now: Instant) -> Duration {
        let since = |last| now.saturating_duration_since(last);
        self.on_trial = self.last.is_some_and(|last| since(last) < Self::NEAR);
        if self.on_trial {
            if self.pass > 0 {
                self.pass -= 1;
                return Duration::ZERO;
            }
            // The rarer the trials, the more each has to tell.
            self.time = if self.vain > 0 {
                Self::NEAR
            } else {
                Self::MOST
            };
        }
        self.time
    }

    /// A pass is over `now`; whether it has found messages while it stayed, if it did.
    pub(crate) fn ended(&mut self, now: Instant, found: Option<bool>) {
        match found {
            Some(true) => (self.vain, self.pass) = (0, 0),
            Some(false) => {
                self.time = self.time.min(Self::MOST) / 2;
                if self.on_trial {
                    self.vain = (self.vain + 1).min(Self::DOUBT);
                    self.pass = 1 << self.vain;
                }
            }
            None => {}
        }
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, microseconds: u64) -> Instant {
        start + Duration::from_micros(microseconds)
    }

    #[test]
    fn the_worker_stays_when_announcements_follow_each_other() {
        let start = Instant::now();
        let mut linger = Linger::default();
        assert_eq!(linger.begin(start), Duration::ZERO);
        linger.ended(after(start, 10), None);
        assert_eq!(linger.begin(after(start, 60)), Linger::MOST);
        linger.ended(after(start, 200), Some(true));
        assert_eq!(linger.begin(after(start, 900)), Linger::MOST);
    }

    #[test]
    fn the_worker_stays_less_and_less_when_it_was_in_vain() {
        let mut now = Instant::now();
        let mut linger = Linger {
            time: Linger::MOST,
            ..Linger::default()
        };
        for _ in 0..20 {
            let before = linger.time;
            assert_eq!(linger.begin(now), before);
            linger.ended(now, Some(false));
            assert!(linger.time <= before / 2);
            now += Duration::from_millis(10);
        }
        assert!(linger.time < Duration::from_micros(1));
    }

    /// Each announcement takes so long to be heard that they are further apart than what they announce would be.
    #[test]
    fn the_worker_tries_to_stay_where_waking_it_is_what_takes_long() {
        let start = Instant::now();
        let mut linger = Linger::default();
        linger.ended(start, None);
        let next = after(start, 150);
        assert_eq!(linger.begin(next), Linger::MOST);
        linger.ended(next, Some(false));
        for n in 1..=2 {
            assert_eq!(linger.begin(next), Duration::ZERO, "{n}");
            linger.ended(next, None);
        }
        // In doubt, as long as would have spared the last one.
        assert_eq!(linger.begin(next), Linger::NEAR);
    }

    #[test]
    fn what_is_left_of_earlier_stays_does_not_put_off_the_next_trial() {
        let mut now = Instant::now();
        let mut linger = Linger::default();
        linger.ended(now, None);
        assert_eq!(linger.begin(now), Linger::MOST);
        linger.ended(now, Some(false));
        let doubt = (linger.vain, linger.pass);
        for _ in 0..20 {
            now += 2 * Linger::NEAR;
            assert!(linger.begin(now) < Linger::MOST);
            linger.ended(now, Some(false));
        }
        assert_eq!((linger.vain, linger.pass), doubt);
    }

    /// There and back, over and over: what comes next needs the answer first.
    #[test]
    fn the_worker_seldom_stays_where_answers_are_waited_for() {
        let mut now = Instant::now();
        let mut linger = Linger::default();
        let mut stayed = 0;
        for _ in 0..1000 {
            let time = linger.begin(now);
            stayed += u32::from(time >= Linger::MOST);
            linger.ended(now, (time > Duration::ZERO).then_some(false));
            now += Linger::MOST / 2;
        }
        assert!((1..15).contains(&stayed), "{stayed}");
        // Messages that follow each other are believed at once.
        linger.ended(now, Some(true));
        assert_eq!(linger.begin(now), Linger::MOST);
    }
}
