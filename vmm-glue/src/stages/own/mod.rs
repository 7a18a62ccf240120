// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A kernel module of the user's own: built for the lab's kernel from a copy of its source, in a sandbox, once for each content.
//!
//! This file knows the order of the steps and what is kept. It must not know what the module is about.

pub mod editor;
pub mod messages;
pub mod sandbox;
pub mod source;

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

use self::messages::Names;
use self::sandbox::PLACE;
use self::source::Recipe;
use self::source::Source;
use super::KernelChoice;
use super::kernel;
use super::kernel::Kernel;
use super::module;
use super::shop::Bench;
use super::shop::Shop;
use crate::cache::Entry;
use crate::child::View;
use crate::child::shell_status;
use crate::exit::Exit;
use crate::history::Table;
use crate::key::Key;
use crate::key::KeyBuilder;
use crate::ui;

/// Its name in the cache.
pub const STAGE: &str = "own-module";
/// Modules of an entry.
pub const MODULES: &str = "modules";
/// What the compilers said about them.
const SAID: &str = "messages";
/// Names by which Makefiles ask for the kernel's build directory.
const DIRECTORIES: [&str; 12] = [
    "KDIR",
    "KERNELDIR",
    "KERNEL_DIR",
    "KERNEL_SRC",
    "KSRC",
    "KSRC_DIR",
    "KERN_DIR",
    "KERNEL_PATH",
    "KERNEL_BUILD",
    "LINUX_DIR",
    "LINUX_SRC",
    "KBUILD_DIR",
];
/// Names by which they ask for its version.
const RELEASES: [&str; 3] = ["KVERSION", "KVER", "KERNEL_VERSION"];

/// A built source.
#[derive(Debug)]
pub struct Built {
    /// The entry.
    entry: Entry,
    /// Its modules.
    pub modules: Vec<PathBuf>,
    /// What the compilers said, with the user's paths.
    pub messages: Vec<String>,
}

impl Built {
    /// The one module; an error that lists them if there are several.
    pub fn only(self, given: &Path) -> Result<(Entry, PathBuf)> {
        match self.modules.as_slice() {
            [one] => {
                let inside = one
                    .strip_prefix(self.entry.path())
                    .unwrap_or(one)
                    .to_owned();
                Ok((self.entry, inside))
            }
            several => Err(crate::exit::usage(format!(
                "{}: it makes {} modules ({}); build them with `cargo lab module -o FOLDER` and name one",
                given.display(),
                several.len(),
                file_names(several)
            ))),
        }
    }
}

