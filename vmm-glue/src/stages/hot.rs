// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a guest has in its memory from the start: the first script, the files that every boot reads, and the module for the rest.
//!
//! The archive has them below `/hot`: `lab` lies over the lab's own files, `tree` over the Debian tree. Both hold copies only, so that a file
//! that is not in them is found where it came from. It must not know what the files are for.

use std::collections::HashSet;
use std::fs;
use std::fs::File;
use std::io::BufWriter;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

use super::guest::install;
use super::kernel::Kernel;
use super::shop::Bench;
use super::shop::Shop;
use super::shop::WORK;
use super::shop::tool_spec;
use crate::cache::Entry;
use crate::initramfs;

/// The archive.
pub const ARCHIVE: &str = "initramfs";
/// Folder in which it is laid out.
const FRAME: &str = "frame";
/// The lab's own files that every boot reads; of modules, their indexes and those below `updates`, too.
const OWN: [&str; 4] = [
    "opt/globalfifo/agent",
    "opt/globalfifo/driver",
    "opt/globalfifo/start",
    "etc/udev/rules.d/99-globalfifo.rules",
];
const INDEXES: [&str; 3] = ["modules.dep", "modules.dep.bin", "modules.softdep"];
/// Where the kernel keeps the module that makes the root writable.
const OVERLAY: &str = "kernel/fs/overlayfs/overlay.ko.xz";

/// The list of the tree's files.
pub fn list(repository: &Path) -> PathBuf {
    repository.join("images/hot")
}

/// Makes the archive, in the directory where the guest's files have been put together.
pub fn pack(shop: &Shop, tree: &Entry, kernel: &Kernel, bench: &mut Bench<'_>) -> Result<()> {
    let frame = bench.dir.join(FRAME);
    for dir in ["proc", "sys", "tmp", "lab", "tree", "hot/lab", "hot/tree"] {
        crate::cache::create_dirs(&frame.join(dir))?;
    }
    std::os::unix::fs::symlink("hot/tree/usr/bin", frame.join("bin"))?;
    install(&bench.dir.join("init"), &frame.join("init"), 0o755)?;
    let modules = Path::new("usr/lib/modules").join(&kernel.release);
    let root = bench.dir.join("root");
    let own = OWN.iter().map(PathBuf::from);
    for path in own.chain(INDEXES.iter().map(|name| modules.join(name))) {
        if let Ok(meta) = root.join(&path).metadata() {
            let to = frame.join("hot/lab").join(&path);
            install(&root.join(&path), &to, meta.permissions().mode())?;
        }
    }
    let view = shop.view(tree.path(), bench.dir);
    let updates = modules.join("updates");
    for module in crate::cache::entries(&root.join(&updates)) {
        let path = updates.join(module.file_name().unwrap_or_default());
        let to = Path::new(FRAME).join("hot/lab").join(&path);
        install(&module, &bench.dir.join(&to), 0o644)?;
        // Symbols for debuggers are nine tenths of it.
        let strip = tool_spec(&view, "strip").arg("--strip-debug");
        bench.run(&strip.arg(Path::new(WORK).join(&to)))?;
    }
    let overlay = root.join(&modules).join(OVERLAY);
    if overlay.exists() {
        install(&overlay, &frame.join("overlay.ko.xz"), 0o644)?;
        let unpack = tool_spec(&view, "xz").arg("--decompress");
        bench.run(&unpack.arg(Path::new(WORK).join(FRAME).join("overlay.ko.xz")))?;
    }
    let hot = hot(shop, tree)?;
    let path = bench.dir.join(ARCHIVE);
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut archive = BufWriter::new(file);
    initramfs::append(&mut archive, Path::new(""), &frame, &|_| true)?;
    let place = Path::new("hot/tree");
    initramfs::append(&mut archive, place, tree.path(), &|path| hot.contains(path))?;
    archive.flush()?;
    crate::cache::remove(&frame)
}

/// Files of the tree that are on the list, and the folders that lead to them.
fn hot(shop: &Shop, tree: &Entry) -> Result<HashSet<PathBuf>> {
    let path = list(&shop.repository);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut hot = HashSet::new();
    let root = glob::Pattern::escape(&tree.path().to_string_lossy());
    for pattern in text.lines().filter(|line| !line.starts_with('#')) {
        for found in glob::glob(&format!("{root}/{pattern}"))? {
            let found = found?;
            let relative = found.strip_prefix(tree.path())?;
            hot.extend(relative.ancestors().map(Path::to_owned));
        }
    }
    Ok(hot)
}
