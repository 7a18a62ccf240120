// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What every stage works with: the cache, the repository, the recipe, and a way into the Debian tree.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;

use anyhow::Context;
use anyhow::Result;

use super::arch::Arch;
use crate::cache::Cache;
use crate::cache::Entry;
use crate::child::Bind;
use crate::child::Logged;
use crate::child::Overlay;
use crate::child::Place;
use crate::child::Spec;
use crate::child::View;
use crate::key::Key;
use crate::recipe::ArchRecipe;
use crate::recipe::Recipe;
use crate::ui;
use crate::ui::Step;

/// Where tools in the tree see the directory that a stage is working in.
pub const WORK: &str = "/lab/work";

/// Cache, repository, recipe, and for which guests it works.
#[derive(Debug)]
pub struct Shop {
    /// The guest's architecture.
    pub arch: Arch,
    /// The cache.
    pub cache: Cache,
    /// The repository.
    pub repository: PathBuf,
    /// The recipe.
    pub recipe: Recipe,
    /// What belongs to this machine's architecture.
    pub host: ArchRecipe,
    /// What belongs to the guest's.
    pub guest: ArchRecipe,
    /// Tools for the guest's architecture, a layer for the tree, if it is not this machine's and they are there.
    cross: OnceLock<Arc<Entry>>,
}

/// A stage at work: its directory, its log, what it shows.
#[derive(Debug)]
pub struct Bench<'a> {
    /// Where the result goes.
    pub dir: &'a Path,
    /// The log.
    pub log: Logged,
    step: &'a Step,
}

impl Shop {
    /// Opens the cache and reads the recipe, for guests of this machine's architecture.
    pub fn open() -> Result<Self> {
        Self::open_for(Arch::host())
    }

    /// The same for guests of this architecture.
    pub fn open_for(arch: Arch) -> Result<Self> {
        let repository = super::repository()?;
        let recipe = Recipe::load(&repository)?;
        Ok(Self {
            arch,
            host: recipe.of_arch(Arch::host().name())?.clone(),
            guest: recipe.of_arch(arch.name())?.clone(),
            cache: Cache::open()?,
            repository,
            recipe,
            cross: OnceLock::new(),
        })
    }

    /// The tools, from here on part of every view.
    pub fn have_cross_tools(&self, layer: Entry) {
        let _ = self.cross.set(Arc::new(layer));
    }

    /// Their entry.
    pub fn cross_entry(&self) -> Option<Arc<Entry>> {
        self.cross.get().cloned()
    }

    /// Where the tools for another architecture are, a layer for the tree.
    pub fn cross_tools(&self) -> Option<PathBuf> {
        let layer = self.cross.get()?;
        Some(layer.join(super::layer::UPPER))
    }

    /// An entry of the cache, made if it is missing; `what` is like "building the module".
    pub fn obtain(
        &self,
        stage: &str,
        key: &Key,
        what: &str,
        make: impl FnOnce(&mut Bench<'_>) -> Result<()>,
    ) -> Result<Entry> {
        self.cache.obtain(stage, key, |dir| {
            let step = Step::new(what);
            let log_path = self.cache.log(stage);
            let mut bench = Bench {
                dir,
                log: Logged::create(&log_path)?,
                step: &step,
            };
            make(&mut bench)?;
            let _ = std::fs::remove_file(log_path);
            step.done();
            Ok(())
        })
    }

    /// An error unless the cache's disk has that much room; `what` is like "building the module".
    pub fn enough_room(&self, what: &str, needed: u64) -> Result<()> {
        enough_room_in(self.cache.root(), what, needed, "XDG_CACHE_HOME")
    }

    /// The inside of the tree with the tools for the guest's architecture, with a directory to work in.
    pub fn view(&self, tree: &Path, work: &Path) -> View {
        let mut view = self.bare_view(tree, work);
        view.layers.extend(self.cross_tools());
        view
    }

    /// The inside of the tree, with a directory to work in.
    pub fn bare_view(&self, tree: &Path, work: &Path) -> View {
        View {
            tree: tree.to_owned(),
            layers: Vec::new(),
            mountpoint: self.cache.mountpoint(),
            host: false,
            binds: vec![Bind {
                from: work.to_owned(),
                to: WORK.into(),
                read_only: false,
            }],
            overlay: None,
        }
    }

    /// The tree's tools among the host's files.
    pub fn host_view(&self, tree: &Path) -> View {
        View {
            tree: tree.to_owned(),
            layers: self.cross_tools().into_iter().collect(),
            mountpoint: self.cache.mountpoint(),
            host: true,
            binds: Vec::new(),
            overlay: None,
        }
    }
}

impl Bench<'_> {
    /// Runs a command to its end.
    pub fn run(&mut self, spec: &Spec) -> Result<()> {
        let step = self.step;
        self.log.run(spec, &mut |line| step.detail(line))
    }

