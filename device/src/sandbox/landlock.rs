// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Paths and ports that serving takes; any other one is refused, as if it belonged to somebody else.
//!
//! A system call filter sees that a file is removed, and not which one. Landlock does, as far as
//! the kernel has it: what it cannot enforce is told, and left to the filter.

use std::path::Path;

use landlock::ABI;
use landlock::Access;
use landlock::AccessFs;
use landlock::AccessNet;
use landlock::BitFlags;
use landlock::CompatLevel;
use landlock::Compatible;
use landlock::LandlockStatus;
use landlock::NetPort;
use landlock::PathBeneath;
use landlock::PathFd;
use landlock::Ruleset;
use landlock::RulesetAttr;
use landlock::RulesetCreated;
use landlock::RulesetCreatedAttr;
use landlock::RulesetError;
use landlock::RulesetStatus;
use landlock::Scope;

use super::Needs;

/// The newest restrictions that are asked for: those of Linux 7.1.
const NEWEST: ABI = ABI::V9;

/// As much as opening files anew takes from the kernel: to restrict truncation.
const FOR_REOPENING: ABI = ABI::V3;

/// What the kernel enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Landlock {
    /// Version of the kernel's interface, as far as it is used; 0 if there is none.
    pub abi: u32,
    /// All that was asked for is enforced.
    pub full: bool,
}

impl Landlock {
    /// Nothing at all.
    pub const NONE: Self = Self {
        abi: 0,
        full: false,
    };

    /// Whether a file that is opened by name from now on can only be one that was asked for.
    pub fn confines_opening(self) -> bool {
        self.abi >= FOR_REOPENING as u32
    }
}

/// Confines this thread, and those it will start, to the paths and ports that `needs` names.
pub fn confine(needs: &Needs) -> Result<Landlock, RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    for path in &needs.removed {
        rules = allow(rules, folder(path), AccessFs::RemoveFile)?;
    }
    for path in &needs.reopened {
        let access = AccessFs::MakeReg | AccessFs::WriteFile | AccessFs::Truncate;
        rules = allow(rules, folder(path), access)?;
    }
    for path in &needs.connected {
        // The socket itself, if it is there, for its name may be a link; and its folder, for the next one.
        rules = allow(rules, path, AccessFs::ResolveUnix)?;
        rules = allow(rules, folder(path), AccessFs::ResolveUnix)?;
    }
    for port in &needs.tcp_ports {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    let status = rules.restrict_self()?;
    let abi = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi as u32,
        _ => 0,
    };
    Ok(Landlock {
        abi,
        full: status.ruleset == RulesetStatus::FullyEnforced,
    })
}

/// Allows `access` to all that is beneath `path`, or the nearest folder above it that there is.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: impl Into<BitFlags<AccessFs>>,
) -> Result<RulesetCreated, RulesetError> {
    let there = path.ancestors().find_map(|path| PathFd::new(path).ok());
    match there {
        Some(there) => rules.add_rule(PathBeneath::new(there, access)),
        None => Ok(rules),
    }
}

/// The folder that the file `path` is in.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
