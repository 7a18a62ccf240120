// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The Debian tree: a whole userland with all tools, in a directory.

use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;

use super::Arch;
use super::cross;
use super::mmdebstrap;
use super::mmdebstrap::Mmdebstrap;
use super::shop::Bench;
use super::shop::Shop;
use crate::cache::Entry;
use crate::child::Place;
use crate::child::Spec;
use crate::key::Key;
use crate::key::KeyBuilder;

/// Its name in the cache.
pub const STAGE: &str = "tree";
/// Names another mirror than Debian's own.
const MIRROR: &str = "GLOBALFIFO_MIRROR";

/// Adds the backports, from the mirror that mmdebstrap has chosen itself, and prefers them for some packages.
pub const SOURCES_HOOK: &str = r#"
sed -n "s/ $SUITE / $SUITE-backports /p" "$1/etc/apt/sources.list" | head -n 1 >"$1/etc/apt/sources.list.d/backports.list"
printf 'Package: %s\nPin: release n=%s-backports\nPin-Priority: 600\n' "$BACKPORTS" "$SUITE" >"$1/etc/apt/preferences.d/backports"
"#;

/// What a tree is made from.
pub fn key(shop: &Shop) -> Key {
    let recipe = &shop.recipe;
    KeyBuilder::new(STAGE)
        .field("suite", &recipe.suite)
        .field("backports", &recipe.backports.join(" "))
        .field("packages", &packages(shop).join(" "))
        .field("mirror", &mirror().unwrap_or_default())
        .field("hook", SOURCES_HOOK)
        .finish()
}

/// The recipe's, behind QEMU for guests of this machine's architecture.
fn packages(shop: &Shop) -> Vec<&str> {
    let emulator = shop.host.emulator.as_str();
    let others = shop.recipe.packages.iter().map(String::as_str);
    std::iter::once(emulator).chain(others).collect()
}

/// A mirror that the user names.
pub fn mirror() -> Option<String> {
    std::env::var(MIRROR)
        .ok()
        .filter(|mirror| !mirror.is_empty())
}

/// The tree of the recipe.
pub fn obtain(shop: &Shop) -> Result<Entry> {
    let what = "making a Debian tree with QEMU, compilers and the guest's userland";
    shop.obtain(STAGE, &key(shop), what, |bench| {
        shop.enough_room("a first set-up", shop.recipe.room.bytes)?;
        let tool = mmdebstrap::obtain(shop, bench)?;
        let scratch = mmdebstrap::scratch(&tool)?;
        let made = if nix::unistd::geteuid().is_root() {
            make_as_root(shop, bench, &tool, scratch.path())
        } else {
            make_as_user(shop, bench, &tool, scratch.path())
        };
        tool.remove(scratch.path());
        made?;
        finish(bench.dir)
    })
}

/// The tree of the recipe, and what guests of another architecture take besides: from here on every view has it.
pub fn obtain_with_tools(shop: &Shop) -> Result<Entry> {
    let tree = obtain(shop)?;
    if shop.arch.is_foreign() {
        shop.have_cross_tools(cross::obtain(shop, &tree)?);
    }
    Ok(tree)
}

fn mmdebstrap(shop: &Shop, tool: &Mmdebstrap, mode: &str, target: &Path) -> Spec {
    let recipe = &shop.recipe;
    let spec = tool
        .spec()
        .args([
            "--variant=apt",
            "--skip=cleanup/apt/lists",
            r#"--aptopt=Apt::Install-Recommends "false""#,
        ])
        .arg(format!("--mode={mode}"))
        // mmdebstrap takes a hook with several lines for a file's name first.
        .arg(format!(
            "--setup-hook={}",
            SOURCES_HOOK.trim().replace('\n', "; ")
        ))
        .arg(format!("--include={}", packages(shop).join(",")))
        .arg(&recipe.suite)
        .arg(target)
        .env("SUITE", &recipe.suite)
        .env("BACKPORTS", recipe.backports.join(" "));
    mirror().into_iter().fold(spec, Spec::arg)
}

/// Straight into the directory, in namespaces so that no mount and no process is left behind.
fn make_as_root(
    shop: &Shop,
    bench: &mut Bench<'_>,
    tool: &Mmdebstrap,
    scratch: &Path,
) -> Result<()> {
    let make = mmdebstrap(shop, tool, "root", bench.dir).env("TMPDIR", scratch);
    bench.run(&make.place(Place::Isolated))
}

/// Through a tar stream: what mmdebstrap makes belongs to subordinate ids, what gets unpacked belongs to the user.
fn make_as_user(
    shop: &Shop,
    bench: &mut Bench<'_>,
    tool: &Mmdebstrap,
    scratch: &Path,
) -> Result<()> {
    let make = mmdebstrap(shop, tool, "unshare", Path::new("-")).env("TMPDIR", scratch);
    let unpack = "set -o pipefail; dir=$1; shift; \"$@\" | tar --extract --no-same-owner --exclude='./dev/*' --directory=\"$dir\"";
    let mut spec = Spec::new("bash")
        .args(["-c", unpack, "bash"])
        .arg(bench.dir)
        .args(&make.argv)
        .environment(make.environment)
        .usual_umask()
        .place(Place::Group);
    spec.env = make.env;
    bench.run(&spec)
}

/// What the lab expects of a tree beyond Debian's own.
fn finish(tree: &Path) -> Result<()> {
    let resolver = tree.join("etc/resolv.conf");
    let _ = fs::remove_file(&resolver);
    fs::write(&resolver, "").context("cannot write to the tree")?;
    anyhow::ensure!(
        tree.join(Arch::host().qemu()).is_file(),
        "the Debian tree has no QEMU"
    );
    Ok(())
}
