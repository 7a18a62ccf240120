// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The sandbox in which a stranger's Makefile runs: bubblewrap inside the Debian tree. No network, no file of the host's but the copy of the
//! source, no capability, limits on time, address space, file sizes and output.
//!
//! This file must not know what is built.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Result;

use crate::cache::Entry;
use crate::child::Spec;
use crate::child::View;
use crate::stages::kernel;
use crate::stages::kernel::Kernel;
use crate::stages::layer;
use crate::stages::shop::Shop;
use crate::stages::shop::WORK;
use crate::stages::shop::tool_spec;

/// The cache's name for bubblewrap, which lies over the tree.
pub const STAGE: &str = "sandbox";
/// Where the copy of the source is seen.
pub const PLACE: &str = "/lab/module";
/// Its name in the directory of the stage that builds it.
pub const COPY: &str = "copy";
/// Files of the lab's own that lie over the tree, likewise.
const OVER: &str = "over";
/// Debian's package.
const PACKAGE: &str = "bubblewrap";
/// Most that make and all it starts may take, in seconds; a module of this kind takes a tenth of it on the slowest machine that we know.
pub const SECONDS_MAX: u32 = 900;
/// Bytes of output that are kept: a compiler that says more repeats itself.
pub const OUTPUT_MAX: usize = 4 << 20;
/// Status of timeout(1).
pub const TIMED_OUT: u8 = 124;

/// `uname -r` says which kernel the module is for, whichever the host has.
const UNAME: &str = r#"#!/bin/sh
case "$*" in
-r) echo @RELEASE@ ;;
*) exec /usr/bin/uname "$@" ;;
esac
"#;
/// Output that grows without end ends make. Address space of a process: 8 GiB. Size of a file: 1 GiB.
const RUN: &str = r#"
set -o pipefail
ulimit -v 8388608 -f 1048576 -c 0
timeout --kill-after=5 @SECONDS@ "$@" 2>&1 </dev/null | head -c @BYTES@
"#;

/// bubblewrap, installed once.
pub fn obtain(shop: &Shop, tree: &Entry) -> Result<Entry> {
    let packages = [PACKAGE.to_owned()];
    layer::obtain(shop, tree, STAGE, &packages, "builds of others' source")
}

/// What makes a build's result depend on this file.
pub fn recipe() -> String {
    format!("{UNAME}{RUN}{:?}", mounts(Path::new("")))
}

/// The tree with bubblewrap, the kernel, and the usual ways to the kernel. `dir` is the directory of the stage.
pub fn view(shop: &Shop, tree: &Entry, tool: &Entry, kernel: &Kernel, dir: &Path) -> Result<View> {
    let over = dir.join(OVER);
    let modules = over.join("usr/lib/modules").join(&kernel.release);
    fs::create_dir_all(&modules)?;
    for name in ["build", "source"] {
        symlink(format!("{}/{name}", kernel::PLACE), modules.join(name))?;
    }
    let bin = over.join("usr/local/bin");
    fs::create_dir_all(&bin)?;
    let uname = bin.join("uname");
    fs::write(&uname, UNAME.replace("@RELEASE@", &kernel.release))?;
    fs::set_permissions(&uname, fs::Permissions::from_mode(0o755))?;
    let mut view = shop.view(tree.path(), dir);
    kernel.show(&mut view);
    view.layers.push(tool.join(layer::UPPER));
    view.layers.push(over);
    Ok(view)
}

/// A command in the sandbox, in a folder of the copy.
pub fn spec(view: &View, place: &Path, words: &[String]) -> Spec {
    let run = RUN
        .replace("@SECONDS@", &SECONDS_MAX.to_string())
        .replace("@BYTES@", &OUTPUT_MAX.to_string());
    tool_spec(view, "bwrap")
        .args(mounts(place))
        .args(["--", "/bin/bash", "-c", &run, "sandbox"])
        .args(words)
        .cwd("/")
}

fn mounts(place: &Path) -> Vec<String> {
    let copy = format!("{WORK}/{COPY}");
    let place = Path::new(PLACE).join(place).display().to_string();
    let words = [
        "--unshare-net --unshare-ipc --unshare-uts --unshare-pid --unshare-cgroup-try",
        "--die-with-parent --new-session --cap-drop ALL --clearenv",
        "--setenv PATH /usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --setenv HOME /root --setenv LC_ALL C.UTF-8",
        "--ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/sbin /sbin --symlink usr/lib /lib --symlink usr/lib64 /lib64",
        "--ro-bind /etc/alternatives /etc/alternatives --ro-bind /etc/ld.so.cache /etc/ld.so.cache",
        "--ro-bind /etc/passwd /etc/passwd --ro-bind /etc/group /etc/group",
        "--dev /dev --proc /proc --tmpfs /tmp --dir /root",
    ];
    let fixed = words.iter().flat_map(|line| line.split_whitespace());
    fixed
        .chain(["--ro-bind", kernel::PLACE, kernel::PLACE])
        .chain(["--bind", &copy, PLACE, "--chdir", &place])
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandbox_has_no_network_no_rights_and_one_place_to_write() {
        let words = mounts(Path::new("sub"));
        for word in [
            "--unshare-net",
            "--unshare-pid",
            "--die-with-parent",
            "--clearenv",
        ] {
            assert!(words.iter().any(|found| found == word), "{word}");
        }
        let after = |word: &str| {
            let at = words.iter().position(|found| found == word).unwrap();
            words[at + 1].as_str()
        };
        assert_eq!(after("--cap-drop"), "ALL");
        assert_eq!(after("--bind"), "/lab/work/copy");
        assert_eq!(words.iter().filter(|word| *word == "--bind").count(), 1);
        assert_eq!(after("--chdir"), "/lab/module/sub");
    }
}
