// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Who has things go wrong: faults that a driver can get over, added and taken away at random.

use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use fastrand::Rng;
use fifo_control::Client;

/// Most faults at a time.
const MOST: usize = 4;
/// Longest time between two changes.
const LONGEST: Duration = Duration::from_secs(3);

/// The faults of a soak.
#[derive(Debug)]
pub struct Faults {
    rng: Rng,
    active: Vec<(u32, String)>,
    /// When to change something; never again at the end.
    next: Option<Instant>,
    /// How many there have been.
    pub added: u64,
    /// How often those that are gone struck.
    pub strikes: u64,
}

impl Faults {
    /// None yet.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            active: Vec::new(),
            next: Some(Instant::now()),
            added: 0,
            strikes: 0,
        }
    }

    /// Changes something when it is time to.
    pub fn act(&mut self, control: &mut Client) -> Result<()> {
        let Some(due) = self.next.filter(|next| *next <= Instant::now()) else {
            return Ok(());
        };
        self.next = Some(due + LONGEST.mul_f64(self.rng.f64()));
        if self.active.len() < MOST && (self.active.is_empty() || self.rng.bool()) {
            let spec = spec(&mut self.rng);
            let fault = control.add_fault(&spec)?;
            self.active.push((fault, spec));
            self.added += 1;
            return Ok(());
        }
        let at = self.rng.usize(..self.active.len());
        let (fault, _) = self.active.swap_remove(at);
        self.remove(control, fault)
    }

    /// Takes all of them away; there will be no more.
    pub fn end(&mut self, control: &mut Client) -> Result<()> {
        self.next = None;
        for (fault, _) in std::mem::take(&mut self.active) {
            self.remove(control, fault)?;
        }
        Ok(())
    }

    /// Those that may strike now, in words.
    pub fn now(&self) -> String {
        let specs: Vec<&str> = self.active.iter().map(|(_, spec)| spec.as_str()).collect();
        specs.join(" ")
    }

    fn remove(&mut self, control: &mut Client, fault: u32) -> Result<()> {
        let faults = control.faults()?;
        let known = faults.iter().find(|known| known.fault == fault);
        self.strikes += known.map_or(0, |known| known.strikes);
        control.remove_fault(fault)?;
        Ok(())
    }
}

/// A fault that costs time and nothing else.
fn spec(rng: &mut Rng) -> String {
    let ms = |rng: &mut Rng, most: u32| format!("{}ms", rng.u32(1..=most));
    let what = match rng.u8(0..8) {
        // Each may cost a second.
        0 => format!("drop-interrupt,p=0.05,count={}", rng.u32(1..=5)),
        1 => format!("delay-interrupt,p=0.2,delay={}", ms(rng, 20)),
        2 => format!("duplicate-interrupt,p=0.3,delay={}", ms(rng, 5)),
        3 => format!("spurious-interrupt,every={}", ms(rng, 20)),
        4 => format!("short-transfer,p=0.3,bytes={}", rng.u32(1..=100)),
        5 => format!("stall,p=0.01,delay={}", ms(rng, 50)),
        6 => format!("slow,p=0.02,delay={}", ms(rng, 50)),
        // Of the other direction, order is what makes it a stream.
        _ => "reorder-used,p=0.1,on=tx".to_owned(),
    };
    let fifo = match rng.u8(0..3) {
        // The records in FIFO 0 are read whole only if they come whole, and FIFO_CLEAR fails while its tx queue is stalled: the device
        // has not got all that is to be discarded.
        _ if what.starts_with("short-transfer") || what.starts_with("stall") => ",fifo=1",
        0 => ",fifo=0",
        1 => ",fifo=1",
        _ => "",
    };
    format!("{what}{fifo},for={},seed={}", ms(rng, 5000), rng.u32(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        let list = |seed| {
            let mut rng = Rng::with_seed(seed);
            (0..100).map(|_| spec(&mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(list(7), list(7));
        assert_ne!(list(7), list(8));
    }

    /// Every kind has its turn.
    #[test]
    fn all_kinds_are_used() {
        let mut rng = Rng::with_seed(1);
        let kinds: std::collections::BTreeSet<String> = (0..1000)
            .map(|_| spec(&mut rng).split(',').next().unwrap().to_owned())
            .collect();
        assert_eq!(kinds.len(), 8);
    }
}
