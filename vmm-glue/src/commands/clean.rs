// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab clean`: frees the cache, never under a running lab.

use anyhow::Result;

use crate::cache;
use crate::cache::Cache;
use crate::cli::CleanArgs;
use crate::scratch;
use crate::stages::cross;
use crate::stages::debug;
use crate::stages::kernel;
use crate::stages::tree;
use crate::stages::userland;
use crate::ui;

/// What takes minutes to make again.
const KEPT: [&str; 8] = [
    tree::STAGE,
    cross::STAGE,
    userland::STAGE,
    kernel::STAGE,
    kernel::RT_STAGE,
    kernel::SERIES_STAGE,
    debug::STAGE,
    debug::COMPILER_STAGE,
];

/// Removes what is quickly made again; with `--all`, everything.
pub fn clean(args: &CleanArgs) -> Result<u8> {
    let Some(cache) = Cache::open_exclusive()? else {
        ui::say(&format!(
            "nothing to free: there is no cache in {}",
            cache::location()?.display()
        ));
        return Ok(0);
    };
    scratch::remove_left_behind(&std::env::temp_dir());
    scratch::remove_left_behind(std::path::Path::new("/tmp"));
    let before = cache::size(cache.root());
    if args.all {
        let root = cache.root().to_owned();
        ui::say("removing all of the cache");
        cache.forget_all()?;
        ui::print(&format!(
            "freed {} in {}",
            ui::bytes(before.saturating_sub(cache::size(&root))),
            root.display()
        ));
        return Ok(0);
    }
    let kept = |name: &str| KEPT.contains(&name);
    for stage in cache::entries(&cache.root().join("stages")) {
        let name = stage
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if kept(&name) {
            // Interrupted attempts at them are no use to anybody.
            for partial in cache::entries(&stage)
                .into_iter()
                .filter(|path| path.extension().is_some_and(|ext| ext == "partial"))
            {
                cache::remove(&partial)?;
            }
        } else {
            ui::say(&format!("removing the {name}"));
            cache.forget(&stage)?;
        }
    }
    for log in cache::entries(&cache.root().join("logs")) {
        cache::remove(&log)?;
    }
    // This lab has the cache alone: nobody holds any of them.
    for lock in cache::entries(&cache.root().join("locks")) {
        if lock.file_name() != Some(std::ffi::OsStr::new(cache::IN_USE)) {
            cache::remove(&lock)?;
        }
    }
    let after = cache::size(cache.root());
    ui::print(&format!(
        "freed {} in {}; {} remain, `cargo lab clean --all` frees them too",
        ui::bytes(before.saturating_sub(after)),
        cache.root().display(),
        ui::bytes(after)
    ));
    Ok(0)
}