/// File names, for people.
pub fn file_names(paths: &[PathBuf]) -> String {
    let names = paths.iter().filter_map(|path| path.file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(", ")
}

/// What it is made from.
pub fn key(shop: &Shop, source: &Source, kernel: KernelChoice, kind: &str) -> Result<Key> {
    let mut key = KeyBuilder::new(kind)
        .field("kernel", &super::kernel_key(shop, kernel)?.id)
        .field("sandbox", &sandbox::recipe())
        .field("variables", &variables("").join(" "))
        .field("recipe", source.recipe.name())
        .field("place", &source.place.display().to_string());
    for (name, target) in &source.links {
        key = key.field(&name.display().to_string(), &target.display().to_string());
    }
    for (name, from) in &source.files {
        key = key.file(&name.display().to_string(), from)?;
    }
    Ok(key.finish())
}

/// Builds it unless that has been done. What the compilers have to say is printed, also if they said it to an earlier build.
pub fn obtain(
    shop: &Shop,
    tree: &Entry,
    kernel: &Kernel,
    choice: KernelChoice,
    source: &Source,
) -> Result<Built> {
    let what = format!("building {}", source.given.display());
    let key = key(shop, source, choice, STAGE)?;
    if shop.cache.has(STAGE, &key) {
        ui::say(&format!("{}: unchanged", source.given.display()));
    }
    let tool = sandbox::obtain(shop, tree)?;
    let entry = shop.obtain(STAGE, &key, &what, |bench| {
        source.copy(&bench.dir.join(sandbox::COPY))?;
        let view = sandbox::view(shop, tree, &tool, kernel, bench.dir)?;
        let said = make(bench, &view, kernel, source, &[])?;
        keep(bench.dir, &said, source)
    })?;
    let said = fs::read_to_string(entry.join(SAID)).unwrap_or_default();
    let messages = show(shop, &said, source)?;
    let mut modules = crate::cache::entries(&entry.join(MODULES));
    modules.sort();
    Ok(Built {
        entry,
        modules,
        messages,
    })
}

/// What make says in several runs on one copy, each with RUN set to its name; runs may fail, all of them go through what can be built, and
/// none makes a module.
pub fn runs(
    shop: &Shop,
    tree: &Entry,
    kernel: &Kernel,
    choice: KernelChoice,
    source: &Source,
    names: &[&str],
) -> Result<String> {
    let stage = "module-runs";
    let key = key(shop, source, choice, stage)?;
    let tool = sandbox::obtain(shop, tree)?;
    let what = format!(
        "building {} in {} runs",
        source.given.display(),
        names.len()
    );
    let entry = shop.obtain(stage, &key, &what, |bench| {
        source.copy(&bench.dir.join(sandbox::COPY))?;
        let view = sandbox::view(shop, tree, &tool, kernel, bench.dir)?;
        let mut all = String::new();
        for name in names {
            let run = format!("RUN={name}");
            let goals = ["--keep-going", &run, "KBUILD_MODPOST_NOFINAL=1", "modules"];
            let words = [command(kernel, source), goals.map(str::to_owned).to_vec()].concat();
            bench.say(&sandbox::spec(&view, &source.place, &words), &mut |line| {
                all.push_str(line);
                all.push('\n');
            })?;
        }
        fs::write(bench.dir.join(SAID), all)?;
        crate::cache::remove(&bench.dir.join(sandbox::COPY))
    })?;
    fs::read_to_string(entry.join(SAID)).context("the cached runs say nothing")
}

/// make's command line for it.
fn command(kernel: &Kernel, source: &Source) -> Vec<String> {
    let jobs = std::thread::available_parallelism().map_or(2, usize::from);
    // Messages of one file stay together.
    let mut words = ["make", "--output-sync=target"].map(str::to_owned).to_vec();
    words.push(format!("-j{jobs}"));
    match source.recipe {
        Recipe::Makefile => words.extend(variables(&kernel.release)),
        Recipe::Kernel | Recipe::Generated(_) => words.extend([
            "-C".to_owned(),
            format!("{}/build", kernel::PLACE),
            format!("M={}", Path::new(PLACE).join(&source.place).display()),
        ]),
    }
    words.extend(kernel.make_variables().into_iter().cloned());
    words
}

fn variables(release: &str) -> Vec<String> {
    let build = format!("{}/build", kernel::PLACE);
    let directories = DIRECTORIES.iter().map(|name| format!("{name}={build}"));
    let releases = RELEASES.iter().map(|name| format!("{name}={release}"));
    directories.chain(releases).collect()
}

/// Runs make with these goals; what it says, and an error if it fails.
fn make(
    bench: &mut Bench<'_>,
    view: &View,
    kernel: &Kernel,
    source: &Source,
    goals: &[String],
) -> Result<String> {
    let words = [command(kernel, source), goals.to_vec()].concat();
    let spec = sandbox::spec(view, &source.place, &words);
    let mut said = String::new();
    let status = bench.say(&spec, &mut |line| {
        said.push_str(line);
        said.push('\n');
    })?;
    match shell_status(status) {
        0 => Ok(said),
        status => Err(Failed { status, said }.into()),
    }
}

/// The build has failed.
#[derive(Debug, thiserror::Error)]
#[error("make ended with status {status}")]
pub struct Failed {
    /// Its status.
    status: u8,
    /// All that it said.
    said: String,
}

/// All that a failed build has said.
pub fn said(err: &anyhow::Error) -> Option<&str> {
    err.downcast_ref::<Failed>()
        .map(|failed| failed.said.as_str())
}

/// Keeps the modules and what was said.
fn keep(dir: &Path, said: &str, source: &Source) -> Result<()> {
    let copy = dir.join(sandbox::COPY);
    let modules = dir.join(MODULES);
    fs::create_dir(&modules)?;
    let all = crate::key::files(&copy)?;
    for path in all
        .iter()
        .filter(|path| path.extension().is_some_and(|ext| ext == "ko"))
    {
        let name = path.file_name().unwrap_or_default();
        let meta = path.symlink_metadata()?;
        anyhow::ensure!(meta.is_file(), "{} is no file", path.display());
        fs::copy(path, modules.join(name))?;
    }
    if crate::cache::entries(&modules).is_empty() {
        return Err(Failed {
            status: 0,
            said: said.to_owned(),
        }
        .into());
    }
    fs::write(dir.join(SAID), said)?;
    for name in [sandbox::COPY, "over"] {
        crate::cache::remove(&dir.join(name)).with_context(|| {
            format!(
                "cannot tidy up after the build of {}",
                source.given.display()
            )
        })?;
    }
    Ok(())
}

/// Prints what compilers said, on standard error, with explanations; the lines without those.
fn show(shop: &Shop, said: &str, source: &Source) -> Result<Vec<String>> {
    let names = Names::of(source);
    let lines: Vec<String> = said.lines().filter_map(|line| names.line(line)).collect();
    if !lines.is_empty() {
        let table = Table::load(&shop.repository)?;
        table.explain(&lines).iter().for_each(|line| ui::tell(line));
    }
    Ok(lines)
}

/// A failed build's messages are printed and its error made one line; any other error stays what it is.
pub fn explained(shop: &Shop, source: &Source, err: anyhow::Error) -> anyhow::Error {
    let Some(Failed { status, said }) = err.downcast_ref::<Failed>() else {
        return err;
    };
    let lines = match show(shop, said, source) {
        Ok(lines) => lines,
        Err(err) => return err,
    };
    let given = source.given.display();
    let message = match *status {
        0 => format!(
            "{given}: make has made no module (.ko): is obj-m set, and does the default goal of the Makefile build it?"
        ),
        sandbox::TIMED_OUT => format!(
            "{given}: make had not ended after {} s",
            sandbox::SECONDS_MAX
        ),
        _ if said.len() >= sandbox::OUTPUT_MAX => format!(
            "{given}: make has printed more than {} MB, and was ended",
            sandbox::OUTPUT_MAX >> 20
        ),
        status => {
            let first = messages::reason(&lines).map_or(String::new(), |line| format!(": {line}"));
            format!("{given}: the build failed (make's status is {status}){first}")
        }
    };
    Exit {
        status: crate::exit::FAILURE,
        message,
    }
    .into()
}

/// Whether this is the folder of our own driver, which has a stage of its own.
pub fn is_ours(path: &Path, repository: &Path) -> bool {
    path.canonicalize()
        .is_ok_and(|path| path == repository.join(module::DRIVER))
}
