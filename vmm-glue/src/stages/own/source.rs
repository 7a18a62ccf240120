// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Source of a kernel module that the user names: one file, or a folder with a Kbuild or a Makefile. Which files belong to it, how they are
//! called in the copy that is built, and how make is to be started.
//!
//! This file reads the user's files. It must not know how the copy is built.

use std::collections::BTreeMap;
use std::fs;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

use crate::exit::usage;
use crate::stages::module;

/// Bytes that a source may have in all: a folder above that is not the one that was meant.
const BYTES_MAX: u64 = 256 << 20;
/// Files that it may have, likewise.
const FILES_MAX: usize = 20_000;
/// Longest name of a module (the kernel's `MODULE_NAME_LEN`, less what a name needs besides).
const NAME_MAX: usize = 55;

/// The source.
#[derive(Debug)]
pub struct Source {
    /// As the user wrote it.
    pub given: PathBuf,
    /// Files of the copy by their names in it.
    pub files: BTreeMap<PathBuf, PathBuf>,
    /// Links of the copy, which stay within it.
    pub links: BTreeMap<PathBuf, PathBuf>,
    /// Folder of the copy in which make is started.
    pub place: PathBuf,
    /// How it is built.
    pub recipe: Recipe,
}

/// How make is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipe {
    /// One file: this Kbuild is written beside it.
    Generated(String),
    /// The kernel's make reads the folder's Kbuild, or a Makefile that says only what to build.
    Kernel,
    /// The folder's own Makefile, which calls the kernel's.
    Makefile,
}

impl Recipe {
    /// Its part of the key.
    pub fn name(&self) -> &str {
        match self {
            Self::Generated(kbuild) => kbuild,
            Self::Kernel => "kernel",
            Self::Makefile => "makefile",
        }
    }
}

impl Source {
    /// What the user names.
    pub fn of(given: &Path, repository: &Path) -> Result<Self> {
        let refused = |why: &str| usage(format!("{}: {why}", given.display()));
        let path = given
            .canonicalize()
            .map_err(|err| refused(&err.to_string()))?;
        if path.is_dir() {
            return folder(given, &path, repository);
        }
        match path.extension().and_then(|ext| ext.to_str()) {
            Some("c" | "rs") if path.is_file() => file(given, &path),
            _ => Err(refused(
                "not a C file (.c), a Rust file (.rs) or a folder with a Kbuild or a Makefile",
            )),
        }
    }

    /// Folder of the user's in which `place` is, as the user would write it.
    pub fn folder(&self) -> PathBuf {
        if self.given.is_dir() {
            return self.given.clone();
        }
        self.given.parent().map(Path::to_owned).unwrap_or_default()
    }

    /// Copies it.
    pub fn copy(&self, to: &Path) -> Result<()> {
        for (name, from) in &self.files {
            let to = to.join(name);
            make_folder(&to)?;
            fs::copy(from, &to)
                .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        }
        for (name, target) in &self.links {
            let to = to.join(name);
            make_folder(&to)?;
            std::os::unix::fs::symlink(target, &to)
                .with_context(|| format!("cannot link {}", to.display()))?;
        }
        if let Recipe::Generated(kbuild) = &self.recipe {
            fs::write(to.join(&self.place).join("Kbuild"), kbuild)?;
        }
        Ok(())
    }
}

fn make_folder(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) => Ok(fs::create_dir_all(parent)?),
        None => Ok(()),
    }
}

/// One file, with the headers beside it that it includes.
fn file(given: &Path, path: &Path) -> Result<Source> {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = module_name(&stem);
    let copy = PathBuf::from(format!("{name}.{extension}"));
    let mut files = BTreeMap::from([(copy, path.to_owned())]);
    let folder = path.parent().unwrap_or(Path::new("/"));
    headers(path, folder, &mut files)?;
    check_size(given, &files)?;
    Ok(Source {
        given: given.to_owned(),
        files,
        links: BTreeMap::new(),
        place: PathBuf::new(),
        recipe: Recipe::Generated(format!("obj-m := {name}.o\n")),
    })
}

/// A name that Kbuild and the kernel take: letters, digits and underscores.
fn module_name(stem: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() { c } else { '_' }
    };
    let name: String = stem.chars().take(NAME_MAX).map(plain).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        format!("_{name}")
    } else {
        name
    }
}

