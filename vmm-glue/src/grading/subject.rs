// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is graded: a path of the user's, and the module that it is or that is built from it.
//!
//! The only file of the grader that knows how modules are built. It must not know how they are tested.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;

use super::catalog::Rule;
use super::outcome::End;
use super::outcome::Outcome;
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
use crate::testing::checkpatch;

/// Licences that the kernel takes for compatible with its own (include/linux/license.h).
const LICENSES: [&str; 6] = [
    "GPL",
    "GPL v2",
    "GPL and additional rights",
    "Dual BSD/GPL",
    "Dual MIT/GPL",
    "Dual MPL/GPL",
];

/// What modpost says of a module without one.
const NO_LICENSE: &str = "missing MODULE_LICENSE";

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
    /// What the compilers said, if it was built here.
    messages: Option<Vec<String>>,
    /// C, Rust and Kbuild files of the source, by their names in it.
    pub sources: Vec<(PathBuf, PathBuf)>,
    _entry: Option<Entry>,
}

/// A source of which no module has come.
#[derive(Debug)]
pub struct NotBuilt {
    /// How `build.compiles` fails.
    pub end: End,
    /// It is for want of MODULE_LICENSE.
    has_no_license: bool,
}

/// The ends of all rules for a source that does not compile: one of them fails, or two, and no other is reached.
pub fn not_built(rules: &[&Rule], failed: &NotBuilt, each: &mut dyn FnMut(Outcome) -> bool) {
    for rule in rules {
        let end = match rule.id.as_str() {
            "build.compiles" => failed.end.clone(),
            "build.license" if failed.has_no_license => no_license(None),
            _ => End::unreached("the driver does not compile"),
        };
        if !each(end.outcome(&rule.id, rule.must, Duration::ZERO)) {
            return;
        }
    }
}

fn no_license(found: Option<&str>) -> End {
    End::fail(
        "modinfo -F license",
        "a licence that the kernel takes for GPL-compatible",
        found.unwrap_or("no MODULE_LICENSE at all"),
    )
}

/// The module of a path, or how `build.compiles` fails.
pub fn obtain(
    shop: &Shop,
    (tree, kernel): (&Entry, &Kernel),
    system: System,
    given: &Path,
) -> Result<Result<Subject, NotBuilt>> {
    let path = given
        .canonicalize()
        .map_err(|err| usage(format!("{}: {err}", given.display())))?;
    let mut has_no_license = false;
    let mut messages = None;
    let mut sources = Vec::new();
    if path.extension().is_none_or(|ext| ext != "ko") {
        let source = Source::of(given, &shop.repository)?;
        let files = source.files.iter().filter_map(|(name, from)| {
            let name = name.strip_prefix(&source.place).ok()?;
            checkpatch::is_checked(name).then(|| (name.to_owned(), from.clone()))
        });
        sources.extend(files);
    }
    let built = if own::is_ours(&path, &shop.repository) {
        ours(shop, tree, kernel, system)
    } else if path.extension().is_some_and(|ext| ext == "ko") {
        Ok((path, None))
    } else {
        let source = Source::of(given, &shop.repository)?;
        own::obtain(shop, tree, kernel, system.kernel, &source)
            .map_err(|err| {
                has_no_license = own::said(&err).is_some_and(|said| said.contains(NO_LICENSE));
                own::explained(shop, &source, err)
            })
            .and_then(|built| {
                messages = Some(built.messages.clone());
                built.only(given)
            })
            .map(|(entry, inside)| (entry.join(inside), Some(entry)))
    };
    match built {
        Ok((ko, entry)) => Ok(Ok(Subject {
            messages,
            sources,
            ..describe(shop, tree, given, ko, entry)?
        })),
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
            Ok(Err(NotBuilt {
                end: End::fail(&done, "a module", seen),
                has_no_license,
            }))
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
        messages: None,
        sources: Vec::new(),
        ko,
        _entry: entry,
    })
}

impl Subject {
    /// `build.warnings`.
    pub fn warnings(&self) -> End {
        match &self.messages {
            None => End::absent("it was not built by `cargo lab module`"),
            Some(lines) if lines.is_empty() => End::pass(),
            Some(lines) => End::fail(
                &format!("cargo lab module {}", self.given.display()),
                "a compiler that says nothing",
                lines.join("\n"),
            ),
        }
    }

    /// `build.license`.
    pub fn license(&self) -> End {
        match &self.license {
            Some(name) if LICENSES.contains(&name.as_str()) => End::pass(),
            other => no_license(other.as_deref()),
        }
    }
}
