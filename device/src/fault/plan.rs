// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which fault strikes when. Plain state, told the time by its callers; [`super::Faults`] locks it.
//!
//! A fault counts its opportunities at each site and place. Whether it strikes depends on the
//! number of the opportunity, then on the fault's times and count: those decide when chance
//! applies, never what it says.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

use super::dice::Dice;
use super::kind::Kind;
use super::kind::Lane;
use super::kind::Place;
use super::liar;
use super::spec::FaultSpec;

/// No buffer, and no FIFO, is as long as this: a used length or a limit beyond cannot be right.
const TOO_LONG: u32 = 1 << 25;
/// A used rx buffer has to be longer than this.
const RX_HEADER: u64 = 24;

/// Names one fault of a device; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FaultId(pub u32);

/// What became of a fault so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Which fault.
    pub id: FaultId,
    /// What it does.
    pub spec: FaultSpec,
    /// How often it could have struck.
    pub opportunities: u64,
    /// How often it did.
    pub strikes: u64,
    /// Whether it never strikes again.
    pub over: bool,
}

/// What has become due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// An interrupt at this place.
    Interrupt(Place),
    /// A look at this place, which was held up or where something is to happen.
    Serve(Place),
}

/// How a buffer is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Which buffer.
    pub id: u32,
    /// Bytes written.
    pub len: u32,
    /// How far the used index jumps ahead before.
    pub ahead: u16,
    /// To be given back after the next one.
    pub later: bool,
}

impl Used {
    /// The truth.
    pub const fn new(id: u16, len: u32) -> Self {
        Self {
            id: id as u32,
            len,
            ahead: 0,
            later: false,
        }
    }
}

/// What becomes of an rx message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Payload bytes at most.
    pub most: usize,
    /// This many bytes more than the FIFO holds, before anything else.
    pub overrun: Option<u32>,
}

/// What becomes of a FIFO's outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Nothing is moved now.
    pub slow: bool,
    /// It is gone.
    pub hung_up: bool,
    /// The FIFO fails.
    pub failed: bool,
}

/// In doing what a fault can strike. Each has opportunities of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Site {
    Serve,
    Interrupt,
    Tick,
    Used,
    Suppression,
    Message,
    Limit,
    Content,
    Event,
    Host,
    Config,
}

/// What the timer is set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Interrupt(Place),
    Serve(Place),
    /// A fault makes its own opportunity.
    Tick(FaultId),
}

/// What is to happen when. At most one of each alarm, the earliest: so a driver cannot make it grow.
#[derive(Debug, Default)]
struct Alarms(BTreeMap<Alarm, Instant>);

impl Alarms {
    fn set(&mut self, alarm: Alarm, at: Instant) {
        let earliest = self.0.entry(alarm).or_insert(at);
        *earliest = at.min(*earliest);
    }

    fn next(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }

