// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the kernel unpacks at its start, unless the root is in RAM: the first script, busybox, and the module that makes the root writable.

use std::fs::File;
use std::io::BufWriter;
use std::io::Write;
use std::path::Path;

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
/// Folders that the first script mounts something on.
const MOUNT_POINTS: [&str; 5] = ["proc", "sys", "tmp", "lab", "tree"];
/// Where a kernel keeps the module, unless overlayfs is built in: Debian's is compressed, a user's own perhaps not.
const OVERLAY: &str = "kernel/fs/overlayfs/overlay.ko";

/// Makes the archive, in the directory where the guest's files have been put together.
pub fn pack(
    shop: &Shop,
    (tree, userland): (&Entry, &Path),
    kernel: &Kernel,
    bench: &mut Bench<'_>,
) -> Result<()> {
    let frame = bench.dir.join(FRAME);
    for dir in MOUNT_POINTS {
        crate::cache::create_dirs(&frame.join(dir))?;
    }
    install(&bench.dir.join("init"), &frame.join("init"), 0o755)?;
    let busybox = userland.join("usr/bin/busybox");
    install(&busybox, &frame.join("bin/busybox"), 0o755)?;
    let modules = Path::new("root/usr/lib/modules").join(&kernel.release);
    let overlay = bench.dir.join(modules).join(OVERLAY);
    let compressed = overlay.with_extension("ko.xz");
    if compressed.exists() {
        install(&compressed, &frame.join("overlay.ko.xz"), 0o644)?;
        let view = shop.view(tree.path(), bench.dir);
        let unpack = tool_spec(&view, "xz").arg("--decompress");
        bench.run(&unpack.arg(Path::new(WORK).join(FRAME).join("overlay.ko.xz")))?;
    } else if overlay.exists() {
        install(&overlay, &frame.join("overlay.ko"), 0o644)?;
    }
    let path = bench.dir.join(ARCHIVE);
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut archive = BufWriter::new(file);
    initramfs::append(&mut archive, Path::new(""), &frame, &|_| true)?;
    archive.flush()?;
    crate::cache::remove(&frame)
}
