// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device-only benchmark as a program: what `cargo bench -p vhost-device-fifo` runs.

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
pub const STAGE: &str = "device-bench";
/// The program, and cargo's name for it.
const PROGRAM: &str = "device";

/// The built program.
#[derive(Debug)]
pub struct DeviceBench(Entry);

impl DeviceBench {
    /// Where it is.
    pub fn program(&self) -> PathBuf {
        self.0.join(PROGRAM)
    }
}

/// Builds it if it is missing.
pub fn obtain(shop: &Shop) -> Result<DeviceBench> {
    let mut key = KeyBuilder::new(STAGE).field("rustc", env!("LAB_RUSTC_VERSION"));
    for file in ["Cargo.toml", "Cargo.lock"] {
        key = key.file(file, &shop.repository.join(file))?;
    }
    for part in ["device", "protocol"] {
        key = key.dir(part, &shop.repository.join(part), &super::module::is_source)?;
    }
    let key = key.finish();
    let entry = shop.obtain(
        STAGE,
        &key,
        "building the device's own benchmark",
        |bench| {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let build = Spec::new(cargo)
                .args(["bench", "--no-run", "--locked"])
                .args(["--message-format=json-render-diagnostics"])
                .args(["--package", super::programs::DAEMON, "--bench", PROGRAM])
                .cwd(&shop.repository)
                .environment(Environment::NotTheBuilds)
                .env(super::programs::FLAGS, "")
                .place(Place::Group);
            let mut built = None;
            bench.watch(&build, &mut |line| built = program(line).or(built.take()))?;
            let built = built.context("cargo built no benchmark")?;
            std::fs::copy(&built, bench.dir.join(PROGRAM))
                .with_context(|| format!("cannot copy {}", built.display()))?;
            Ok(())
        },
    )?;
    Ok(DeviceBench(entry))
}

/// The executable of the benchmark, if a line of cargo's reports it: the daemon is built too.
fn program(line: &str) -> Option<PathBuf> {
    let executable = super::programs::executable(line)?;
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let kinds = message.get("target")?.get("kind")?.as_array()?;
    let is_bench = kinds.iter().any(|kind| kind == "bench");
    is_bench.then_some(executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_benchmark_is_told_from_the_daemon() {
        let line = |kind: &str| {
            format!(
                r#"{{"target":{{"kind":["{kind}"],"name":"device"}},"executable":"/t/device-1"}}"#
            )
        };
        assert_eq!(program(&line("bench")), Some(PathBuf::from("/t/device-1")));
        assert_eq!(program(&line("bin")), None);
        assert_eq!(program("Compiling x"), None);
    }
}
