// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One fault: its opportunities, when it strikes, and what the timer is set for by then.
//!
//! It must not know what a strike does.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use super::FaultId;
use super::Report;
use super::Site;
use crate::fault::dice::Dice;
use crate::fault::kind::Kind;
use crate::fault::kind::Place;
use crate::fault::liar;
use crate::fault::spec::FaultSpec;

/// What the timer is set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    Interrupt(Place),
    Serve(Place),
    /// A fault makes its own opportunity.
    Tick(FaultId),
}

/// What is to happen when. At most one of each alarm, the earliest: so a driver cannot make it grow.
#[derive(Debug, Default)]
pub(super) struct Alarms(pub(super) BTreeMap<Alarm, Instant>);

impl Alarms {
    pub(super) fn set(&mut self, alarm: Alarm, at: Instant) {
        let earliest = self.0.entry(alarm).or_insert(at);
        *earliest = at.min(*earliest);
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }

    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Alarm> {
        let mut due: Vec<_> = self.0.iter().map(|(alarm, at)| (*at, *alarm)).collect();
        due.retain(|(at, _)| *at <= now);
        due.sort_unstable();
        for (_, alarm) in &due {
            self.0.remove(alarm);
        }
        due.into_iter().map(|(_, alarm)| alarm).collect()
    }
}

/// How long a place is held up; `None` for good.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    until: Option<Instant>,
}

/// A fault, and what became of it.
#[derive(Debug)]
pub(super) struct Armed {
    pub(super) id: FaultId,
    pub(super) spec: FaultSpec,
    /// When its times began to count.
    pub(super) started: Option<Instant>,
    /// Opportunities so far.
    pub(super) seen: BTreeMap<(Site, Place), u64>,
    pub(super) strikes: u64,
    pub(super) holds: BTreeMap<(Site, Place), Hold>,
}

impl Armed {
    pub(super) fn is(&self, kind: Kind) -> bool {
        self.spec.kind == kind
    }

    pub(super) fn covers(&self, place: Place) -> bool {
        let spec = &self.spec;
        spec.fifo.is_none_or(|fifo| place.fifo == Some(fifo))
            && spec.lane.is_none_or(|lane| place.lane == lane)
    }

    /// When it can strike: from the first to the second, if there is a second.
    pub(super) fn window(&self) -> Option<(Instant, Option<Instant>)> {
        let from = self.started? + self.spec.after;
        Some((from, self.spec.span.map(|span| from + span)))
    }

    /// Before a driver is there, what has no time of its own can strike.
    pub(super) fn is_in_time(&self, now: Instant) -> bool {
        match self.window() {
            None => self.spec.after.is_zero(),
            Some((from, to)) => from <= now && to.is_none_or(|to| now < to),
        }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        let late = match self.window() {
            Some((_, Some(to))) => now >= to,
            _ => false,
        };
        late || self.spec.count.is_some_and(|count| self.strikes >= count)
    }

    pub(super) fn chance(&self, site: Site) -> f64 {
        match self.spec.chance {
            Some(chance) => chance,
            None if self.is(Kind::Liar) => liar::chance(self.spec.seed, site),
            None => 1.0,
        }
    }

    /// One opportunity. Gives what the strike draws from, if it strikes.
    pub(super) fn strike(&mut self, site: Site, place: Place, now: Instant) -> Option<Dice> {
        let seen = self.seen.entry((site, place)).or_default();
        let number = *seen;
        *seen += 1;
        let spec = &self.spec;
        let mut dice = Dice::new(spec.seed, spec.kind, site as u8, place, number);
        if number < spec.skip
            || !dice.hit(self.chance(site))
            || !self.is_in_time(now)
            || self.is_over(now)
        {
            return None;
        }
        self.strikes += 1;
        Some(dice)
    }

    /// One opportunity to hold up `place`, unless it is held up. What was held up gets through once
    /// before it can be held up again.
    pub(super) fn holds(
        &mut self,
        site: Site,
        place: Place,
        now: Instant,
        alarms: &mut Alarms,
    ) -> bool {
        if let Some(hold) = self.holds.get(&(site, place)) {
            let held = hold.until.is_none_or(|until| now < until);
            if held {
                // The alarm may have been set for something earlier, and be gone.
                if let Some(until) = hold.until {
                    alarms.set(Alarm::Serve(place), until);
                }
            } else {
                self.holds.remove(&(site, place));
            }
            return held;
        }
        let Some(mut dice) = self.strike(site, place, now) else {
            return false;
        };
        let lasts = match self.spec.kind {
            Kind::Liar => Some(Duration::from_millis(1 + dice.below(50))),
            _ => self.spec.lasts(),
        };
        let end = self.window().and_then(|(_, to)| to);
        let until = lasts.map(|lasts| now + lasts).or(end);
        if let Some(until) = until {
            alarms.set(Alarm::Serve(place), until);
        }
        self.holds.insert((site, place), Hold { until });
        true
    }

    /// What has to be looked at when it begins to be able to strike.
    pub(super) fn start(&mut self, now: Instant, num_fifos: u16, alarms: &mut Alarms) {
        self.started = Some(now);
        let from = now + self.spec.after;
        if let Some(period) = self.spec.period() {
            alarms.set(Alarm::Tick(self.id), from + period);
        }
        if self.spec.kind.wakes() {
            for fifo in 0..num_fifos {
                if self.covers(Place::rx(fifo)) {
                    alarms.set(Alarm::Serve(Place::rx(fifo)), from);
                }
            }
        }
    }

    pub(super) fn report(&self, now: Instant) -> Report {
        Report {
            id: self.id,
            spec: self.spec.clone(),
            opportunities: self.seen.values().sum(),
            strikes: self.strikes,
            over: self.is_over(now),
        }
    }
}
