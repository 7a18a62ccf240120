// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Our own programs: the daemon for the host, and the statically linked ones for the guest. cargo builds them; the cache keeps the results.

mod foreign;

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

use super::shop::Bench;
use super::shop::Shop;
use crate::cache::Entry;
use crate::child::Environment;
use crate::child::Place;
use crate::child::Spec;
use crate::exit;
use crate::key::Key;
use crate::key::KeyBuilder;
use crate::ui;

/// What runs in the guest is linked statically, so that it runs on any kernel and userland.
const STATIC: &str = "-Ctarget-feature=+crt-static";
/// Takes precedence over all other flags, those of cargo's configuration files as well: what is built does not depend on them.
pub const FLAGS: &str = "CARGO_ENCODED_RUSTFLAGS";
/// What cargo is to do, and to report.
const BUILD: [&str; 4] = [
    "build",
    "--release",
    "--locked",
    "--message-format=json-render-diagnostics",
];
/// Program of the daemon's package.
pub const DAEMON: &str = "vhost-device-fifo";
/// The daemon's name in the cache.
pub const DAEMON_STAGE: &str = "daemon";
/// The agent's name in the cache.
pub const AGENT_STAGE: &str = "agent";
/// Name of the guest's programs in the cache.
pub const GUEST_STAGE: &str = "programs";
/// Program that the guest's init ends in.
pub const AGENT: &str = "fifo-lab-agent";

/// Whether a guest is any use without guest-tests' programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It is not.
    All,
    /// It is: who changes them may want a guest while they do not build.
    IfTheyBuild,
}

/// The built programs.
#[derive(Debug)]
pub struct Programs {
    /// Holds the daemon.
    daemon: Entry,
    /// Holds the agent.
    agent: Entry,
    /// Holds the guest's programs, unless they could be done without.
    guest: Option<Entry>,
}

impl Programs {
    /// The daemon.
    pub fn daemon(&self) -> PathBuf {
        self.daemon.join(DAEMON)
    }

    /// The agent.
    pub fn agent(&self) -> PathBuf {
        self.agent.join(AGENT)
    }

    /// Directory of the guest's programs.
    pub fn guest(&self) -> Option<&Path> {
        self.guest.as_ref().map(Entry::path)
    }
}

/// Builds what is missing.
pub fn obtain(shop: &Shop, need: Need) -> Result<Programs> {
    let agent = shop.obtain(
        AGENT_STAGE,
        &agent_key(shop)?,
        "building the guest's agent",
        |bench| build_for_guest(shop, bench, AGENT),
    )?;
    let guest = shop.obtain(
        GUEST_STAGE,
        &guest_key(shop)?,
        "building the guest's programs",
        |bench| build_for_guest(shop, bench, "globalfifo-guest-tests"),
    );
    let guest = match guest {
        Err(err) if need == Need::IfTheyBuild && !exit::of(&err).1.is_empty() => {
            ui::warn(&format!(
                "the guest starts without guest-tests' programs: {err:#}"
            ));
            None
        }
        other => Some(other?),
    };
    let daemon = shop.obtain(
        DAEMON_STAGE,
        &daemon_key(shop)?,
        "building the device, vhost-device-fifo",
        |bench| build(bench, &cargo(shop).args(["--package", DAEMON, "--bins"])),
    )?;
    Ok(Programs {
        daemon,
        agent,
        guest,
    })
}

/// The guest's programs as this machine can run them, which it does to learn what they hold.
pub fn that_run_here(shop: &Shop) -> Result<Programs> {
    if shop.arch.is_foreign() {
        obtain(&Shop::open()?, Need::All)
    } else {
        obtain(shop, Need::All)
    }
}

/// What the guest's programs are made from: the lessons quote the driver.
pub fn guest_key(shop: &Shop) -> Result<Key> {
    key(
        shop,
        of_arch(shop, GUEST_STAGE),
        &["guest-tests", "guest-driver"],
    )
}

/// What the agent is made from.
pub fn agent_key(shop: &Shop) -> Result<Key> {
    key(shop, of_arch(shop, AGENT_STAGE), &["vmm-glue/agent"])
}

/// What the daemon is made from.
pub fn daemon_key(shop: &Shop) -> Result<Key> {
    key(shop, KeyBuilder::new(DAEMON_STAGE), &["device", "protocol"])
}

fn of_arch(shop: &Shop, stage: &str) -> KeyBuilder {
    super::kernel::of_arch(shop, KeyBuilder::new(stage))
}

fn key(shop: &Shop, key: KeyBuilder, parts: &[&str]) -> Result<Key> {
    let mut key = key.field("rustc", env!("LAB_RUSTC_VERSION"));
    for file in ["Cargo.toml", "Cargo.lock"] {
        key = key.file(file, &shop.repository.join(file))?;
    }
    for part in parts {
        let counts = |path: &Path| {
            super::module::is_source(path)
                && !path.starts_with("fuzz")
                && !path.starts_with("tests")
        };
        key = key.dir(part, &shop.repository.join(part), &counts)?;
    }
    Ok(key.finish())
}

fn cargo_program() -> Spec {
    Spec::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn cargo(shop: &Shop) -> Spec {
    cargo_program()
        .args(BUILD)
        .cwd(&shop.repository)
        .environment(Environment::NotTheBuilds)
        .env(FLAGS, "")
        .place(Place::Group)
}

fn build_for_guest(shop: &Shop, bench: &mut Bench<'_>, package: &str) -> Result<()> {
    let cargo = if shop.arch.is_foreign() {
        foreign::cargo(shop, bench)?
    } else {
        cargo(shop)
    };
    let target = shop.arch.rust();
    build(
        bench,
        &cargo
            .args(["--package", package, "--bins", "--target", target])
            .env(FLAGS, STATIC),
    )
}

/// Builds and copies the executables that cargo reports.
fn build(bench: &mut Bench<'_>, cargo: &Spec) -> Result<()> {
    let mut built = Vec::new();
    bench.watch(cargo, &mut |line| built.extend(executable(line)))?;
    anyhow::ensure!(!built.is_empty(), "cargo built no program");
    for program in built {
        let name = program.file_name().context("a program has a name")?;
        fs::copy(&program, bench.dir.join(name))
            .with_context(|| format!("cannot copy {}", program.display()))?;
    }
    Ok(())
}

/// The executable that a line of cargo's reports.
pub fn executable(line: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    message.get("executable")?.as_str().map(PathBuf::from)
}
