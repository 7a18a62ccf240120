// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which fault strikes when. Plain state, told the time by its callers; [`super::Faults`] locks it.
//!
//! A fault counts its opportunities at each site and place. Whether it strikes depends on the
//! number of the opportunity, then on the fault's times and count: those decide when chance
//! applies, never what it says.

mod armed;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

use self::armed::Alarm;
use self::armed::Alarms;
use self::armed::Armed;
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

    /// How often each fault has struck: its number, its kind, how often; none that never did.
    pub(super) fn strikes(&self) -> BTreeSet<(FaultId, &'static str, u64)> {
        let faults = self.faults.iter().filter(|fault| fault.strikes > 0);
        faults
            .map(|fault| (fault.id, fault.spec.kind.name(), fault.strikes))
            .collect()
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

    /// What is said in place of configuration space.
    pub(super) fn config(&mut self, place: Place, bytes: &mut [u8], now: Instant) {
        for fault in &mut self.faults {
            if !fault.is(Kind::WrongConfig) || !fault.covers(place) {
                continue;
            }
            let Some(mut dice) = fault.strike(Site::Config, place, now) else {
                continue;
            };
            let at = usize::try_from(fault.spec.word.unwrap_or(0)).unwrap_or(usize::MAX);
            if let Some(word) = bytes.chunks_exact_mut(4).nth(at) {
                match fault.spec.value {
                    Some(value) => word.copy_from_slice(&value.to_le_bytes()),
                    None => liar::lie(word, &mut dice),
                }
            }
        }
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
mod tests;
