// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which accelerator to use. /dev/kvm alone proves nothing: on some hosts it opens, makes a machine, and never runs a guest.

use std::fs;
use std::fs::File;

use anyhow::Result;

use super::config::AccelChoice;
use crate::stages::Arch;

/// How the machine's CPUs are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// The host's own.
    Kvm {
        /// Whether to start again with TCG when the guest stays silent.
        may_fall_back: bool,
    },
    /// Emulated.
    Tcg,
}

impl Accel {
    /// QEMU's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm { .. } => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// CPU model. Under TCG without ERMS and FSRM, for it runs the kernel's `rep movsb` byte by byte; and without protection
    /// keys, for it throws away its translations of addresses whenever PKRU changes, as it does for every signal.
    ///
    /// On arm64 without pointer authentication, whose keys are emulated by a cipher, and without the vectors of variable length.
    pub fn cpu(self, arch: Arch) -> &'static str {
        match (self, arch) {
            (Self::Kvm { .. }, _) => "host",
            (Self::Tcg, Arch::X86_64) => "max,-erms,-fsrm,-pku",
            (Self::Tcg, Arch::Arm64) => "cortex-a76",
        }
    }
}

/// Decides.
pub fn choose(choice: AccelChoice, arch: Arch) -> Result<Accel> {
    let foreign = arch.is_foreign();
    let obstacle = foreign.then(|| format!("the guest is for {arch}, this machine is not"));
    match (choice, obstacle.or_else(kvm_obstacle)) {
        (AccelChoice::Tcg, _) | (AccelChoice::Auto, Some(_)) => Ok(Accel::Tcg),
        (AccelChoice::Auto, None) => Ok(Accel::Kvm {
            may_fall_back: true,
        }),
        (AccelChoice::Kvm, None) => Ok(Accel::Kvm {
            may_fall_back: false,
        }),
        (AccelChoice::Kvm, Some(why)) => anyhow::bail!("no KVM here: {why}; use --accel tcg"),
    }
}

/// Why KVM cannot be used, if so.
pub fn kvm_obstacle() -> Option<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if Arch::host() == Arch::X86_64 && !has_virtualisation(&cpuinfo) {
        return Some("the CPU has neither vmx nor svm (/proc/cpuinfo)".to_owned());
    }
    let device = File::options().read(true).write(true).open("/dev/kvm");
    device
        .err()
        .map(|err| format!("/dev/kvm cannot be opened: {err}"))
}

fn has_virtualisation(cpuinfo: &str) -> bool {
    let flags = cpuinfo
        .lines()
        .find(|line| line.starts_with("flags"))
        .unwrap_or_default();
    flags
        .split_whitespace()
        .any(|flag| flag == "vmx" || flag == "svm")
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn a_guest_for_another_architecture_is_emulated() {
        let foreign = Arch::value_variants()
            .iter()
            .find(|arch| arch.is_foreign())
            .unwrap();
        assert_eq!(choose(AccelChoice::Auto, *foreign).unwrap(), Accel::Tcg);
        let said = choose(AccelChoice::Kvm, *foreign).unwrap_err().to_string();
        assert!(
            said.contains(foreign.name()) && said.contains("--accel tcg"),
            "{said}"
        );
    }

    #[test]
    fn only_whole_flags_count() {
        assert!(has_virtualisation("processor: 0\nflags\t\t: fpu svm sse\n"));
        assert!(!has_virtualisation("flags\t\t: fpu svm_lock vmxnet\n"));
        assert!(!has_virtualisation("vmx flags: vnmi\nflags : fpu\n"));
    }
}
