// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a watcher is told: the difference between two moments.
//!
//! The device is looked at now and then rather than at each change, so that a watcher costs the
//! data path nothing and many changes become one event. This file must not know clients or timers.

use std::collections::BTreeMap;

use super::protocol::Event;
use super::protocol::FaultStatus;
use super::protocol::FifoStatus;
use super::protocol::Status;

/// What a watcher knows.
#[derive(Debug)]
pub struct Watcher {
    /// Only these FIFOs; all of them if there is none.
    fifos: Vec<u16>,
    known: Status,
    lost: u64,
}

impl Watcher {
    /// A watcher that knows the device as it is `now`.
    pub fn new(fifos: Vec<u16>, now: Status) -> Self {
        Self {
            fifos,
            known: now,
            lost: 0,
        }
    }

    /// What happened since the last time. If it `can_take` nothing now, that is lost to it.
    pub fn look(&mut self, now: &Status, can_take: bool) -> Vec<Event> {
        let mut events = self.events(now);
        self.known = now.clone();
        if !can_take {
            self.lost += u64::try_from(events.len()).unwrap_or(u64::MAX);
            return Vec::new();
        }
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            events.insert(0, Event::Lost { lost });
        }
        events
    }

    fn events(&self, now: &Status) -> Vec<Event> {
        let mut events = Vec::new();
        let (old, new) = (&self.known.device, &now.device);
        if (old.connected, old.connections) != (new.connected, new.connections) {
            events.push(Event::Vmm {
                connected: new.connected,
                connections: new.connections,
            });
        }
        events.extend(refusals(None, &old.refused, &new.refused));
        events.extend(faults(&self.known.faults, &now.faults));
        let fifos = self.known.fifos.iter().zip(&now.fifos);
        for (old, new) in
            fifos.filter(|(_, new)| self.fifos.is_empty() || self.fifos.contains(&new.fifo))
        {
            events.extend(fifo(old, new));
        }
        events
    }
}

fn fifo(old: &FifoStatus, new: &FifoStatus) -> Vec<Event> {
    let fifo = new.fifo;
    let mut events = Vec::new();
    if (old.host, old.peers) != (new.host, new.peers) {
        events.push(Event::Host {
            fifo,
            host: new.host,
            peers: new.peers,
        });
    }
    if (old.hangup, old.error) != (new.hangup, new.error) {
        events.push(Event::State {
            fifo,
            hangup: new.hangup,
            error: new.error,
        });
    }
    let moved = |status: &FifoStatus| {
        let (rx, tx) = (status.rx, status.tx);
        (rx.entered, rx.left, tx.entered, tx.left)
    };
    if moved(old) != moved(new) {
        events.push(Event::Level {
            fifo,
            rx: new.rx.level,
            tx: new.tx.level,
            rx_entered: new.rx.entered.saturating_sub(old.rx.entered),
            tx_entered: new.tx.entered.saturating_sub(old.tx.entered),
        });
    }
    events.extend(refusals(Some(fifo), &old.refused, &new.refused));
    events
}

fn faults(old: &[FaultStatus], new: &[FaultStatus]) -> Vec<Event> {
    let event = |status: &FaultStatus, over| Event::Fault {
        fault: status.fault,
        spec: status.spec.clone(),
        strikes: status.strikes,
        over,
    };
    let find = |list: &[FaultStatus], fault| {
        let mut list = list.iter();
        list.find(|status| status.fault == fault).cloned()
    };
    let removed = old
        .iter()
        .filter(|status| find(new, status.fault).is_none())
        .map(|status| event(status, true));
    let changed = new
        .iter()
        .filter(|status| {
            find(old, status.fault)
                .is_none_or(|old| (old.strikes, old.over) != (status.strikes, status.over))
        })
        .map(|status| event(status, status.over));
    removed.chain(changed).collect()
}

fn refusals(
    fifo: Option<u16>,
    old: &BTreeMap<String, u64>,
    new: &BTreeMap<String, u64>,
) -> Vec<Event> {
    new.iter()
        .filter_map(|(reason, count)| {
            let before = old.get(reason).copied().unwrap_or_default();
            let count = count.saturating_sub(before);
            (count > 0).then(|| Event::Refused {
                fifo,
                reason: reason.clone(),
                count,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Service;
    use super::*;
    use crate::device::Device;
    use crate::fifo::ResetPolicy;
    use crate::refusal::Refusal;
    use crate::spec::PartialSpec;

    fn device() -> (Arc<Device>, Service) {
        let specs = ["null", "null"].map(|spec| {
            let spec: PartialSpec = spec.parse().unwrap();
            spec.with_default(100)
        });
        let device = Device::new(&specs, ResetPolicy::Keep).unwrap();
        let device = Arc::new(device);
        (Arc::clone(&device), Service::new(device))
    }

    #[test]
    fn a_watcher_is_told_what_changed_and_nothing_else() {
        let (device, service) = device();
        let mut all = Watcher::new(Vec::new(), service.status());
        let mut some = Watcher::new(vec![1], service.status());
        assert_eq!(all.look(&service.status(), true), []);
        device.fifo(0).unwrap().push(b"abc").unwrap();
        device.refuse("event", Refusal::WrongLength);
        let level = Event::Level {
            fifo: 0,
            rx: 3,
            tx: 0,
            rx_entered: 3,
            tx_entered: 0,
        };
        let refused = Event::Refused {
            fifo: None,
            reason: "wrong-length".to_owned(),
            count: 1,
        };
        let now = service.status();
        assert_eq!(all.look(&now, true), [refused.clone(), level]);
        assert_eq!(some.look(&now, true), [refused]);
        assert_eq!(all.look(&service.status(), true), []);
        device.fifo(1).unwrap().hang_up(true);
        let state = Event::State {
            fifo: 1,
            hangup: true,
            error: false,
        };
        let now = service.status();
        let seen = [all.look(&now, true), some.look(&now, true)];
        assert_eq!(seen, [[state.clone()], [state]]);
    }

    #[test]
    #[cfg_attr(not(feature = "faults"), ignore = "needs fault injection")]
    fn a_watcher_is_told_of_faults() {
        let (device, service) = device();
        let mut watcher = Watcher::new(Vec::new(), service.status());
        let id = device
            .faults()
            .add(&"slow,for=1s".parse().unwrap())
            .unwrap();
        let fault = |over| Event::Fault {
            fault: id.0,
            spec: "slow,for=1s".to_owned(),
            strikes: 0,
            over,
        };
        assert_eq!(watcher.look(&service.status(), true), [fault(false)]);
        assert_eq!(watcher.look(&service.status(), true), []);
        device.faults().remove(id);
        assert_eq!(watcher.look(&service.status(), true), [fault(true)]);
    }

    /// What a watcher cannot take is counted, not kept.
    #[test]
    fn a_slow_watcher_knows_that_it_lost_something() {
        let (device, service) = device();
        let mut watcher = Watcher::new(Vec::new(), service.status());
        for on in [true, false, true] {
            device.fifo(0).unwrap().hang_up(on);
            assert_eq!(watcher.look(&service.status(), false), []);
        }
        let events = watcher.look(&service.status(), true);
        assert_eq!(events, [Event::Lost { lost: 3 }]);
        assert_eq!(watcher.look(&service.status(), true), []);
    }
}