/// Headers in the folder, or below it, that the text includes by a name in quotes; theirs, too.
fn headers(text: &Path, folder: &Path, files: &mut BTreeMap<PathBuf, PathBuf>) -> Result<()> {
    let bytes =
        fs::read(text).map_err(|err| usage(format!("cannot read {}: {err}", text.display())))?;
    for line in String::from_utf8_lossy(&bytes).lines() {
        let Some(name) = included(line) else {
            continue;
        };
        let relative = PathBuf::from(name);
        let is_inside = relative
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        let from = folder.join(&relative);
        if is_inside && from.is_file() && !files.contains_key(&relative) {
            stays_inside(&from, folder)?;
            files.insert(relative, from.clone());
            headers(&from, from.parent().unwrap_or(folder), files)?;
        }
    }
    Ok(())
}

/// The name in `#include "name"`.
fn included(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix('#')?.trim_start();
    let rest = rest.strip_prefix("include")?.trim_start();
    rest.strip_prefix('"')?
        .split_once('"')
        .map(|(name, _)| name)
}

/// A folder, whole but for what builds and editors leave.
fn folder(given: &Path, path: &Path, repository: &Path) -> Result<Source> {
    let recipe = recipe_of(path).ok_or_else(|| {
        usage(format!(
            "{}: no Kbuild and no Makefile there; name one of its .c or .rs files, or write a Kbuild with obj-m := NAME.o",
            given.display()
        ))
    })?;
    let mut source = Source {
        given: given.to_owned(),
        files: BTreeMap::new(),
        links: BTreeMap::new(),
        place: PathBuf::new(),
        recipe,
    };
    if path == repository.join(module::DRIVER) {
        // Our own driver compiles the wire format, which lies beside it.
        for part in module::PARTS {
            // Links there are licences of the repository's, for packages.
            collect(
                &mut source,
                given,
                &repository.join(part),
                Path::new(part),
                false,
            )?;
        }
        source.place = PathBuf::from(module::DRIVER);
    } else {
        collect(&mut source, given, path, Path::new(""), true)?;
    }
    check_size(given, &source.files)?;
    Ok(source)
}

/// Adds a folder's files under a name of the copy, with or without links.
fn collect(
    source: &mut Source,
    given: &Path,
    folder: &Path,
    name: &Path,
    links: bool,
) -> Result<()> {
    let mut todo = vec![PathBuf::new()];
    while let Some(below) = todo.pop() {
        let dir = folder.join(&below);
        let entries = fs::read_dir(&dir)
            .map_err(|err| usage(format!("cannot read {}: {err}", dir.display())))?;
        for entry in entries {
            let entry = entry?;
            let relative = below.join(entry.file_name());
            let kind = entry.file_type()?;
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            if kind.is_dir() && !hidden && module::is_source(&relative) {
                todo.push(relative);
            } else if kind.is_symlink() {
                if links {
                    stays_inside(&entry.path(), folder)?;
                    let target = fs::read_link(entry.path())?;
                    source.links.insert(name.join(relative), target);
                }
            } else if kind.is_file() && module::is_source(&relative) {
                source.files.insert(name.join(relative), entry.path());
            }
            if source.files.len() > FILES_MAX {
                return Err(too_large(given, &format!("{FILES_MAX} files")));
            }
        }
    }
    Ok(())
}

/// A link may not bring a file from elsewhere into a build that must not see it.
fn stays_inside(path: &Path, folder: &Path) -> Result<()> {
    let folder = folder.canonicalize()?;
    let inside = path
        .canonicalize()
        .is_ok_and(|path| path.starts_with(&folder));
    let relative = !path.is_symlink() || fs::read_link(path)?.is_relative();
    if inside && relative {
        return Ok(());
    }
    Err(usage(format!(
        "{}: a link that leads out of the folder; put a copy of the file in its place",
        path.display()
    )))
}

fn check_size(given: &Path, files: &BTreeMap<PathBuf, PathBuf>) -> Result<()> {
    let sizes = files.values().filter_map(|path| path.metadata().ok());
    let bytes: u64 = sizes.map(|meta| meta.len()).sum();
    if bytes > BYTES_MAX {
        return Err(too_large(given, &format!("{} MB", BYTES_MAX >> 20)));
    }
    Ok(())
}

fn too_large(given: &Path, most: &str) -> anyhow::Error {
    usage(format!(
        "{}: more than {most}; name the folder that holds the module's source alone",
        given.display()
    ))
}

/// How a folder is built, if it says so.
fn recipe_of(path: &Path) -> Option<Recipe> {
    let makefile = ["GNUmakefile", "makefile", "Makefile"]
        .into_iter()
        .find_map(|name| fs::read_to_string(path.join(name)).ok());
    match makefile {
        Some(text) if drives(&text) => Some(Recipe::Makefile),
        Some(_) => Some(Recipe::Kernel),
        None => path.join("Kbuild").is_file().then_some(Recipe::Kernel),
    }
}

