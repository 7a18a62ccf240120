// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! vhost-device-vsock, a peer that the device is compared with: rust-vmm's own program, built from crates.io.

use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

use super::shop::Shop;
use crate::cache::Entry;
use crate::child::Environment;
use crate::child::Place;
use crate::child::Spec;
use crate::key::KeyBuilder;

/// Its name in the cache.
pub const STAGE: &str = "vsock";
/// The program, and its crate.
const PROGRAM: &str = "vhost-device-vsock";
/// The newest when this was written: figures of different releases should not be compared by accident.
pub const VERSION: &str = "0.3.0";

/// The built program.
#[derive(Debug)]
pub struct Vsock(Entry);

impl Vsock {
    /// Where it is.
    pub fn program(&self) -> PathBuf {
        self.0.join(PROGRAM)
    }
}

/// Builds it if it is missing. That this fails is no reason not to measure the rest.
pub fn obtain(shop: &Shop) -> Result<Vsock> {
    let key = KeyBuilder::new(STAGE)
        .field("rustc", env!("LAB_RUSTC_VERSION"))
        .field("version", VERSION)
        .finish();
    let entry = shop.obtain(
        STAGE,
        &key,
        "building vhost-device-vsock, a peer",
        |bench| {
            // In the entry itself: what is left of an interrupted build goes with it.
            let root = bench.dir.join("cargo");
            std::fs::create_dir(&root).context("cannot make a directory in the cache")?;
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let install = Spec::new(cargo)
                .args([
                    "install",
                    PROGRAM,
                    "--version",
                    VERSION,
                    "--locked",
                    "--root",
                ])
                .arg(&root)
                .arg("--target-dir")
                .arg(root.join("target"))
                .cwd(&root)
                .environment(Environment::NotTheBuilds)
                .place(Place::Group);
            bench.run(&install)?;
            std::fs::copy(root.join("bin").join(PROGRAM), bench.dir.join(PROGRAM))
                .context("cargo has installed no program")?;
            crate::cache::remove(&root)
        },
    )?;
    Ok(Vsock(entry))
}