    fn take_due(&mut self, now: Instant) -> Vec<Alarm> {
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
struct Hold {
    until: Option<Instant>,
}

/// A fault, and what became of it.
#[derive(Debug)]
struct Armed {
    id: FaultId,
    spec: FaultSpec,
    /// When its times began to count.
    started: Option<Instant>,
    /// Opportunities so far.
    seen: BTreeMap<(Site, Place), u64>,
    strikes: u64,
    holds: BTreeMap<(Site, Place), Hold>,
}

impl Armed {
    fn is(&self, kind: Kind) -> bool {
        self.spec.kind == kind
    }

    fn covers(&self, place: Place) -> bool {
        let spec = &self.spec;
        spec.fifo.is_none_or(|fifo| place.fifo == Some(fifo))
            && spec.lane.is_none_or(|lane| place.lane == lane)
    }

    /// When it can strike: from the first to the second, if there is a second.
    fn window(&self) -> Option<(Instant, Option<Instant>)> {
        let from = self.started? + self.spec.after;
        Some((from, self.spec.span.map(|span| from + span)))
    }

    /// Before a driver is there, what has no time of its own can strike.
    fn is_in_time(&self, now: Instant) -> bool {
        match self.window() {
            None => self.spec.after.is_zero(),
            Some((from, to)) => from <= now && to.is_none_or(|to| now < to),
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        let late = match self.window() {
            Some((_, Some(to))) => now >= to,
            _ => false,
        };
        late || self.spec.count.is_some_and(|count| self.strikes >= count)
    }

    fn chance(&self, site: Site) -> f64 {
        match self.spec.chance {
            Some(chance) => chance,
            None if self.is(Kind::Liar) => liar::chance(self.spec.seed, site),
            None => 1.0,
        }
    }

    /// One opportunity. Gives what the strike draws from, if it strikes.
    fn strike(&mut self, site: Site, place: Place, now: Instant) -> Option<Dice> {
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
    fn holds(&mut self, site: Site, place: Place, now: Instant, alarms: &mut Alarms) -> bool {
        if let Some(hold) = self.holds.get(&(site, place)) {
            let held = hold.until.is_none_or(|until| now < until);
            if !held {
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
    fn start(&mut self, now: Instant, num_fifos: u16, alarms: &mut Alarms) {
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

    fn report(&self, now: Instant) -> Report {
        Report {
            id: self.id,
            spec: self.spec.clone(),
            opportunities: self.seen.values().sum(),
            strikes: self.strikes,
            over: self.is_over(now),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Plan {
    num_fifos: u16,
    faults: Vec<Armed>,
    next_id: u32,
    /// A driver is there.
    driver: bool,
    alarms: Alarms,
    /// Whose host side was held up when it was last asked for: it has to ask again.
    held_up: BTreeSet<Place>,
}

impl Plan {
    pub(super) fn new(num_fifos: u16) -> Self {
        Self {
            num_fifos,
            faults: Vec::new(),
            next_id: 1,
            driver: false,
            alarms: Alarms::default(),
            held_up: BTreeSet::new(),
        }
    }

    pub(super) fn add(&mut self, spec: &FaultSpec, now: Instant) -> FaultId {
        let id = FaultId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        let mut fault = Armed {
            id,
            spec: spec.clone(),
            started: None,
            seen: BTreeMap::new(),
            strikes: 0,
            holds: BTreeMap::new(),
        };
        if self.driver {
            fault.start(now, self.num_fifos, &mut self.alarms);
        }
        self.faults.push(fault);
        id
    }

    pub(super) fn remove(&mut self, id: FaultId, now: Instant) -> bool {
        let Some(at) = self.faults.iter().position(|fault| fault.id == id) else {
            return false;
        };
        let fault = self.faults.remove(at);
        self.alarms.0.remove(&Alarm::Tick(id));
        for (_, place) in fault.holds.into_keys() {
            self.alarms.set(Alarm::Serve(place), now);
        }
        true
    }

    pub(super) fn clear(&mut self, now: Instant) -> usize {
        let ids: Vec<_> = self.faults.iter().map(|fault| fault.id).collect();
        ids.into_iter().filter(|id| self.remove(*id, now)).count()
    }

    pub(super) fn list(&self, now: Instant) -> Vec<Report> {
        self.faults.iter().map(|fault| fault.report(now)).collect()
    }

    pub(super) fn active(&self) -> bool {
        !self.faults.is_empty() || !self.held_up.is_empty()
    }

    pub(super) fn driver_started(&mut self, now: Instant) {
        self.driver = true;
        for fault in &mut self.faults {
            if fault.started.is_none() {
                fault.start(now, self.num_fifos, &mut self.alarms);
            }
        }
    }

    pub(super) fn driver_gone(&mut self) {
        self.driver = false;
    }

    /// What holds up the outside goes on; what holds up queues ends with them.
    pub(super) fn stopped(&mut self, place: Place) {
        for fault in &mut self.faults {
            if !fault.is(Kind::HangUp) {
                fault.holds.retain(|(_, held), _| *held != place);
            }
        }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.alarms.next()
    }

    pub(super) fn due(&mut self, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        for alarm in self.alarms.take_due(now) {
            match alarm {
                Alarm::Interrupt(place) => due.push(Due::Interrupt(place)),
                Alarm::Serve(place) => due.push(Due::Serve(place)),
                Alarm::Tick(id) => self.tick(id, now, &mut due),
            }
        }
        due
    }

    fn tick(&mut self, id: FaultId, now: Instant, due: &mut Vec<Due>) {
        let places: Vec<_> = self.places().collect();
        let Some(fault) = self.faults.iter_mut().find(|fault| fault.id == id) else {
            return;
        };
        for place in places {
            if fault.covers(place) && fault.strike(Site::Tick, place, now).is_some() {
                due.push(Due::Interrupt(place));
            }
        }
        if let Some(period) = fault.spec.period().filter(|_| !fault.is_over(now)) {
            self.alarms.set(Alarm::Tick(id), now + period);
        }
    }

    fn places(&self) -> impl Iterator<Item = Place> + use<> {
        let of_fifos = (0..self.num_fifos).flat_map(|fifo| [Place::rx(fifo), Place::tx(fifo)]);
        [Place::CONTROL, Place::EVENT].into_iter().chain(of_fifos)
    }

    pub(super) fn may_serve(&mut self, place: Place, now: Instant) -> bool {
        let mut may = true;
        for fault in &mut self.faults {
            if (fault.is(Kind::Stall) || fault.is(Kind::Liar)) && fault.covers(place) {
                may &= !fault.holds(Site::Serve, place, now, &mut self.alarms);
            }
        }
        may
    }

    pub(super) fn interrupts_now(&mut self, place: Place, now: Instant) -> bool {
        let mut at_once = true;
        for fault in &mut self.faults {
            if !fault.covers(place) || !at_once {
                continue;
            }
            let what = match fault.spec.kind {
                kind @ (Kind::DropInterrupt | Kind::DelayInterrupt | Kind::DuplicateInterrupt) => {
                    fault.strike(Site::Interrupt, place, now).map(|_| kind)
                }
                Kind::Liar => fault
                    .strike(Site::Interrupt, place, now)
                    .map(|mut dice| liar::interrupt(&mut dice)),
                _ => None,
            };
            let Some(what) = what else { continue };
            at_once = what == Kind::DuplicateInterrupt;
            if what != Kind::DropInterrupt {
                let delay = fault.spec.lasts().unwrap_or(Duration::from_millis(1));
                self.alarms.set(Alarm::Interrupt(place), now + delay);
            }
        }
        at_once
    }

    pub(super) fn used(&mut self, place: Place, truth: Used, ids: u32, now: Instant) -> Used {
        let mut used = truth;
        for fault in &mut self.faults {
            if !fault.covers(place) {
                continue;
            }
            let kind = fault.spec.kind;
            if !matches!(
                kind,
                Kind::ReorderUsed
                    | Kind::WrongLength
                    | Kind::WrongId
                    | Kind::WrongIndex
                    | Kind::Liar
            ) {
                continue;
            }
            let Some(mut dice) = fault.strike(Site::Used, place, now) else {
                continue;
            };
            let what = if kind == Kind::Liar {
                liar::used(&mut dice)
            } else {
                kind
            };
            match what {
                Kind::ReorderUsed => used.later = true,
                Kind::WrongLength => {
                    used.len = match fault.spec.bytes {
                        Some(bytes) => bytes,
                        None => wrong_length(place.lane, used.len, &mut dice),
                    }
                }
                Kind::WrongId => used.id = wrong_id(used.id, ids, &mut dice),
                Kind::WrongIndex => {
                    used.ahead = 1 + u16::try_from(dice.below(u64::from(u16::MAX))).unwrap_or(0);
                }
                _ => {}
            }
        }
        used
    }

    pub(super) fn message(&mut self, place: Place, unsent: usize, now: Instant) -> Message {
        let mut message = Message {
            most: usize::MAX,
            overrun: None,
        };
        for fault in &mut self.faults {
            let kind = fault.spec.kind;
            if !fault.covers(place)
                || !matches!(kind, Kind::ShortTransfer | Kind::CreditOverrun | Kind::Liar)
            {
                continue;
            }
            let Some(mut dice) = fault.strike(Site::Message, place, now) else {
                continue;
            };
            let what = if kind == Kind::Liar {
                liar::message(&mut dice)
            } else {
                kind
            };
            if what == Kind::CreditOverrun {
                message.overrun = Some(fault.spec.bytes.unwrap_or(1));
            } else {
                // One byte less than there is, at most, and never none.
                let any = 1 + dice.below((unsent as u64).saturating_sub(1));
                let most = fault
                    .spec
                    .bytes
                    .map_or(any, |bytes| u64::from(bytes).max(1));
                message.most = usize::try_from(most).unwrap_or(usize::MAX);
            }
        }
        message
    }

    pub(super) fn tx_limit(&mut self, place: Place, truth: u64, now: Instant) -> u64 {
        let mut limit = truth;
        for fault in &mut self.faults {
            if fault.is(Kind::CreditOverrun)
                && fault.covers(place)
                && let Some(mut dice) = fault.strike(Site::Limit, place, now)
            {
                let any = u64::from(TOO_LONG) + dice.below(1 << 20);
                limit = limit.saturating_add(fault.spec.bytes.map_or(any, u64::from));
            }
        }
        limit
    }

    pub(super) fn garbage_event(&mut self, place: Place, event: &mut [u8], now: Instant) -> bool {
        let mut garbage = false;
        for fault in &mut self.faults {
            if (fault.is(Kind::GarbageEvent) || fault.is(Kind::Liar))
                && fault.covers(place)
                && let Some(mut dice) = fault.strike(Site::Event, place, now)
            {
                liar::scramble(event, &mut dice);
                garbage = true;
            }
        }
        garbage
    }

    pub(super) fn host(&mut self, place: Place, now: Instant) -> Host {
        let mut host = Host::default();
        for fault in &mut self.faults {
            if !fault.covers(place) {
                continue;
            }
            match fault.spec.kind {
                Kind::Slow => host.slow |= fault.holds(Site::Host, place, now, &mut self.alarms),
                Kind::HangUp => {
                    host.hung_up |= fault.holds(Site::Host, place, now, &mut self.alarms);
                }
                Kind::DeviceError => {
                    host.failed |= fault.strike(Site::Host, place, now).is_some();
                }
                _ => {}
            }
        }
        if host.slow || host.hung_up {
            self.held_up.insert(place);
        } else {
            self.held_up.remove(&place);
        }
        host
    }

    /// What the liar says in place of `bytes` of a message.
    pub(super) fn content(&mut self, place: Place, bytes: &mut [u8], now: Instant) {
        self.lie(Site::Content, place, now, |dice| liar::forge(bytes, dice));
    }

    /// What the liar says about whether buffers are to be announced.
    pub(super) fn suppression(&mut self, place: Place, now: Instant) -> Option<u16> {
        let mut word = None;
        self.lie(Site::Suppression, place, now, |dice| {
            word = Some(dice.half_word());
        });
        word
    }

    /// What the liar says in place of configuration space.
    pub(super) fn config(&mut self, place: Place, bytes: &mut [u8], now: Instant) {
        self.lie(Site::Config, place, now, |dice| {
            liar::forge(bytes, dice);
        });
    }

    fn lie(&mut self, site: Site, place: Place, now: Instant, mut lie: impl FnMut(&mut Dice)) {
        for fault in &mut self.faults {
            if fault.is(Kind::Liar)
                && fault.covers(place)
                && let Some(mut dice) = fault.strike(site, place, now)
            {
                lie(&mut dice);
            }
        }
    }
}

/// A used length that no buffer of that lane can have.
fn wrong_length(lane: Lane, truth: u32, dice: &mut Dice) -> u32 {
    let too_long = TOO_LONG | dice.word();
    match lane {
        Lane::Rx if dice.hit(0.5) => u32::try_from(dice.below(RX_HEADER + 1)).unwrap_or(0),
        Lane::Control | Lane::Event if dice.hit(0.5) => {
            u32::try_from(dice.below(truth.into())).unwrap_or(0)
        }
        _ => too_long,
    }
}

/// The id of another buffer, or one that no buffer has.
fn wrong_id(truth: u32, ids: u32, dice: &mut Dice) -> u32 {
    if ids > 1 && dice.hit(0.5) {
        let others = u64::from(ids - 1);
        let step = 1 + u32::try_from(dice.below(others)).unwrap_or(0);
        (truth + step) % ids
    } else {
        dice.word().max(ids)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const RX: Place = Place::rx(0);
    const TX: Place = Place::tx(0);

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// A plan for two FIFOs whose driver started at the time returned.
    fn plan(specs: &[&str]) -> (Plan, Instant) {
        let start = Instant::now();
        let mut plan = Plan::new(2);
        for spec in specs {
            plan.add(&spec.parse().unwrap(), start);
        }
        plan.driver_started(start);
        (plan, start)
    }

    fn dropped(plan: &mut Plan, place: Place, at: Instant, times: u32) -> Vec<bool> {
        (0..times)
            .map(|_| !plan.interrupts_now(place, at))
            .collect()
    }

    /// Which opportunities are struck follows from the seed, the place and their number: not from
    /// what happens elsewhere in between, nor from when.
    #[test]
    fn the_same_seed_strikes_the_same_opportunities() {
        let spec = ["drop-interrupt,p=0.3,seed=7"];
        let (mut one, start) = plan(&spec);
        let (mut other, _) = plan(&["slow,p=0.5", spec[0]]);
        let alone = dropped(&mut one, RX, start, 1000);
        let mut late = start;
        let mixed: Vec<_> = (0..1000)
            .map(|_| {
                late += ms(3);
                other.interrupts_now(TX, late);
                other.host(RX, late);
                !other.interrupts_now(RX, late)
            })
            .collect();
        assert_eq!(alone, mixed);
        let struck = alone.iter().filter(|struck| **struck).count();
        assert!((250..350).contains(&struck), "{struck} of 1000 with p=0.3");
    }

    #[test]
    fn seeds_kinds_and_fifos_differ() {
        let (mut plan7, start) = plan(&["drop-interrupt,p=0.5,seed=7"]);
        let (mut plan8, _) = plan(&["drop-interrupt,p=0.5,seed=8"]);
        let (mut delay7, _) = plan(&["delay-interrupt,p=0.5,seed=7"]);
        let of7 = dropped(&mut plan7, RX, start, 64);
        assert_ne!(of7, dropped(&mut plan8, RX, start, 64));
        assert_ne!(of7, dropped(&mut delay7, RX, start, 64));
        assert_ne!(of7, dropped(&mut plan7, Place::rx(1), start, 64));
        assert_ne!(of7, dropped(&mut plan7, TX, start, 64));
    }

    #[test]
    fn count_is_how_often_it_strikes_in_all() {
        let (mut plan, start) = plan(&["drop-interrupt,count=3"]);
        assert_eq!(dropped(&mut plan, RX, start, 2), [true; 2]);
        assert_eq!(dropped(&mut plan, TX, start, 3), [true, false, false]);
        let report = &plan.list(start)[0];
        assert_eq!((report.opportunities, report.strikes), (5, 3));
        assert!(report.over);
    }

    /// The opportunities that are let pass are counted for each place on its own.
    #[test]
    fn skip_lets_the_first_opportunities_pass() {
        let (mut plan, start) = plan(&["drop-interrupt,skip=2,count=3"]);
        assert_eq!(dropped(&mut plan, RX, start, 4), [false, false, true, true]);
        assert_eq!(
            dropped(&mut plan, TX, start, 4),
            [false, false, true, false]
        );
    }

    /// `after` counts from the driver's start, `for` from there; what is missed is an opportunity
    /// even so.
    #[test]
    fn times_open_a_window() {
        let (mut plan, start) = plan(&["drop-interrupt,after=200ms,for=1s"]);
        let mut at = |late| dropped(&mut plan, RX, start + ms(late), 1)[0];
        assert!(!at(0));
        assert!(!at(199));
        assert!(at(200));
        assert!(at(1199));
        assert!(!at(1200));
        assert_eq!(plan.list(start)[0].opportunities, 5);
        assert!(plan.list(start + ms(1200))[0].over);
    }

    /// A fault that is added while a driver is there counts from then.
    #[test]
    fn added_later_it_starts_later() {
        let (mut plan, start) = plan(&[]);
        plan.add(&"drop-interrupt,for=1s".parse().unwrap(), start + ms(5000));
        assert_eq!(dropped(&mut plan, RX, start + ms(5500), 1), [true]);
        assert_eq!(dropped(&mut plan, RX, start + ms(6000), 1), [false]);
    }

    #[rstest]
    #[case("drop-interrupt,fifo=1", [false, false, false, true])]
    #[case("drop-interrupt,on=tx", [false, false, true, false])]
    #[case("drop-interrupt,on=control", [true, false, false, false])]
    #[case("drop-interrupt,on=rx", [false, true, false, true])]
    fn it_strikes_where_it_shall(#[case] spec: &str, #[case] expected: [bool; 4]) {
        let (mut plan, start) = plan(&[spec]);
        let places = [Place::CONTROL, RX, TX, Place::rx(1)];
        let struck = places.map(|place| !plan.interrupts_now(place, start));
        assert_eq!(struck, expected);
    }

    /// Late interrupts coalesce: however many are put off, one is on its way for each place.
    #[test]
    fn a_delayed_interrupt_comes_later_and_once() {
        let (mut plan, start) = plan(&["delay-interrupt,delay=50ms"]);
        assert_eq!(dropped(&mut plan, RX, start, 100), [true; 100]);
        assert_eq!(plan.due(start + ms(49)), []);
        assert_eq!(plan.next_due(), Some(start + ms(50)));
        assert_eq!(plan.due(start + ms(50)), [Due::Interrupt(RX)]);
        assert_eq!(plan.next_due(), None);
    }

    #[test]
    fn a_duplicate_comes_now_and_later() {
        let (mut plan, start) = plan(&["duplicate-interrupt"]);
        assert!(plan.interrupts_now(RX, start));
        assert_eq!(plan.due(start + ms(1)), [Due::Interrupt(RX)]);
    }

    #[test]
    fn spurious_interrupts_come_by_themselves_until_they_are_over() {
        let (mut plan, start) = plan(&["spurious-interrupt,fifo=1,on=rx,every=20ms,count=2"]);
        let due = [Due::Interrupt(Place::rx(1))];
        assert_eq!(plan.due(start + ms(19)), []);
        assert_eq!(plan.due(start + ms(20)), due);
        assert_eq!(plan.due(start + ms(40)), due);
        assert_eq!(plan.next_due(), None);
    }

    /// A stall without a delay lasts as long as the fault; then the place is looked at.
    #[test]
    fn a_stall_ends_with_its_window() {
        let (mut plan, start) = plan(&["stall,fifo=0,on=tx,for=300ms"]);
        assert!(plan.may_serve(RX, start));
        assert!(!plan.may_serve(TX, start));
        assert!(!plan.may_serve(TX, start + ms(299)));
        assert_eq!(plan.due(start + ms(300)), [Due::Serve(TX)]);
        assert!(plan.may_serve(TX, start + ms(300)));
    }

    /// With a delay, what was held up gets through before it is held up again: slow, not dead.
    #[test]
    fn a_stall_with_a_delay_lets_through_in_between() {
        let (mut plan, start) = plan(&["stall,fifo=0,on=rx,delay=30ms"]);
        for round in 0..3 {
            let now = start + ms(30 * round);
            assert!(!plan.may_serve(RX, now));
            assert_eq!(plan.due(now + ms(30)), [Due::Serve(RX)]);
            assert!(plan.may_serve(RX, now + ms(30)));
        }
        assert_eq!(plan.list(start)[0].strikes, 3);
    }

    /// A stall for good ends when the queue is stopped, or when the fault is taken away.
    #[test]
    fn a_stall_for_good_ends_with_the_queue() {
        let (mut plan, start) = plan(&["stall,count=1"]);
        assert!(!plan.may_serve(RX, start));
        assert!(!plan.may_serve(RX, start + ms(1_000_000)));
        plan.stopped(RX);
        assert!(plan.may_serve(RX, start));

        let id = plan.add(&"stall".parse().unwrap(), start);
        assert!(!plan.may_serve(TX, start));
        assert!(plan.remove(id, start));
        assert_eq!(plan.due(start), [Due::Serve(TX)]);
        assert!(plan.may_serve(TX, start));
        assert!(!plan.remove(id, start));
    }

    /// A FIFO that nobody uses hangs up in time even so; a reset of the device changes nothing.
    #[test]
    fn a_hang_up_comes_and_goes_by_itself() {
        let (mut plan, start) = plan(&["hang-up,fifo=1,after=1s,for=1s"]);
        let place = Place::rx(1);
        assert_eq!(plan.due(start + ms(1000)), [Due::Serve(place)]);
        assert!(plan.host(place, start + ms(1000)).hung_up);
        plan.stopped(place);
        assert!(plan.host(place, start + ms(1999)).hung_up);
        assert_eq!(plan.due(start + ms(2000)), [Due::Serve(place)]);
        assert!(!plan.host(place, start + ms(2000)).hung_up);
        assert!(!plan.host(RX, start + ms(1500)).hung_up);
    }

    /// Somebody has to be asked until the FIFO has been connected again.
    #[test]
    fn clearing_ends_a_hang_up() {
        let (mut plan, start) = plan(&["hang-up,fifo=0"]);
        plan.due(start);
        assert!(plan.host(RX, start).hung_up);
        assert_eq!(plan.clear(start), 1);
        assert!(plan.active());
        assert_eq!(plan.due(start), [Due::Serve(RX)]);
        assert!(!plan.host(RX, start).hung_up);
        assert!(!plan.active());
    }

    #[test]
    fn wrong_lengths_and_ids_cannot_be_right() {
        let (mut plan, start) =
            plan(&["wrong-length,on=rx", "wrong-id,on=tx", "wrong-index,on=rx"]);
        for _ in 0..200 {
            let used = plan.used(RX, Used::new(5, 100), 128, start);
            assert!(used.len <= 24 || used.len >= TOO_LONG, "{used:?}");
            assert!(used.ahead > 0);
            let used = plan.used(TX, Used::new(5, 0), 128, start);
            assert_ne!(used.id, 5);
        }
        let truth = Used::new(0, 56);
        assert_eq!(plan.used(Place::CONTROL, truth, 128, start), truth);
    }

    #[test]
    fn short_messages_are_short_but_not_empty() {
        let (mut plan, start) = plan(&["short-transfer"]);
        for unsent in 2..100 {
            let most = plan.message(RX, unsent, start).most;
            assert!((1..unsent).contains(&most), "{most} of {unsent}");
        }
        assert_eq!(plan.message(RX, 1, start).most, 1);
    }

    /// What a liar says follows from its seed alone; each seed lies, and mostly tells the truth.
    #[rstest]
    fn a_liar_lies_the_same_way_again(#[values(1, 2, 3, 4, 5)] seed: u64) {
        let lies = || {
            let (mut plan, start) = plan(&[&format!("liar,seed={seed}")]);
            let mut said = Vec::new();
            for _ in 0..2000 {
                let mut bytes = [7; 24];
                plan.content(RX, &mut bytes, start);
                said.push((
                    bytes,
                    plan.used(RX, Used::new(1, 100), 128, start),
                    plan.message(RX, 100, start),
                    plan.suppression(RX, start),
                ));
            }
            (said, plan.list(start)[0].clone())
        };
        let (said, report) = lies();
        assert_eq!(lies().0, said);
        assert!(report.strikes > 0 && report.strikes * 3 < report.opportunities);
    }
}
