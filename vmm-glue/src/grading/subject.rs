// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is graded: a path of the user's, and the module that it is or that is built from it.
//!
//! The only file of the grader that knows how modules are built. It must not know how they are tested.

use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

use super::outcome::End;
use crate::cache::Entry;
use crate::child;
use crate::exit;
use crate::exit::usage;
use crate::stages;
use crate::stages::System;
use crate::stages::kernel::Kernel;
use crate::stages::module;
use crate::stages::own;
use crate::stages::own::source::Source;
use crate::stages::shop::Shop;
use crate::stages::shop::tool_spec;

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
    let built = if own::is_ours(&path, &shop.repository) {
        ours(shop, tree, kernel, system)
    } else if path.extension().is_some_and(|ext| ext == "ko") {
        Ok((path, None))
    } else {
        let source = Source::of(given, &shop.repository)?;
        own::obtain(shop, tree, kernel, system.kernel, &source)
            .map_err(|err| own::explained(shop, &source, err))
            .and_then(|built| built.only(given))
            .map(|(entry, inside)| (entry.join(inside), Some(entry)))
    };
    match built {
        Ok((ko, entry)) => Ok(Ok(describe(shop, tree, given, ko, entry)?)),
        Err(err) => {
            crate::cancel::check()?;
            let (status, message) = exit::of(&err);
            if status == exit::USAGE {
                return Err(err);
            }
            let seen = if message.is_empty() {
                "the compiler's messages above".to_owned()
            } else {
                message
            };
            let done = format!("cargo lab module {}", given.display());
            Ok(Err(End::fail(&done, "a module", seen)))
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
