// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Least privilege: what the process may still do once it serves.
//!
//! The guest and every peer on a socket are hostile, and so is whoever finds a way to run code in
//! this process. When everything that needs a right is open, and before anything that a peer sent
//! is read, the process gives up its capabilities and all system calls but those that serving
//! takes ([`filter`]), and of the files and ports those could reach all but its own ([`landlock`]). It
//! must not know what is served.

mod filter;
mod landlock;

use std::fmt;
use std::fmt::Display;
use std::path::PathBuf;

use caps::CapSet;
use caps::Capability;
use nix::sys::prctl;
use nix::sys::resource::RLIM_INFINITY;
use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;

pub use self::landlock::Landlock;

/// Most files open at once. A VMM brings three eventfds for each of 64 queues (192) and a file for each
/// of at most 509 pieces of memory; each of 31 FIFOs has at most 5 (155), each of 16 control clients one.
const MAX_FILES: u64 = 1024;

/// Most memory of its own beside the rings: thread stacks, messages, lines.
const MAX_OVERHEAD: u64 = 64 << 20;

/// Why the sandbox cannot be entered.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A limit cannot be set.
    #[error(
        "cannot limit {what}: {source}; to serve without a sandbox, which is less safe, use --sandbox none"
    )]
    Limit {
        /// Which one.
        what: &'static str,
        /// Why.
        source: nix::Error,
    },
    /// Capabilities cannot be dropped.
    #[error(
        "cannot drop capabilities: {0}; to serve without a sandbox, which is less safe, use --sandbox none"
    )]
    Capabilities(#[from] caps::errors::CapsError),
    /// New privileges cannot be ruled out.
    #[error(
        "cannot set no_new_privs: {0}; to serve without a sandbox, which is less safe, use --sandbox none"
    )]
    NoNewPrivs(nix::Error),
    /// The kernel does not take the filter.
    #[error(
        "cannot install the seccomp filter: {0}; it needs a kernel with CONFIG_SECCOMP_FILTER: \
         to serve without a sandbox, which is less safe, use --sandbox none"
    )]
    Filter(#[from] seccompiler::Error),
    /// The kernel has Landlock, and does not take the rules.
    #[error(
        "cannot confine file access by Landlock: {0}; to serve without a sandbox, which is less safe, \
         use --sandbox none"
    )]
    Landlock(#[from] ::landlock::RulesetError),
}

/// How much the process gives up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sandbox {
    /// Capabilities, new privileges, most memory and files, and all system calls but a few: another
    /// one ends the process with SIGSYS
    #[default]
    #[value(alias = "seccomp")]
    Kill,
    /// As much, but a system call that would end the process is only written to the kernel's log
    Log,
    /// Nothing.
    None,
}

/// What a process has given up, for those who ask later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// As it was told.
    pub sandbox: Sandbox,
    /// As much of the other half as the kernel has.
    pub landlock: Landlock,
}

impl Confinement {
    /// Whether files can be opened anew by their names.
    pub fn may_reopen(self) -> bool {
        self.sandbox == Sandbox::None || self.landlock.confines_opening()
    }
}

impl Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sandbox {
            Sandbox::None => return f.write_str("none"),
            Sandbox::Kill => f.write_str("seccomp")?,
            Sandbox::Log => f.write_str("seccomp that only logs")?,
        }
        match self.landlock {
            Landlock { abi: 0, .. } => f.write_str(", no Landlock in this kernel"),
            Landlock { abi, full: true } => write!(f, ", Landlock {abi}"),
            Landlock { abi, .. } => write!(
                f,
                ", Landlock {abi} (an older kernel's: not all that is wanted)"
            ),
        }
    }
}

/// What serving takes that depends on what is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Memory that the FIFOs take.
    pub ring_bytes: u64,
    /// Setting up terminals.
    pub terminals: bool,
    /// Files that are removed at the end.
    pub removed: Vec<PathBuf>,
    /// Files that are opened anew, for writing, when they were renamed.
    pub reopened: Vec<PathBuf>,
    /// UNIX sockets to connect to: not to be had for nothing, since other daemons listen there.
    pub connected: Vec<PathBuf>,
    /// TCP ports to connect to.
    pub tcp_ports: Vec<u16>,
}

impl Sandbox {
    /// Gives up what this sandbox is about, for good, but for what `needs` says. Capabilities
    /// belong to a thread: call it while there is only one, later ones inherit.
    ///
    /// # Errors
    ///
    /// What the kernel refuses; the process may have lost some of its rights by then.
    pub fn enter(self, needs: &Needs) -> Result<Confinement, SandboxError> {
        let mut landlock = Landlock::NONE;
        if self != Self::None {
            limit_resources(needs.ring_bytes)?;
            drop_capabilities()?;
            prctl::set_no_new_privs().map_err(SandboxError::NoNewPrivs)?;
            landlock = landlock::confine(needs)?;
            filter::install(needs, self, landlock)?;
        }
        Ok(Confinement {
            sandbox: self,
            landlock,
        })
    }
}

/// The guest's memory is none of this: it is shared, and only private memory counts as data.
fn limit_resources(ring_bytes: u64) -> Result<(), SandboxError> {
    let memory = ring_bytes.saturating_add(MAX_OVERHEAD);
    let limits = [
        ("open files", Resource::RLIMIT_NOFILE, MAX_FILES),
        ("memory", Resource::RLIMIT_DATA, memory),
        // A core file would hold what the guest and its peers have said.
        ("core files", Resource::RLIMIT_CORE, 0),
    ];
    for (what, resource, most) in limits {
        let failed = |source| SandboxError::Limit { what, source };
        let (_, hard) = getrlimit(resource).map_err(failed)?;
        let most = if hard == RLIM_INFINITY {
            most
        } else {
            most.min(hard)
        };
        setrlimit(resource, most, most).map_err(failed)?;
    }
    Ok(())
}

fn drop_capabilities() -> Result<(), SandboxError> {
    // Whoever has no right to drop it has no use for it either: no_new_privs closes the way there.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        caps::clear(None, CapSet::Bounding)?;
    }
    caps::clear(None, CapSet::Ambient)?;
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set)?;
    }
    Ok(())
}
