// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Programs of others, built from crates.io into the cache.

use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

use super::shop::Shop;
use crate::cache::Entry;
use crate::child::Environment;
use crate::child::Place;
use crate::child::Spec;
use crate::key::KeyBuilder;

/// What to build.
#[derive(Debug)]
pub struct Wanted {
    /// Its name in the cache.
    pub stage: &'static str,
    /// The program, and its crate.
    pub program: &'static str,
    /// Its version: results of different releases should not be compared by accident.
    pub version: &'static str,
    /// Further arguments of `cargo install`.
    pub options: &'static [&'static str],
    /// What is said meanwhile, like "building mdBook".
    pub what: &'static str,
}

/// A built program.
#[derive(Debug)]
pub struct Installed {
    entry: Entry,
    program: &'static str,
}

impl Installed {
    /// Where it is.
    pub fn program(&self) -> PathBuf {
        self.entry.join(self.program)
    }
}

/// Builds it if it is missing.
pub fn obtain(shop: &Shop, wanted: &Wanted) -> Result<Installed> {
    let program = wanted.program;
    let key = KeyBuilder::new(wanted.stage)
        .field("rustc", env!("LAB_RUSTC_VERSION"))
        .field("version", wanted.version)
        .finish();
    let entry = shop.obtain(wanted.stage, &key, wanted.what, |bench| {
        // In the entry itself: what is left of an interrupted build goes with it.
        let root = bench.dir.join("cargo");
        std::fs::create_dir(&root).context("cannot make a directory in the cache")?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let install = Spec::new(cargo)
            .args(["install", program, "--version", wanted.version, "--locked"])
            .args(wanted.options)
            .arg("--root")
            .arg(&root)
            .arg("--target-dir")
            .arg(root.join("target"))
            .cwd(&root)
            .environment(Environment::NotTheBuilds)
            .place(Place::Group);
        bench.run(&install)?;
        std::fs::copy(root.join("bin").join(program), bench.dir.join(program))
            .context("cargo has installed no program")?;
        crate::cache::remove(&root)
    })?;
    Ok(Installed { entry, program })
}
