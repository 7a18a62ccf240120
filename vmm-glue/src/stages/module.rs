// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! globalfifo.ko, built in the tree against the prepared kernel. The repository stays clean: a copy is built, shown at the repository's own
//! path so that the compilers' messages name the user's files.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

use super::Edition;
use super::PathOrEntry;
use super::System;
use super::kernel;
use super::kernel::Kernel;
use super::shop::Bench;
use super::shop::Shop;
use super::shop::tool_spec;
use crate::cache::Entry;
use crate::child::Bind;
use crate::child::Spec;
use crate::child::View;
use crate::files;
use crate::key::Key;
use crate::key::KeyBuilder;

/// Its name in the cache.
pub const STAGE: &str = "module";
/// Directory of the driver, in the repository and in the copy.
pub const DRIVER: &str = "guest-driver";
/// The wire format, which the driver compiles from `../protocol`.
const PROTOCOL: &str = "protocol";
/// Both.
pub const PARTS: [&str; 2] = [DRIVER, PROTOCOL];
/// The result.
pub const MODULE: &str = "guest-driver/globalfifo.ko";

/// What the module is made from.
pub fn key(shop: &Shop, system: System) -> Result<Key> {
    Ok(KeyBuilder::new(STAGE)
        .field("kernel", &super::kernel_key(shop, system.kernel)?.id)
        .field("edition", system.edition.make_variable())
        .field("path", &seen_as(&shop.repository).display().to_string())
        .dir(DRIVER, &shop.repository.join(DRIVER), &is_source)?
        .dir(PROTOCOL, &shop.repository.join(PROTOCOL), &is_source)?
        .finish())
}

/// What Kbuild makes is no input, nor is what editors and git leave.
pub fn is_source(path: &Path) -> bool {
    const MADE: [&str; 9] = [
        "o", "ko", "cmd", "mod", "d", "order", "symvers", "rmeta", "args",
    ];
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let made = path
        .extension()
        .is_some_and(|ext| MADE.iter().any(|made| ext == *made))
        || name.ends_with(".mod.c");
    let hidden = name.starts_with('.') && name != ".rustfmt.toml";
    // Tests of the driver on the host are no part of the module.
    let elsewhere = path.starts_with("target") || path.starts_with("host-tests");
    !made && !hidden && name != "bindings_generated.rs" && !elsewhere
}

/// The module for this kernel.
pub fn obtain(shop: &Shop, tree: &Entry, kernel: &Kernel, system: System) -> Result<PathOrEntry> {
    let entry = shop.obtain(
        STAGE,
        &key(shop, system)?,
        "building the driver, globalfifo.ko",
        |bench| {
            copy_sources(shop, bench.dir)?;
            let view = view(shop, tree, kernel, bench.dir);
            let make = make(&view, &shop.repository, system.edition).args(kernel.make_variables());
            bench.run(&make)?;
            keep_only_module(bench)
        },
    )?;
    Ok(PathOrEntry::Entry(entry, MODULE.into()))
}

fn keep_only_module(bench: &Bench<'_>) -> Result<()> {
    let module = bench.dir.join(MODULE);
    let bytes = fs::read(&module).with_context(|| format!("the build made no {MODULE}"))?;
    crate::cache::remove(&bench.dir.join(DRIVER))?;
    crate::cache::remove(&bench.dir.join(PROTOCOL))?;
    fs::create_dir(bench.dir.join(DRIVER))?;
    fs::write(&module, bytes)?;
    Ok(())
}

/// Copies the driver and the wire format side by side.
pub fn copy_sources(shop: &Shop, to: &Path) -> Result<()> {
    for part in PARTS {
        let from = shop.repository.join(part);
        for path in crate::key::files(&from)? {
            let relative = path.strip_prefix(&from).unwrap_or(&path);
            if is_source(relative) {
                files::copy(&path, &to.join(part).join(relative))?;
            }
        }
    }
    Ok(())
}

/// The tree with the kernel in its place and the copy over the repository.
pub fn view(shop: &Shop, tree: &Entry, kernel: &Kernel, copy: &Path) -> View {
    let mut view = shop.view(tree.path(), copy);
    kernel.show(&mut view);
    for part in PARTS {
        view.binds.push(Bind {
            from: copy.join(part),
            to: seen_as(&shop.repository).join(part),
            read_only: false,
        });
    }
    view
}

/// `make` of an edition of the driver, the usual out-of-tree way; more variables may follow.
pub fn make(view: &View, repository: &Path, edition: Edition) -> Spec {
    let jobs = std::thread::available_parallelism().map_or(2, usize::from);
    tool_spec(view, "make")
        .arg("-C")
        .arg(seen_as(repository).join(DRIVER))
        .arg(format!("KDIR={}/build", kernel::PLACE))
        .arg(format!("-j{jobs}"))
        .arg(edition.make_variable())
        .cwd("/")
}

/// Where the tree's tools see the repository: where it is, so that their messages name the user's files, unless the tree has that place
/// itself or make cannot cope with the name.
pub fn seen_as(repository: &Path) -> PathBuf {
    let text = repository.to_string_lossy();
    let taken = [
        "/usr", "/bin", "/sbin", "/lib", "/etc", "/var", "/proc", "/dev", "/run", "/sys",
    ];
    let awkward = text.contains(|c: char| c.is_whitespace() || ":$#%'\"\\".contains(c));
    if awkward || taken.iter().any(|dir| text.starts_with(dir)) {
        PathBuf::from("/lab/repository")
    } else {
        repository.to_owned()
    }
}

/// The driver's own udev rules.
pub fn rules(repository: &Path) -> PathBuf {
    repository.join(DRIVER).join("99-globalfifo.rules")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_in_a_place_of_the_trees_own_is_seen_elsewhere() {
        for odd in [
            "/usr/src/globalfifo",
            "/home/me/my files/fifo",
            "/var/tmp/x",
        ] {
            assert_eq!(seen_as(Path::new(odd)), Path::new("/lab/repository"));
        }
        assert_eq!(
            seen_as(Path::new("/home/me/fifo")),
            Path::new("/home/me/fifo")
        );
    }

    #[test]
    fn build_products_are_no_inputs() {
        for made in [
            "globalfifo.ko",
            "helpers.o",
            ".helpers.o.cmd",
            "globalfifo.mod.c",
            "Module.symvers",
            "kernel_has.args",
            "target/debug/x.rs",
            "host-tests/src/lib.rs",
        ] {
            assert!(!is_source(Path::new(made)), "{made}");
        }
        for source in [
            "Kbuild",
            "Makefile",
            "helpers.c",
            "driver/fifo.rs",
            "include/uapi/globalfifo.h",
            ".rustfmt.toml",
        ] {
            assert!(is_source(Path::new(source)), "{source}");
        }
    }
}
