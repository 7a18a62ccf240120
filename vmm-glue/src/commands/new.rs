// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab new`: a driver to start from, a copy of one of examples/skeletons under a name of the user's.
//!
//! This file must not know what a driver does.

use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;

use crate::cli::Kind;
use crate::cli::Lang;
use crate::cli::NewArgs;
use crate::exit::usage;
use crate::files;
use crate::skeletons;
use crate::stages;
use crate::ui;

/// Longest name: the module's, less what is put before and behind it in C.
const NAME_MAX: usize = 40;
/// Names that are taken: by files beside the skeleton, and by macros of the kernel like `module_init`.
const TAKEN: [&str; 5] = ["module", "helpers", "splice", "kapi", "bindings"];
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
    let sources = skeletons::sources(&stages::repository()?, args.kind, args.lang, &name)?;
    fs::create_dir(path).with_context(|| format!("cannot make {}", path.display()))?;
    if let Err(err) = files::write(path, &sources) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
