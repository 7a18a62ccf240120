// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab new`: a driver to start from, a copy of one of examples/skeletons under a name of the user's.
//!
//! This file must not know what a driver does.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

use crate::cli::Kind;
use crate::cli::Lang;
use crate::cli::NewArgs;
use crate::exit::usage;
use crate::stages;
use crate::ui;

/// Folder of the skeletons in the repository.
const SKELETONS: &str = "examples/skeletons";
/// The name that they have.
const PLACEHOLDER: &str = "skeleton";
/// Longest name: the module's, less what is put before and behind it in C.
const NAME_MAX: usize = 40;
/// Names that are taken: by files beside the skeleton, and by macros of the kernel like `module_init`.
const TAKEN: [&str; 5] = ["module", "helpers", "splice", "kapi", "bindings"];
/// What a Rust skeleton stands on.
const KAPI: [&str; 5] = [
    "guest-driver/kapi",
    "guest-driver/helpers.c",
    "guest-driver/splice.c",
    "guest-driver/bindings.h",
    "guest-driver/include",
];

/// Makes it, and says what to do with it.
pub fn new(args: &NewArgs) -> Result<u8> {
    let path = &args.path;
    let name = module_name(path)?;
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    if path.symlink_metadata().is_ok() {
        return Err(usage(format!(
            "{}: it exists; name a folder that does not",
            path.display()
        )));
    }
    if let Some(parent) = parent.filter(|dir| !dir.is_dir()) {
        return Err(usage(format!(
            "{}: there is no folder {}",
            path.display(),
            parent.display()
        )));
    }
    let sources = sources(&stages::repository()?, args.kind, args.lang, &name)?;
    fs::create_dir(path).with_context(|| format!("cannot make {}", path.display()))?;
    if let Err(err) = write(path, &sources) {
        // Half a driver is of no use.
        let _ = fs::remove_dir_all(path);
        return Err(err);
    }
    ui::print(&advice(args));
    Ok(0)
}

fn advice(args: &NewArgs) -> String {
    let path = shell_words::quote(&args.path.to_string_lossy()).into_owned();
    let (what, device) = match args.kind {
        Kind::Memory => ("a FIFO in memory", " --fifo none"),
        Kind::Device => ("a driver of the virtio-fifo device", ""),
    };
    let lang = match args.lang {
        Lang::C => "C",
        Lang::Rust => "Rust",
    };
    format!(
        "{path}: {what}, in {lang}\n  \
         cargo lab module {path}        builds it\n  \
         cargo lab run --driver {path}{device}        a shell in a guest that has it\n  \
         cargo lab grade {path} --next        says what to write first\n\
         docs/your-driver.md says more."
    )
}

/// The module's name, from the folder's.
fn module_name(path: &Path) -> Result<String> {
    let given = path.file_name().unwrap_or_default().to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let begins_well = given.starts_with(|c: char| c.is_ascii_alphabetic());
    let refused = |why: &str| Err(usage(format!("{}: {why}", path.display())));
    if !begins_well || !given.chars().all(is_plain) || given.len() > NAME_MAX {
        return refused(&format!(
            "a module's name has letters, digits, _ and -, a letter first, and at most {NAME_MAX} of them"
        ));
    }
    let name = given.replace('-', "_");
    if TAKEN.contains(&name.as_str()) {
        return refused("that name is taken by a part of the skeleton; choose another");
    }
    Ok(name)
}

/// Files of a new driver: where each goes, and what is in it.
pub fn sources(
    repository: &Path,
    kind: Kind,
    lang: Lang,
    name: &str,
) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let (folder, others): (_, &[&str]) = match (kind, lang) {
        (Kind::Memory, Lang::C) => ("memory-c", &[]),
        (Kind::Device, Lang::C) => ("device-c", &["examples/irq/virtio_fifo.h"]),
        (Kind::Memory, Lang::Rust) => ("memory-rust", &KAPI),
        (Kind::Device, Lang::Rust) => (
            "device-rust",
            &[
                KAPI[0],
                KAPI[1],
                KAPI[2],
                KAPI[3],
                KAPI[4],
                "protocol/src/virtio_fifo.rs",
            ],
        ),
    };
    let mut sources = Vec::new();
    let skeleton = repository.join(SKELETONS).join(folder);
    for (path, to) in files(&skeleton, Path::new(""))? {
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .replace(PLACEHOLDER, name);
        let to = to.to_string_lossy().replace(PLACEHOLDER, name);
        sources.push((PathBuf::from(to), text.into_bytes()));
    }
    for other in others {
        let from = repository.join(other);
        let to = Path::new(from.file_name().unwrap_or_default());
        for (path, to) in files(&from, to)? {
            let bytes =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            sources.push((to, bytes));
        }
    }
    Ok(sources)
}

/// A file, or the files of a folder, with their names below `to`.
fn files(from: &Path, to: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    if from.is_file() {
        return Ok(vec![(from.to_owned(), to.to_owned())]);
    }
    let all = crate::key::files(from)?;
    anyhow::ensure!(!all.is_empty(), "{} has no files", from.display());
    let named = |path: PathBuf| {
        let name = to.join(path.strip_prefix(from).unwrap_or(&path));
        (path, name)
    };
    Ok(all.into_iter().map(named).collect())
}

/// Writes the files of a new driver into a folder.
pub fn write(folder: &Path, sources: &[(PathBuf, Vec<u8>)]) -> Result<()> {
    for (name, bytes) in sources {
        let path = folder.join(name);
        let why = || format!("cannot write {}", path.display());
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(why)?;
        }
        fs::write(&path, bytes).with_context(why)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;
    use regex::Regex;

    use super::*;
    use crate::grading::catalog::Catalog;

    #[test]
    fn a_module_is_named_after_its_folder() {
        for (path, name) in [
            ("my_fifo", "my_fifo"),
            ("a/b/my-fifo", "my_fifo"),
            ("f2", "f2"),
        ] {
            assert_eq!(module_name(Path::new(path)).unwrap(), name);
        }
    }

    #[test]
    fn a_name_that_kbuild_or_c_does_not_take_is_a_usage_error() {
        let long = "x".repeat(NAME_MAX + 1);
        for path in [
            "2fifo", "_x", "my fifo", "fifo.c", "..", "/", "", "ä", &long, "module", "helpers",
        ] {
            let err = module_name(Path::new(path)).unwrap_err();
            assert_eq!(crate::exit::of(&err).0, crate::exit::USAGE, "{path}");
        }
    }

    #[test]
    fn every_todo_names_a_rule_and_nothing_keeps_the_placeholder() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let catalog = Catalog::load(repository).unwrap();
        let todo = Regex::new(r"TODO\(([a-z.]+)\)").unwrap();
        for kind in Kind::value_variants() {
            for lang in Lang::value_variants() {
                let sources = sources(repository, *kind, *lang, "my_fifo").unwrap();
                let mut rules = Vec::new();
                for (path, bytes) in &sources {
                    let text = String::from_utf8_lossy(bytes);
                    for found in todo.captures_iter(&text) {
                        assert!(catalog.find(&found[1]).unwrap().must, "{}", &found[1]);
                        rules.push(found[1].to_owned());
                    }
                    assert!(!text.contains(PLACEHOLDER), "{}", path.display());
                    assert!(!path.to_string_lossy().contains(PLACEHOLDER));
                    assert!(text.contains("SPDX-License-Identifier"));
                }
                assert!(rules.contains(&"read.data".to_owned()), "{kind:?} {lang:?}");
                assert!(rules.len() > 10, "{kind:?} {lang:?}");
            }
        }
    }
}
