// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tells the lab which compiler built it: `cargo lab` uses the same one for our other programs, so it belongs to their cache keys.

use std::process::Command;

fn main() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc)
        .arg("--version")
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    println!(
        "cargo::rustc-env=LAB_RUSTC_VERSION={}",
        String::from_utf8_lossy(&version).trim()
    );
    println!("cargo::rerun-if-changed=build.rs");
}
