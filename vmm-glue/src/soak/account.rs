// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a soak has come to: figures for people, and whether anything was lost.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use fifo_control::Status;

use super::faults::Faults;
use crate::ui;

/// How much more memory of its own the daemon may have at the end, in KiB.
const SLACK_KIB: u64 = 1024;

/// What a process has in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory of its own, in KiB; the guest's, which it shares, is none of it.
    pub memory: u64,
    /// Open descriptors.
    pub descriptors: usize,
}

impl Usage {
    /// Of the process `pid`.
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let memory = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .with_context(|| format!("{path} has no RssAnon"))?;
        let path = format!("/proc/{pid}/fd");
        let descriptors = fs::read_dir(&path)
            .with_context(|| format!("cannot read {path}"))?
            .count();
        Ok(Self {
            memory,
            descriptors,
        })
    }
}

/// A line of the guest's program: a word, then `name=value` pairs.
#[derive(Debug, Clone, Default)]
pub struct Said {
    word: String,
    numbers: HashMap<String, u64>,
}

impl Said {
    /// Reads a line.
    pub fn parse(line: &str) -> Self {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let numbers = rest
            .split(' ')
            .filter_map(|pair| pair.split_once('='))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
        Self {
            word: word.to_owned(),
            numbers: numbers.collect(),
        }
    }

    /// Its first word.
    pub fn word(&self) -> &str {
        &self.word
    }

    /// A number of it; 0 if it has none of that name.
    pub fn number(&self, name: &str) -> u64 {
        self.numbers.get(name).copied().unwrap_or_default()
    }
}

/// Everything that counts.
#[derive(Debug)]
pub struct Account {
    /// What the guest said last.
    pub guest: Said,
    /// What the daemon counts.
    pub status: Status,
    /// Sent to and received from the guest by the host.
    pub moved: (u64, u64),
    /// The daemon after the first round, and now.
    pub daemon: (Usage, Usage),
    /// How many faults there were, and how often they struck.
    pub faults: (u64, u64),
    /// Reasons to call it a failure.
    pub troubles: Vec<String>,
}

/// Bytes that came into a FIFO from the driver, and from its host side.
fn entered(status: &Status, fifo: usize) -> (u64, u64) {
    status
        .fifos
        .get(fifo)
        .map_or((0, 0), |fifo| (fifo.tx.entered, fifo.rx.entered))
}

/// How far it is, in a line.
pub fn progress(elapsed: Duration, guest: &Said, status: &Status, faults: &Faults) -> String {
    let (loopback, _) = entered(status, 0);
    let (out, into) = entered(status, 1);
    format!(
        "{:>4} s: {} looped, {} in, {} out, {} interrupts, {} faults, {} rebinds, {} reloads",
        elapsed.as_secs(),
        ui::bytes(loopback),
        ui::bytes(into),
        ui::bytes(out),
        status.interrupts(),
        faults.added,
        guest.number("rebinds"),
        guest.number("reloads"),
    )
}

impl Account {
    /// Bytes that were sent and did not arrive, or the reverse.
    pub fn lost(&self) -> u64 {
        let (sent, received) = self.moved;
        let to_guest = sent.abs_diff(self.guest.number("read"));
        let to_host = self.guest.number("written").abs_diff(received);
        to_guest + to_host
    }

    /// What is wrong, all in all.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = self.troubles.clone();
        if self.lost() > 0 {
            failures.push(format!(
                "the host sent {} bytes and the guest read {}; the guest wrote {} and the host received {}",
                self.moved.0,
                self.guest.number("read"),
                self.guest.number("written"),
                self.moved.1,
            ));
        }
        let (before, after) = self.daemon;
        if after.memory > before.memory + SLACK_KIB {
            failures
                .push("the daemon has more memory in use than after the first round".to_owned());
        }
        if after.descriptors > before.descriptors {
            failures.push("the daemon has left descriptors open".to_owned());
        }
        let refused = self.status.refused();
        if refused > 0 {
            failures.push(format!(
                "the device has refused {refused} messages of the driver"
            ));
        }
        failures
    }

    /// The figures.
    pub fn text(&self) -> String {
        let (loopback, _) = entered(&self.status, 0);
        let number = |name: &str| self.guest.number(name);
        let (before, after) = self.daemon;
        let (added, strikes) = self.faults;
        let leaks = match self.guest.numbers.get("leaks") {
            Some(leaks) => format!(", kmemleak {leaks}"),
            None => String::new(),
        };
        format!(
            "\
bytes moved      {} through the loopback, {} host to guest, {} guest to host
interrupts       {}
faults survived  {strikes} by {added} faults
cancelled        {} requests; {} clears
rebinds          {}
module reloads   {}
daemon           {} to {} KiB of memory, {} to {} descriptors
guest            {} to {} KiB of slab, {} to {} KiB of other pages, {} to {} descriptors{leaks}
lost {}",
            ui::bytes(loopback),
            ui::bytes(number("read")),
            ui::bytes(self.moved.1),
            self.status.interrupts(),
            number("cancelled"),
            number("clears"),
            number("rebinds"),
            number("reloads"),
            before.memory,
            after.memory,
            before.descriptors,
            after.descriptors,
            number("slab_before"),
            number("slab_after"),
            number("pages_before"),
            number("pages_after"),
            number("fds_before"),
            number("fds_after"),
            self.lost(),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fifo_control::DeviceStatus;
    use fifo_control::DirectionStatus;
    use fifo_control::FifoStatus;
    use fifo_control::HostSide;

    use super::*;

    fn status() -> Status {
        let direction = DirectionStatus {
            level: 0,
            entered: 5,
            left: 5,
            messages: 1,
            interrupts: 2,
        };
        let fifo = |fifo| FifoStatus {
            fifo,
            kind: "loopback".to_owned(),
            capacity: 4096,
            host: HostSide::Lasting,
            peers: 0,
            hangup: false,
            hangup_by_control: false,
            error: false,
            rx: direction,
            tx: direction,
            refused: BTreeMap::from([("failed".to_owned(), 0)]),
        };
        Status {
            device: DeviceStatus {
                version: String::new(),
                uptime_ms: 1,
                connected: true,
                connections: 1,
                control_interrupts: 1,
                event_interrupts: 1,
                refused: BTreeMap::new(),
                sandbox: String::new(),
            },
            fifos: vec![fifo(0), fifo(1)],
            faults: Vec::new(),
        }
    }

    fn account(guest: &str) -> Account {
        Account {
            guest: Said::parse(guest),
            status: status(),
            moved: (10, 20),
            daemon: Default::default(),
            faults: (1, 2),
            troubles: Vec::new(),
        }
    }

    #[test]
    fn nothing_lost_is_no_failure() {
        let account = account("done read=10 written=20");
        assert_eq!(account.status.interrupts(), 10);
        assert_eq!((account.lost(), account.failures()), (0, Vec::new()));
        assert!(account.text().ends_with("\nlost 0"));
    }

    #[test]
    fn a_byte_is_missed_in_either_direction() {
        assert_eq!(account("done read=9 written=20").failures().len(), 1);
        assert_eq!(account("done read=10 written=21").lost(), 1);
    }

    #[test]
    fn what_the_daemon_keeps_is_a_failure() {
        let mut account = account("done read=10 written=20");
        account.daemon.1.descriptors = 1;
        assert_eq!(account.failures().len(), 1);
        account.daemon.1.memory = 2 * SLACK_KIB;
        assert_eq!(account.failures().len(), 2);
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.memory > 0 && usage.descriptors > 2, "{usage:?}");
    }
}
