// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! cargo for guests of another architecture: this machine's toolchain, inside the tree, where the linker and its libraries are.

use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

use super::BUILD;
use crate::child;
use crate::child::Environment;
use crate::child::Place;
use crate::child::Spec;
use crate::stages::mmdebstrap;
use crate::stages::shop::Bench;
use crate::stages::shop::Shop;
use crate::stages::shop::tool_spec;
use crate::stages::tree;
use crate::ui;

/// `cargo build` in the tree. What it reads from a registry is fetched first: the tree has no certificates.
pub fn cargo(shop: &Shop, bench: &mut Bench<'_>) -> Result<Spec> {
    let toolchain = toolchain(shop)?;
    library(shop, bench, &toolchain)?;
    let fetch = super::cargo_program()
        .args(["fetch", "--locked"])
        .cwd(&shop.repository)
        .environment(Environment::NotTheBuilds)
        .place(Place::Group);
    bench.run(&fetch)?;
    let tree = tree::obtain(shop)?;
    let view = shop.host_view(tree.path());
    let bin = toolchain.join("bin");
    let linker = format!(
        "CARGO_TARGET_{}_LINKER",
        shop.arch.rust().replace('-', "_").to_uppercase()
    );
    let spec = tool_spec(&view, "cargo")
        .args(BUILD)
        .arg("--offline")
        .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
        .env("CARGO_HOME", home()?)
        .env("CARGO_TARGET_DIR", target(shop))
        .env(linker, shop.arch.tool("gcc"))
        .cwd(&shop.repository)
        .place(Place::Tree(view));
    Ok(spec)
}

/// Where cargo keeps what it has fetched.
fn home() -> Result<PathBuf> {
    let dir = |name: &str| std::env::var_os(name).map(PathBuf::from);
    dir("CARGO_HOME")
        .or_else(|| dir("HOME").map(|home| home.join(".cargo")))
        .context("cargo has no place: set HOME")
}

/// What the tree's linker has linked is kept apart from what this machine's has: their C libraries may differ.
fn target(shop: &Shop) -> PathBuf {
    let usual = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || shop.repository.join("target"),
        |dir| shop.repository.join(dir),
    );
    usual.join(format!("for-{}", shop.arch))
}

/// Where the toolchain is that builds the lab.
fn toolchain(shop: &Shop) -> Result<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    // In the repository: another folder may choose another.
    let ask = Spec::new(rustc).args(["--print", "sysroot"]);
    let said = child::output(&ask.cwd(&shop.repository))?;
    let sysroot = PathBuf::from(said.trim());
    anyhow::ensure!(
        !["/usr", "/", ""]
            .map(Path::new)
            .contains(&sysroot.as_path()),
        "guests of another architecture need a Rust toolchain of rustup's: the one in {} needs this machine's own libraries, which the guest's compiler does not see",
        sysroot.display()
    );
    Ok(sysroot)
}

/// Rust's own library for the guest's architecture, added to the toolchain where it is not there.
fn library(shop: &Shop, bench: &mut Bench<'_>, toolchain: &Path) -> Result<()> {
    let target = shop.arch.rust();
    if toolchain
        .join("lib/rustlib")
        .join(target)
        .join("lib")
        .is_dir()
    {
        return Ok(());
    }
    anyhow::ensure!(
        mmdebstrap::on_path("rustup"),
        "the Rust toolchain in {} has no library for {target}, and there is no rustup that could add it",
        toolchain.display()
    );
    ui::say(&format!(
        "rustup target add {target}: your toolchain gets Rust's library for the guest's programs; `rustup target remove {target}` takes it away"
    ));
    let spec = Spec::new("rustup")
        .args(["target", "add", target])
        .cwd(&shop.repository);
    bench.run(&spec.place(Place::Group))
}
