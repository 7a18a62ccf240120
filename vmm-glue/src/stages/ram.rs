// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The userland of a root in RAM (`--root ram`): a part of the Debian tree, as an archive that the kernel unpacks at its start.
//!
//! What the lab adds to it (modules, driver, programs) differs from build to build and is appended when a machine starts.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufWriter;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;

use super::packages::Packages;
use super::shop::Shop;
use super::userland;
use crate::cache::Entry;
use crate::initramfs;
use crate::key::Key;
use crate::key::KeyBuilder;

/// Its name in the cache.
pub const STAGE: &str = "ram-root";
/// The archive.
pub const ARCHIVE: &str = "root.cpio";
/// Changed when the archive is made differently.
const FORM: &str = "1";

/// What the archive is made from.
pub fn key(shop: &Shop) -> Key {
    let recipe = &shop.recipe.ram;
    let key = KeyBuilder::new(STAGE)
        .field("tree", &super::tree::key(shop).id)
        .field("packages", &recipe.packages.join(" "))
        .field("omit", &recipe.omit.join(" "))
        .field("form", FORM);
    // All of a userland of another architecture is what such a root consists of.
    if shop.arch.is_foreign() {
        key.field("userland", &userland::key(shop).id).finish()
    } else {
        key.finish()
    }
}

/// The archive for this tree, or for a userland of another architecture.
pub fn obtain(shop: &Shop, tree: &Entry, userland: Option<&Entry>) -> Result<Entry> {
    let what = "packing the userland of a root in RAM";
    shop.obtain(STAGE, &key(shop), what, |bench| {
        let recipe = &shop.recipe.ram;
        let (root, others) = match userland {
            Some(userland) => (userland::root(userland.path()), HashSet::new()),
            None => {
                let packages = Packages::of(tree.path())?;
                let kept = packages.closure(&recipe.packages)?;
                let others = packages.files_of_others(tree.path(), &kept)?;
                (tree.path().to_owned(), others)
            }
        };
        let wanted = |path: &Path| {
            let parents = path.ancestors().skip(1);
            let omitted = |dir: &Path| recipe.omit.iter().any(|omit| Path::new(omit) == dir);
            let is_file =
                recipe.omit.iter().any(|omit| Path::new(omit) == path) && !root.join(path).is_dir();
            !is_file
                && !parents.into_iter().any(omitted)
                && !others.contains(&*path.to_string_lossy())
        };
        let path = bench.dir.join(ARCHIVE);
        let file =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let mut archive = BufWriter::new(file);
        initramfs::append(&mut archive, Path::new(""), &root, &wanted)?;
        archive.flush()?;
        Ok(())
    })
}
