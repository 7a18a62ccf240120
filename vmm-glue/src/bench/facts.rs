// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Facts about the machine of a run, as sentences and as data.
//!
//! A report is shown to others: no fact may name a path of this machine, a user, a host or a network address.

use std::fs;
use std::path::Path;

use globalfifo_bench_protocol::Machine;
use globalfifo_bench_protocol::Processor;
use serde::Deserialize;
use serde::Serialize;

use super::rounds::Ran;

/// What a run ran on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// tcg or kvm.
    pub accelerator: String,
    /// QEMU's version.
    pub qemu: String,
    /// The guest.
    pub guest: Machine,
    /// The host.
    pub host: Host,
    /// The version of vhost-device-vsock, if it took part.
    pub vsock: Option<String>,
    /// Rounds of everything.
    pub rounds: usize,
    /// Rounds of the goal that took the most.
    pub most_rounds: usize,
    /// The bound on time ended the rounds.
    pub out_of_time: bool,
    /// Bytes that the compared FIFOs hold.
    pub capacity: String,
}

/// The host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The kernel's release.
    pub kernel: String,
    /// Processor, clock source and mitigations.
    pub processor: Processor,
    /// How many processors the lab may use.
    pub cpus: usize,
    /// Runnable tasks on average over the minute before the run.
    pub load_before: String,
    /// The same over its last minute; the run itself is a load.
    pub load_after: String,
}

impl Host {
    /// What can be seen of it.
    pub fn look() -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            kernel: release.trim().to_owned(),
            processor: Processor::read(Path::new("/")),
            cpus: std::thread::available_parallelism().map_or(0, Into::into),
            load_before: load(),
            load_after: String::new(),
        }
    }

    /// The run is over.
    pub fn note_load(&mut self) {
        self.load_after = load();
    }
}

impl Facts {
    /// Takes down how many rounds there were.
    pub fn note_rounds(&mut self, ran: Ran) {
        self.rounds = ran.all;
        self.most_rounds = ran.most;
        self.out_of_time = ran.out_of_time;
    }

    /// In sentences, one a line.
    pub fn lines(&self) -> Vec<String> {
        let (guest, host) = (&self.guest, &self.host);
        vec![
            format!(
                "{}, {}, Linux {}, QEMU {}; driver: {} edition; FIFOs of {} bytes",
                self.accelerator.to_uppercase(),
                plural(guest.cpus, "guest CPU"),
                guest.kernel,
                self.qemu,
                guest.edition,
                self.capacity
            ),
            self.how_often(),
            format!(
                "host: {} × {}, Linux {}, clock source {}; load {} at the start, {} at the end",
                host.cpus,
                host.processor.model,
                host.kernel,
                host.processor.clock_source,
                host.load_before,
                host.load_after
            ),
            format!(
                "guest: {}, clock source {}",
                guest.processor.model, guest.processor.clock_source
            ),
            format!(
                "mitigations on the host: {}",
                host.processor.mitigations_in_short()
            ),
            format!(
                "mitigations in the guest: {}",
                guest.processor.mitigations_in_short()
            ),
            self.interrupts(),
            match &self.vsock {
                Some(version) => format!("vsock: vhost-device-vsock {version}"),
                None => "vsock: not measured".to_owned(),
            },
        ]
    }

    fn how_often(&self) -> String {
        let mut text = format!("{} of everything", plural(self.rounds, "round"));
        if self.most_rounds > self.rounds {
            text += &format!(", up to {} of what was undecided", self.most_rounds);
        }
        if self.out_of_time {
            text += "; the bound on time ended them";
        }
        text
    }

    fn interrupts(&self) -> String {
        let kind = if self.guest.interrupt.contains("MSI") {
            "has message-signalled interrupts"
        } else {
            "QEMU's generic vhost-user device has one plain INTx line"
        };
        let serial = &self.guest.serial_interrupts;
        let vectors = serial.iter().any(|line| line.contains("MSI"));
        format!(
            "interrupts: {kind} ({}); virtio-serial has {}",
            self.guest.interrupt,
            match serial.len() {
                0 => "none".to_owned(),
                count if vectors => plural(count, "MSI-X vector"),
                count => count.to_string(),
            }
        )
    }