    /// The same, with a look at each line.
    pub fn watch(&mut self, spec: &Spec, look: &mut (dyn FnMut(&str) + Send)) -> Result<()> {
        let step = self.step;
        self.log.run(spec, &mut |line| {
            look(line);
            if !line.starts_with('{') {
                step.detail(line);
            }
        })
    }

    /// The same, showing what is made of each line.
    pub fn show(
        &mut self,
        spec: &Spec,
        show: &mut (dyn FnMut(&str) -> String + Send),
    ) -> Result<()> {
        let step = self.step;
        self.log.run(spec, &mut |line| step.detail(&show(line)))
    }

    /// Runs a command to its end, whatever its status, with a look at each line.
    pub fn say(
        &mut self,
        spec: &Spec,
        look: &mut (dyn FnMut(&str) + Send),
    ) -> Result<std::process::ExitStatus> {
        let step = self.step;
        self.log.status(spec, &mut |line| {
            look(line);
            step.detail(line);
        })
    }

    /// The same for a shell script inside the tree; it works in [`WORK`] and stops at the first failure.
    pub fn script(&mut self, view: &View, script: &str, env: &[(&str, &str)]) -> Result<()> {
        self.run(&script_spec(view, script, env))
    }

    /// Shows what goes on.
    pub fn detail(&self, text: &str) {
        self.step.detail(text);
    }
}

/// A shell script inside the tree.
pub fn script_spec(view: &View, script: &str, env: &[(&str, &str)]) -> Spec {
    let spec = tool_spec(view, "/bin/sh")
        .args(["-e", "-c", script])
        .cwd(WORK);
    env.iter()
        .fold(spec, |spec, (name, value)| spec.env(name, value))
}

/// A program inside the tree, with an environment of the tree's own.
pub fn tool_spec(view: &View, program: &str) -> Spec {
    Spec::new(program)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("LC_ALL", "C.UTF-8")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .usual_umask()
        .place(Place::Tree(view.clone()))
}

/// Collects what tools write to the tree.
pub fn overlay(dir: &Path) -> Result<Overlay> {
    let (upper, work) = (dir.join(super::layer::UPPER), dir.join("work"));
    crate::cache::create_dirs(&upper)?;
    crate::cache::create_dirs(&work)?;
    Ok(Overlay { upper, work })
}

/// An error unless the disk of this directory, which the environment's `variable` names, has that much room; `what` is like "building the module".
///
/// # Errors
///
/// The disk is too full, or cannot be looked at.
pub fn enough_room_in(dir: &Path, what: &str, needed: u64, variable: &str) -> Result<()> {
    let stat = rustix::fs::statvfs(dir)
        .with_context(|| format!("cannot look at the disk of {}", dir.display()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    anyhow::ensure!(
        free >= needed,
        "no space in {}: {} are free, {what} needs {}; free some, or name another place in {variable}",
        dir.display(),
        ui::bytes(free),
        ui::bytes(needed)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_too_full_is_named_with_the_variable_that_chooses_another() {
        let dir = tempfile::tempdir().unwrap();
        assert!(enough_room_in(dir.path(), "this", 1, "TMPDIR").is_ok());
        let error = enough_room_in(dir.path(), "this", u64::MAX, "TMPDIR").unwrap_err();
        let error = error.to_string();
        for part in [dir.path().to_str().unwrap(), "this needs", "in TMPDIR"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
