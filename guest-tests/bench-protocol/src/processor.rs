// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Facts about a machine that figures depend on: processor, clock source, mitigations.
//!
//! Host and guest read them from the same places of /proc and /sys, with this code. It must not know
//! which of the two it runs on, and reads nothing that names a machine, a network or a user.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Value of a fact that the machine does not tell.
const UNKNOWN: &str = "unknown";

/// One kind of processor with the kernel's settings for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processor {
    /// Model.
    pub model: String,
    /// Source of CLOCK_MONOTONIC.
    pub clock_source: String,
    /// Vulnerability, as the kernel spells it, and the kernel's answer to it.
    pub mitigations: BTreeMap<String, String>,
}

impl Processor {
    /// Reads the facts below `root`, which is `/` but in tests.
    pub fn read(root: &Path) -> Self {
        let cpuinfo = fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
        let clock = root.join("sys/devices/system/clocksource/clocksource0/current_clocksource");
        let clock = fs::read_to_string(clock).unwrap_or_default();
        Self {
            model: model(&cpuinfo),
            clock_source: first_line(&clock),
            mitigations: mitigations(&root.join("sys/devices/system/cpu/vulnerabilities")),
        }
    }

    /// Mitigations in one sentence: names only, the kernel's texts are in `mitigations`.
    pub fn mitigations_in_short(&self) -> String {
        let of_kind = |kind: fn(&str) -> bool| -> Vec<&str> {
            let names = self.mitigations.iter();
            names
                .filter(|(_, text)| kind(text))
                .map(|(name, _)| name.as_str())
                .collect()
        };
        let unaffected = of_kind(is_unaffected).len();
        let parts = [
            ("in force against", of_kind(is_mitigated)),
            ("none against", of_kind(is_open)),
        ];
        let mut text: Vec<String> = parts
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what} {}", names.join(", ")))
            .collect();
        if unaffected > 0 {
            text.push(format!("not affected by {unaffected} others"));
        }
        if text.is_empty() {
            UNKNOWN.to_owned()
        } else {
            text.join("; ")
        }
    }
}

fn is_unaffected(text: &str) -> bool {
    text.starts_with("Not affected")
}

/// The word may stand behind the name of a hypervisor: `KVM: Mitigation: …`.
fn is_mitigated(text: &str) -> bool {
    text.contains("Mitigation")
}

fn is_open(text: &str) -> bool {
    !is_unaffected(text) && !is_mitigated(text)
}

/// `model name` where there is one; on Arm, which has none, the numbers of implementer and part.
fn model(cpuinfo: &str) -> String {
    let field = |name: &str| {
        let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        fields.find_map(|(key, value)| (key.trim() == name).then(|| value.trim().to_owned()))
    };
    field("model name").unwrap_or_else(|| {
        let implementer = field("CPU implementer").zip(field("CPU part"));
        implementer.map_or_else(
            || UNKNOWN.to_owned(),
            |(implementer, part)| format!("implementer {implementer}, part {part}"),
        )
    })
}

fn mitigations(dir: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path()).ok()?;
            Some((entry.file_name().into_string().ok()?, first_line(&text)))
        })
        .collect()
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() { UNKNOWN } else { line }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn facts_of_a_machine_are_read_from_proc_and_sys() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        put(
            root,
            "proc/cpuinfo",
            "processor\t: 0\nmodel name\t: A: CPU\nmodel name\t: B\n",
        );
        let clock = "sys/devices/system/clocksource/clocksource0/current_clocksource";
        put(root, clock, "tsc\n");
        let vulnerabilities = "sys/devices/system/cpu/vulnerabilities";
        for (name, text) in [
            ("meltdown", "Not affected\n"),
            ("spectre_v2", "Mitigation: Retpolines; IBPB: conditional\n"),
            (
                "mds",
                "Vulnerable: Clear CPU buffers attempted, no microcode\n",
            ),
            ("itlb_multihit", "KVM: Mitigation: VMX unsupported\n"),
        ] {
            put(root, &format!("{vulnerabilities}/{name}"), text);
        }
        let processor = Processor::read(root);
        assert_eq!(processor.model, "A: CPU");
        assert_eq!(processor.clock_source, "tsc");
        assert_eq!(
            processor.mitigations_in_short(),
            "in force against itlb_multihit, spectre_v2; none against mds; not affected by 1 others"
        );
    }

    #[test]
    fn a_machine_that_tells_nothing_has_unknown_facts() {
        let root = tempfile::tempdir().unwrap();
        let processor = Processor::read(root.path());
        assert_eq!(processor.model, "unknown");
        assert_eq!(processor.clock_source, "unknown");
        assert_eq!(processor.mitigations_in_short(), "unknown");
    }

    #[test]
    fn an_arm_processor_is_told_by_its_numbers() {
        let cpuinfo = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n";
        assert_eq!(model(cpuinfo), "implementer 0x41, part 0xd0c");
    }
}