    /// What differs from another run and moves figures: `guest CPUs: 1, now 2`.
    pub fn differences_to(&self, earlier: &Self) -> Vec<String> {
        let facts = |facts: &Self| {
            [
                ("accelerator", facts.accelerator.clone()),
                ("QEMU", facts.qemu.clone()),
                ("guest CPUs", facts.guest.cpus.to_string()),
                ("guest kernel", facts.guest.kernel.clone()),
                (
                    "guest clock source",
                    facts.guest.processor.clock_source.clone(),
                ),
                ("edition of the driver", facts.guest.edition.clone()),
                ("bytes of a FIFO", facts.capacity.clone()),
                ("host processor", facts.host.processor.model.clone()),
                ("host processors", facts.host.cpus.to_string()),
                ("host kernel", facts.host.kernel.clone()),
                (
                    "host clock source",
                    facts.host.processor.clock_source.clone(),
                ),
                (
                    "host mitigations",
                    facts.host.processor.mitigations_in_short(),
                ),
                (
                    "guest mitigations",
                    facts.guest.processor.mitigations_in_short(),
                ),
            ]
        };
        let pairs = facts(earlier).into_iter().zip(facts(self));
        pairs
            .filter(|((_, before), (_, now))| before != now)
            .map(|((name, before), (_, now))| format!("{name}: {before}, now {now}"))
            .collect()
    }
}

fn plural(count: usize, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {what}{s}")
}

fn load() -> String {
    crate::load::average().map_or_else(|| "unknown".to_owned(), |load| format!("{load:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_interrupt_line_is_said() {
        let mut facts = Facts::default();
        facts.guest.interrupt = "IO-APIC 20-fasteoi virtio3".to_owned();
        facts.guest.serial_interrupts =
            vec!["PCI-MSIX-0000:00:05.0 0-edge virtio4-config".to_owned()];
        let said = facts.lines().join("\n");
        assert!(said.contains("one plain INTx line (IO-APIC 20-fasteoi virtio3)"));
        assert!(said.contains("1 MSI-X vector"));
        facts.guest.interrupt = "PCI-MSIX-0000:00:04.0 1-edge virtio3-x".to_owned();
        assert!(!facts.lines().join("\n").contains("INTx"));
    }

    #[test]
    fn more_rounds_of_some_and_a_bound_on_time_are_said() {
        let mut facts = Facts::default();
        facts.note_rounds(Ran {
            all: 5,
            most: 5,
            out_of_time: false,
        });
        assert_eq!(facts.how_often(), "5 rounds of everything");
        facts.note_rounds(Ran {
            all: 5,
            most: 12,
            out_of_time: true,
        });
        assert_eq!(
            facts.how_often(),
            "5 rounds of everything, up to 12 of what was undecided; the bound on time ended them"
        );
    }

    #[test]
    fn facts_of_this_machine_name_no_path_and_no_address() {
        let mut host = Host::look();
        host.note_load();
        assert!(host.cpus > 0);
        assert!(host.load_before.parse::<f64>().is_ok(), "{host:?}");
        assert!(host.load_after.parse::<f64>().is_ok(), "{host:?}");
        let facts = Facts {
            host,
            ..Facts::default()
        };
        let text = facts.lines().join("\n") + &serde_json::to_string(&facts).unwrap();
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        for (what, bad) in [("a path", "/proc"), ("a path", "/sys"), ("a path", "/home")] {
            assert!(!text.contains(bad), "{what}: {text}");
        }
        let words: Vec<&str> = text
            .split(|c: char| !c.is_alphanumeric() && c != '-')
            .collect();
        assert!(!words.contains(&name.trim()), "the host's name: {text}");
        let is_address = |word: &str| word.parse::<std::net::IpAddr>().is_ok();
        let addresses = text
            .split([' ', '"', ',', ';', '(', ')'])
            .filter(|word| is_address(word));
        assert_eq!(addresses.count(), 0, "{text}");
    }

    #[test]
    fn what_differs_between_two_runs_is_told_with_both_values() {
        let mut now = Facts::default();
        now.guest.cpus = 2;
        now.host.load_before = "3.10".to_owned();
        let mut earlier = Facts::default();
        earlier.guest.cpus = 1;
        assert_eq!(now.differences_to(&earlier), ["guest CPUs: 1, now 2"]);
        assert!(now.differences_to(&now.clone()).is_empty());
    }
}