/// Whether a Makefile is for a `make` of its own: one that is for Kbuild alone has no recipe.
fn drives(makefile: &str) -> bool {
    makefile
        .lines()
        .any(|line| line.starts_with('\t') && !line.trim().is_empty())
        || !makefile.contains("obj-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(result: Result<Source>) -> String {
        let (status, message) = crate::exit::of(&result.unwrap_err());
        assert_eq!(status, crate::exit::USAGE, "{message}");
        message
    }

    fn of(path: &Path) -> Result<Source> {
        Source::of(path, Path::new("/no/repository"))
    }

    #[test]
    fn our_own_driver_comes_with_the_wire_format() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let repository = repository.canonicalize().unwrap();
        let source = Source::of(&repository.join(module::DRIVER), &repository).unwrap();
        for file in [
            "guest-driver/globalfifo_main.rs",
            "protocol/src/virtio_fifo.rs",
        ] {
            assert!(source.files.contains_key(Path::new(file)), "{file}");
        }
        assert!(source.links.is_empty(), "{:?}", source.links);
    }

    #[test]
    fn a_file_comes_with_the_headers_that_it_includes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write(
            "my fifo-1.c",
            "#include \"a.h\"\n#include <linux/fs.h>\n#include \"../x.h\"\n",
        );
        write("a.h", "# include \"b.h\"\n#include \"a.h\"\n");
        write("b.h", "");
        write("other.h", "");
        let source = of(&dir.path().join("my fifo-1.c")).unwrap();
        let names: Vec<_> = source
            .files
            .keys()
            .map(|name| name.to_str().unwrap())
            .collect();
        assert_eq!(names, ["a.h", "b.h", "my_fifo_1.c"]);
        assert_eq!(
            source.recipe,
            Recipe::Generated("obj-m := my_fifo_1.o\n".to_owned())
        );
    }

    #[test]
    fn a_name_of_a_module_begins_with_no_digit_and_has_plain_letters() {
        for (stem, name) in [
            ("9.2", "_9_2"),
            ("a-b c", "a_b_c"),
            ("globalfifo", "globalfifo"),
        ] {
            assert_eq!(module_name(stem), name);
        }
        assert!(module_name(&"x".repeat(300)).len() <= NAME_MAX + 1);
    }

    #[test]
    fn a_folder_with_a_recipe_runs_its_own_makefile_and_one_of_declarations_the_kernels() {
        let dir = tempfile::tempdir().unwrap();
        assert!(error(of(dir.path())).contains("no Kbuild and no Makefile"));
        let makefile = dir.path().join("Makefile");
        fs::write(&makefile, "obj-m := x.o\n").unwrap();
        assert_eq!(of(dir.path()).unwrap().recipe, Recipe::Kernel);
        fs::write(
            &makefile,
            "obj-m := x.o\nall:\n\tmake -C $(KDIR) M=$(PWD)\n",
        )
        .unwrap();
        assert_eq!(of(dir.path()).unwrap().recipe, Recipe::Makefile);
        fs::remove_file(makefile).unwrap();
        fs::write(dir.path().join("Kbuild"), "obj-m := x.o\n").unwrap();
        assert_eq!(of(dir.path()).unwrap().recipe, Recipe::Kernel);
    }

    #[test]
    fn build_products_and_hidden_files_stay_out_of_the_copy_and_so_does_a_link_out_of_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["Kbuild", "x.c", "x.o", "x.ko", "x.mod.c", ".x.o.cmd"] {
            fs::write(dir.path().join(name), "obj-m := x.o\n").unwrap();
        }
        fs::create_dir_all(dir.path().join(".git")).unwrap();
        fs::write(dir.path().join(".git/config"), "").unwrap();
        std::os::unix::fs::symlink("x.c", dir.path().join("y.c")).unwrap();
        let source = of(dir.path()).unwrap();
        let names: Vec<_> = source
            .files
            .keys()
            .map(|name| name.to_str().unwrap())
            .collect();
        assert_eq!(names, ["Kbuild", "x.c"]);
        assert_eq!(source.links.len(), 1);
        for out in ["/etc/passwd", "../../etc/passwd"] {
            let link = dir.path().join("z.c");
            std::os::unix::fs::symlink(out, &link).unwrap();
            assert!(error(of(dir.path())).contains("leads out of the folder"));
            fs::remove_file(link).unwrap();
        }
    }

    #[test]
    fn what_is_no_source_is_refused() {
        for path in ["/etc/passwd", "/no/such/file.c", "/dev/null"] {
            error(of(Path::new(path)));
        }
    }
}
