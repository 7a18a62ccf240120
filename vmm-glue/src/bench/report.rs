//! A run as a whole: what it ran on, what it found, and what that says of the goals.

use std::fs;

use globalfifo_bench_protocol::Machine;
use serde::Serialize;

use super::device;
use super::device::Alone;
use super::goals;
use super::goals::Goal;
use super::idle::Comparison;
use super::results::Results;

/// Everything that is shown and written.
#[derive(Debug, Clone)]
pub struct Report {
    /// What it ran on.
    pub facts: Facts,
    /// Figures.
    pub results: Results,
    /// Figures of guests that do nothing.
    pub idle: Option<Comparison>,
    /// Figures of the device without a machine.
    pub alone: Option<Alone>,
    /// What all that says of the goals.
    pub goals: Vec<Goal>,
}

/// What a run ran on.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Facts {
    /// tcg or kvm.
    pub accelerator: String,
    /// QEMU's version.
    pub qemu: String,
    /// The guest.
    pub guest: Machine,
    /// The host's processor.
    pub host_cpu: String,
    /// How many of them.
    pub host_cpus: usize,
    /// Tasks that wanted a processor before the run, on average over a minute.
    pub load_before: String,
    /// The version of vhost-device-vsock, if it took part.
    pub vsock: Option<String>,
    /// Rounds.
    pub rounds: usize,
    /// Bytes that the compared FIFOs hold.
    pub capacity: String,
}

impl Report {
    /// Judges.
    pub fn new(
        facts: Facts,
        results: Results,
        alone: Option<Alone>,
        idle: Option<Comparison>,
    ) -> Self {
        let mut goals = goals::judge(&results);
        goals.extend(device::judge(alone.as_ref()));
        goals.extend(Comparison::judge(idle.as_ref()));
        Self {
            facts,
            results,
            alone,
            idle,
            goals,
        }
    }
}

impl Facts {
    /// What can be seen of the host.
    pub fn of_host() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == "model name");
        Self {
            host_cpu: model.map_or("unknown", |(_, name)| name.trim()).to_owned(),
            host_cpus: std::thread::available_parallelism().map_or(0, Into::into),
            load_before: load(),
            ..Self::default()
        }
    }

    /// In sentences, one a line.
    pub fn lines(&self) -> Vec<String> {
        let guest = &self.guest;
        let plural = if guest.cpus == 1 { "" } else { "s" };
        let mut lines = vec![
            format!(
                "{}, {} guest CPU{plural}, Linux {}, QEMU {}; {} round{}, FIFOs of {} bytes",
                self.accelerator.to_uppercase(),
                guest.cpus,
                guest.kernel,
                self.qemu,
                self.rounds,
                if self.rounds == 1 { "" } else { "s" },
                self.capacity
            ),
            format!(
                "host: {} × {}, load before the run {}",
                self.host_cpus, self.host_cpu, self.load_before
            ),
            self.interrupts(),
        ];
        lines.push(match &self.vsock {
            Some(version) => format!("vsock: vhost-device-vsock {version}"),
            None => "vsock: not measured".to_owned(),
        });
        lines
    }

    fn interrupts(&self) -> String {
        let kind = if self.guest.interrupt.contains("MSI") {
            "has message-signalled interrupts"
        } else {
            "QEMU's generic vhost-user device has one plain INTx line"
        };
        format!(
            "interrupts: {kind} ({}); virtio-serial has {}",
            self.guest.interrupt,
            match self.guest.serial_interrupts.len() {
                0 => "none".to_owned(),
                count
                    if self
                        .guest
                        .serial_interrupts
                        .iter()
                        .any(|line| line.contains("MSI")) =>
                    format!("{count} MSI-X vectors"),
                count => format!("{count}"),
            }
        )
    }
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .next()
        .unwrap_or("unknown")
        .to_owned()
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
        assert!(said.contains("1 MSI-X vectors"));
        facts.guest.interrupt = "PCI-MSIX-0000:00:04.0 1-edge virtio3-x".to_owned();
        assert!(!facts.lines().join("\n").contains("INTx"));
    }
}
