// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The userland of a guest of another architecture than this machine's: packages that are unpacked and not configured, for nothing of them
//! can run here. What their configuration would have made is the same on every architecture, and the tree has it.
//!
//! It must not know what the guest does with it.

use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;

use super::Arch;
use super::layer;
use super::shop::Bench;
use super::shop::Shop;
use super::shop::WORK;
use super::shop::script_spec;
use crate::cache::Entry;
use crate::key::Key;
use crate::key::KeyBuilder;

/// Its name in the cache.
pub const STAGE: &str = "userland";
/// The cache's name for packages added to it.
pub const LAYER_STAGE: &str = "userland-layer";
/// The directory of an entry that is the guest's root.
const ROOT: &str = "root";
/// apt's configuration, in the directory of the stage.
const CONFIG: &str = "apt.conf";
/// What dpkg would have written of the packages, for those that are added later.
const STATUS: &str = "status";

const FETCH: &str = r#"
mkdir -p lists/partial archives/partial new
apt-get -q update
if ! apt-get -q -y --download-only --no-install-recommends install $PACKAGES; then
    apt-cache pkgnames >names
    exit 100
fi
unpack() {
    dpkg-deb --fsys-tarfile "$1" | tar -x -p --no-same-owner --keep-directory-symlink --exclude='./dev/*' -C new
    dpkg-deb -f "$1" | sed '1a Status: install ok installed' >>status
    echo >>status
}
# The links that all others' files are put behind.
for deb in archives/base-files_*.deb; do [ ! -e "$deb" ] || unpack "$deb"; done
for deb in archives/*.deb; do
    case $deb in archives/base-files_*) ;; *) unpack "$deb" ;; esac
done
# A folder of this name in place of base-files' link would hide all that is behind the link.
for dir in bin sbin lib; do
    [ -L "new/$dir" ] || [ ! -d "new/$dir" ] || { echo "a package has files below /$dir, outside /usr"; exit 1; }
done
rm -rf lists archives apt.conf
"#;
/// From the tree: files below /etc that no package has, links to what is chosen among alternatives.
const CONFIGURE: &str = r#"
cp -a --update=none /etc/. new/etc/
rm -f new/etc/ld.so.cache new/etc/apt/sources.list.d/backports.list
for link in /usr/bin/* /usr/sbin/*; do
    case $(readlink "$link") in
    /etc/alternatives/*)
        target=$(readlink "/etc/alternatives/${link##*/}") || continue
        [ -e "new$link" ] || [ ! -e "new$target" ] || cp -a "$link" "new$link"
        ;;
    esac
done
mkdir -p new/var/lib/dpkg new/proc new/sys new/dev new/run new/tmp new/root
cp status new/var/lib/dpkg/status
"#;

/// apt for packages of an architecture, whatever the tree's is, with lists and packages of its own.
fn apt_config(arch: Arch) -> String {
    let debian = arch.debian();
    format!(
        "APT::Architecture \"{debian}\";\nAPT::Architectures {{ \"{debian}\"; }};\nAPT::Sandbox::User \"root\";\n\
         Dir::State::lists \"{WORK}/lists\";\nDir::State::status \"{WORK}/{STATUS}\";\nDir::Cache::archives \"{WORK}/archives\";\n\
         Dir::Cache::pkgcache \"\";\nDir::Cache::srcpkgcache \"\";\nDebug::NoLocking \"1\";\n"
    )
}

/// Makes apt in a view of this directory fetch for this architecture: variables for [`script_spec`].
pub fn apt_for(arch: Arch, dir: &Path) -> Result<(&'static str, String)> {
    fs::write(dir.join(CONFIG), apt_config(arch))
        .with_context(|| format!("cannot write to {}", dir.display()))?;
    Ok(("APT_CONFIG", format!("{WORK}/{CONFIG}")))
}

/// What it is made from.
pub fn key(shop: &Shop) -> Key {
    KeyBuilder::new(STAGE)
        .field("tree", &super::tree::key(shop).id)
        .field("architecture", shop.arch.debian())
        .field("packages", &shop.recipe.foreign.packages.join(" "))
        .field(
            "script",
            &[FETCH, CONFIGURE, &apt_config(shop.arch)].concat(),
        )
        .finish()
}

/// The guest's root, in an entry.
pub fn root(entry: &Path) -> std::path::PathBuf {
    entry.join(ROOT)
}

/// The userland for this shop's architecture.
pub fn obtain(shop: &Shop, tree: &Entry) -> Result<Entry> {
    let what = format!("fetching a userland for {}", shop.arch);
    shop.obtain(STAGE, &key(shop), &what, |bench| {
        fs::write(bench.dir.join(STATUS), "")?;
        let packages = shop.recipe.foreign.packages.join(" ");
        let fetch = fetch(shop, tree, bench, &format!("?essential {packages}"))?;
        bench.run(&fetch)?;
        let view = shop.bare_view(tree.path(), bench.dir);
        bench.script(&view, CONFIGURE, &[])?;
        Ok(fs::rename(bench.dir.join("new"), bench.dir.join(ROOT))?)
    })
}

fn fetch(
    shop: &Shop,
    tree: &Entry,
    bench: &Bench<'_>,
    packages: &str,
) -> Result<crate::child::Spec> {
    let (name, value) = apt_for(shop.arch, bench.dir)?;
    let view = shop.bare_view(tree.path(), bench.dir);
    let env = [(name, value.as_str()), ("PACKAGES", packages)];
    Ok(script_spec(&view, FETCH, &env))
}

/// What a layer of added packages is made from.
pub fn layer_key(shop: &Shop, packages: &[String]) -> Key {
    KeyBuilder::new(LAYER_STAGE)
        .field("userland", &key(shop).id)
        .field("packages", &layer::sorted(packages).join(" "))
        .finish()
}

/// The layer with these packages and what they need, unpacked and not configured; its files are under [`layer::UPPER`].
pub fn add(shop: &Shop, tree: &Entry, userland: &Entry, packages: &[String]) -> Result<Entry> {
    let what = format!("unpacking {} for the guest", packages.join(", "));
    shop.obtain(LAYER_STAGE, &layer_key(shop, packages), &what, |bench| {
        fs::copy(userland.join(STATUS), bench.dir.join(STATUS))
            .context("cannot copy the userland's list of packages")?;
        let fetch = fetch(shop, tree, bench, &layer::sorted(packages).join(" "))?;
        layer::install(bench, &fetch)?;
        Ok(fs::rename(
            bench.dir.join("new"),
            bench.dir.join(layer::UPPER),
        )?)
    })
}
