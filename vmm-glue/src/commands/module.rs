// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab module`: a kernel module of the user's own, built for the guest's kernel.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

use crate::cli::ModuleArgs;
use crate::exit::usage;
use crate::stages;
use crate::stages::System;
use crate::stages::own;
use crate::stages::own::editor;
use crate::stages::own::source::Source;
use crate::stages::shop::Shop;
use crate::stages::tree;
use crate::ui;

/// Builds, and puts the result where the user wants it.
pub fn module(args: &ModuleArgs) -> Result<u8> {
    if let Some(folder) = args.output.as_deref().and_then(missing_folder) {
        return Err(usage(format!(
            "-o {}: there is no folder {}",
            args.output.as_deref().unwrap_or(Path::new("")).display(),
            folder.display()
        )));
    }
    let shop = Shop::open_for(args.arch)?;
    let system = System {
        arch: args.arch,
        kernel: args.kernel,
        ..System::default()
    };
    system.check().map_err(usage)?;
    let source = Source::of(&args.path, &shop.repository)?;
    let tree = tree::obtain_with_tools(&shop)?;
    let kernel = stages::kernel(&shop, &tree, args.kernel)?;
    if args.compile_commands {
        let written = editor::write(&shop, &tree, &kernel, args.kernel, &source)
            .map_err(|err| own::explained(&shop, &source, err))?;
        for path in written {
            ui::say(&format!("wrote {}", path.display()));
        }
        return Ok(0);
    }
    let built = own::obtain(&shop, &tree, &kernel, args.kernel, &source)
        .map_err(|err| own::explained(&shop, &source, err))?;
    for (from, to) in destinations(&built.modules, args.output.as_deref())? {
        put(&from, &to)?;
        ui::say(&format!("{} is for Linux {}", to.display(), kernel.release));
    }
    Ok(0)
}

/// The folder that a file is to be put in, if there is none.
fn missing_folder(output: &Path) -> Option<PathBuf> {
    if output.is_dir() {
        return None;
    }
    let folder = output.parent()?;
    let there = folder.as_os_str().is_empty() || folder.is_dir();
    (!there).then(|| folder.to_owned())
}

/// Where each module goes.
fn destinations(modules: &[PathBuf], output: Option<&Path>) -> Result<Vec<(PathBuf, PathBuf)>> {
    let output = output.unwrap_or(Path::new("."));
    if output.is_dir() {
        let to = |from: &PathBuf| {
            let name = from.file_name().unwrap_or_default();
            let to = if output == Path::new(".") {
                name.into()
            } else {
                output.join(name)
            };
            (from.clone(), to)
        };
        return Ok(modules.iter().map(to).collect());
    }
    match modules {
        [one] => Ok(vec![(one.clone(), output.to_owned())]),
        several => Err(usage(format!(
            "-o {}: there are {} modules ({}), name a folder",
            output.display(),
            several.len(),
            own::file_names(several)
        ))),
    }
}

/// Replaced whole, for somebody may be loading the old one.
fn put(from: &Path, to: &Path) -> Result<()> {
    let folder = match to.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let why = || format!("cannot write {}", to.display());
    let new = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .with_context(why)?;
    fs::copy(from, new.path()).with_context(why)?;
    new.persist(to).with_context(why)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_modules_go_into_a_folder_and_one_into_a_file_of_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let modules = [PathBuf::from("/c/a.ko"), PathBuf::from("/c/b.ko")];
        let found = destinations(&modules, Some(dir.path())).unwrap();
        assert_eq!(found[1].1, dir.path().join("b.ko"));
        let file = dir.path().join("x.ko");
        assert_eq!(destinations(&modules[..1], Some(&file)).unwrap()[0].1, file);
        assert_eq!(
            destinations(&modules[..1], None).unwrap()[0].1,
            Path::new("a.ko")
        );
        let err = destinations(&modules, Some(&file)).unwrap_err();
        assert_eq!(crate::exit::of(&err).0, crate::exit::USAGE);
        assert!(missing_folder(&dir.path().join("no/x.ko")).is_some());
        assert!(missing_folder(&file).is_none());
    }
}
