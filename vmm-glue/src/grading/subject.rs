// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is graded: a path of the user's, and the module that it is or that is built from it.
//!
//! The only file of the grader that knows how modules are built. It must not know how they are tested.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

use super::outcome::End;
use crate::cache::Entry;
use crate::child;
use crate::exit;
use crate::exit::usage;
use crate::key::KeyBuilder;
use crate::stages;
use crate::stages::System;
use crate::stages::kernel;
use crate::stages::kernel::Kernel;
use crate::stages::module;
use crate::stages::shop::Shop;
use crate::stages::shop::WORK;
use crate::stages::shop::tool_spec;

/// Its name in the cache.
const STAGE: &str = "graded";
/// Licences that the kernel takes for compatible with its own (include/linux/license.h).
const LICENSES: [&str; 6] = [
    "GPL",
    "GPL v2",
    "GPL and additional rights",
    "Dual BSD/GPL",
    "Dual MIT/GPL",
    "Dual MPL/GPL",
];

/// A module, and where it comes from.
#[derive(Debug)]
pub struct Subject {
    /// As the user wrote it.
    pub given: PathBuf,
    /// The module's file.
    pub ko: PathBuf,
    /// The module's name.
    pub name: String,
    license: Option<String>,
    _entry: Option<Entry>,
}

/// The module of a path, or how `build.compiles` fails.
pub fn obtain(
    shop: &Shop,
    (tree, kernel): (&Entry, &Kernel),
    system: System,
    given: &Path,
) -> Result<Result<Subject, End>> {
    let path = given
        .canonicalize()
        .map_err(|err| usage(format!("{}: {err}", given.display())))?;
    let built = if path == shop.repository.join(module::DRIVER) {
        ours(shop, tree, kernel, system)
    } else if path.extension().is_some_and(|ext| ext == "ko") {
        Ok((path.clone(), None))
    } else {
        one(&path, build(shop, tree, kernel, system, &path)?)
    };
    match built {
        Ok((ko, entry)) => Ok(Ok(describe(shop, tree, given, ko, entry)?)),
        Err(err) => {
            crate::cancel::check()?;
            let (status, message) = exit::of(&err);
            if status == exit::USAGE {
                return Err(err);
            }
            let end = End::fail(&format!("make {}", given.display()), "a module", message);
            Ok(Err(end))
        }
    }
}

type Built = (PathBuf, Option<Entry>);

fn ours(shop: &Shop, tree: &Entry, kernel: &Kernel, system: System) -> Result<Built> {
    match module::obtain(shop, tree, kernel, system)? {
        stages::PathOrEntry::Entry(entry, inside) => Ok((entry.join(inside), Some(entry))),
        other => Ok((other.path().context("the driver has no file")?, None)),
    }
}

/// The only module of a folder.
fn one(path: &Path, built: Result<Entry>) -> Result<Built> {
    let entry = built?;
    let modules = modules(&entry);
    match modules.as_slice() {
        [ko] => Ok((ko.clone(), Some(entry))),
        [] => anyhow::bail!("make made no module: obj-m names none"),
        _ => Err(usage(format!(
            "{}: {} modules are made there; name the .ko or the source file of one",
            path.display(),
            modules.len()
        ))),
    }
}

/// Modules of an entry that [`build`] has made.
pub fn modules(entry: &Entry) -> Vec<PathBuf> {
    let mut found = crate::cache::entries(entry.path());
    found.retain(|path| path.extension().is_some_and(|ext| ext == "ko"));
    found.sort();
    found
}

/// Builds a folder with a Kbuild or Makefile of declarations, or one C file. The outer result is about the path, the inner one about make.
pub fn build(
    shop: &Shop,
    tree: &Entry,
    kernel: &Kernel,
    system: System,
    path: &Path,
) -> Result<Result<Entry>> {
    let files = sources(path)?;
    let mut key =
        KeyBuilder::new(STAGE).field("kernel", &stages::kernel_key(shop, system.kernel)?.id);
    for (name, bytes) in &files {
        key = key.field(
            &name.display().to_string(),
            blake3::hash(bytes).to_hex().as_str(),
        );
    }
    let what = format!("building {}", path.display());
    Ok(shop.obtain(STAGE, &key.finish(), &what, |bench| {
        let folder = bench.dir.join("source");
        for (name, bytes) in &files {
            let to = folder.join(name);
            fs::create_dir_all(to.parent().unwrap_or(&folder))?;
            fs::write(to, bytes)?;
        }
        let mut view = shop.view(tree.path(), bench.dir);
        kernel.show(&mut view);
        let make = tool_spec(&view, "make")
            .args(["-C", &format!("{}/build", kernel::PLACE), "-j2"])
            .arg(format!("M={WORK}/source"))
            .arg("modules")
            .cwd("/");
        bench.run(&make.args(kernel.make_variables()))?;
        for made in crate::cache::entries(&folder) {
            if made.extension().is_some_and(|ext| ext == "ko") {
                fs::copy(&made, bench.dir.join(made.file_name().unwrap_or_default()))?;
            }
        }
        crate::cache::remove(&folder)
    }))
}

/// Files of the copy that is built, by their names in it.
fn sources(path: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let read = |path: &Path| {
        fs::read(path).map_err(|err| usage(format!("cannot read {}: {err}", path.display())))
    };
    if path.is_dir() {
        let mut files = Vec::new();
        for file in crate::key::files(path)? {
            let name = file.strip_prefix(path).unwrap_or(&file).to_owned();
            if module::is_source(&name) {
                files.push((name, read(&file)?));
            }
        }
        return Ok(files);
    }
    if path.extension().is_none_or(|ext| ext != "c") {
        return Err(usage(format!(
            "{}: not a module (.ko), a C file (.c) or a folder with a Kbuild",
            path.display()
        )));
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let kbuild = format!("obj-m := {stem}.o\n").into_bytes();
    let name = PathBuf::from(path.file_name().unwrap_or_default());
    Ok(vec![(PathBuf::from("Kbuild"), kbuild), (name, read(path)?)])
}

/// Reads what the module says of itself.
pub fn describe(
    shop: &Shop,
    tree: &Entry,
    given: &Path,
    ko: PathBuf,
    entry: Option<Entry>,
) -> Result<Subject> {
    let view = shop.host_view(tree.path());
    let said = child::output(&tool_spec(&view, "modinfo").arg(&ko).cwd("/"))
        .map_err(|err| usage(format!("{}: not a kernel module: {err:#}", ko.display())))?;
    let field = |name: &str| {
        said.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value.trim().to_owned())
    };
    let stem = ko.file_stem().unwrap_or_default().to_string_lossy();
    Ok(Subject {
        given: given.to_owned(),
        name: field("name").unwrap_or_else(|| stem.replace('-', "_")),
        license: field("license"),
        ko,
        _entry: entry,
    })
}

impl Subject {
    /// `build.license`.
    pub fn license(&self) -> End {
        match &self.license {
            Some(name) if LICENSES.contains(&name.as_str()) => End::pass(),
            other => End::fail(
                "modinfo -F license",
                "a licence that the kernel takes for GPL-compatible",
                other.as_deref().unwrap_or("no MODULE_LICENSE at all"),
            ),
        }
    }
}
