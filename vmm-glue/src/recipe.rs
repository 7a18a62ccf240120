// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The recipes in images/: what the Debian tree and the kernel are made from, as data.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use serde::Deserialize;

/// images/tree.toml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Debian's code name.
    pub suite: String,
    /// Packages that come from backports, as apt patterns.
    pub backports: Vec<String>,
    /// Packages of the tree.
    pub packages: Vec<String>,
    /// Which kernel.
    pub kernel: Kernel,
    /// Which kernel with PREEMPT_RT.
    pub rt: Rt,
    /// How the debug kernel is built.
    pub debug: Debug,
    /// What a guest of another architecture takes.
    pub foreign: Foreign,
    /// What belongs to each architecture.
    pub arch: BTreeMap<String, ArchRecipe>,
    /// What a root in RAM consists of.
    pub ram: Ram,
    /// What the kernel's check of style needs.
    pub checkpatch: Checkpatch,
    /// How much room a first set-up needs.
    pub room: Room,
    /// The file itself, for keys.
    #[serde(skip)]
    pub text: String,
}

/// Which kernel to take, and how much of its source.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Major version.
    pub major: u32,
    /// Patterns of files, relative to the source, that are not unpacked.
    pub omit: Vec<String>,
}

/// The kernel with PREEMPT_RT: of the same major version.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rt {
    /// Folders of modules, relative to kernel/, that are not kept.
    pub omit_modules: Vec<String>,
}

/// What a guest of another architecture than this machine's takes, whichever it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Foreign {
    /// Packages of the guest's architecture that programs in C are compiled with.
    pub libraries: Vec<String>,
    /// Packages of its userland beside the essential ones.
    pub packages: Vec<String>,
}

/// What belongs to an architecture.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ArchRecipe {
    /// Package of QEMU.
    pub emulator: String,
    /// Package of a compiler that runs elsewhere.
    pub compiler: String,
    /// Debian's flavour of the kernel.
    pub flavour: String,
    /// Debian's flavour of the kernel with PREEMPT_RT.
    pub rt_flavour: String,
}

/// The part of the tree that a root in RAM has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ram {
    /// Packages beside the essential ones; what they depend on comes with them.
    pub packages: Vec<String>,
    /// Folders and files of the tree that are left out.
    pub omit: Vec<String>,
}

/// How the debug kernel is built from the stock kernel's source.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Debug {
    /// Packages of the compiler.
    pub packages: Vec<String>,
    /// Variables for make that choose it.
    pub make: Vec<String>,
    /// Files of settings, in images/.
    pub config: Vec<String>,
    /// Patterns of files, relative to the source, that are not unpacked.
    pub omit: Vec<String>,
    /// Bytes that building needs in the cache.
    pub bytes: u64,
    /// Lines that make prints, about.
    pub steps: u32,
    /// How long that takes, for people.
    pub how_long: String,
}

/// The kernel's check of style, scripts/checkpatch.pl.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpatch {
    /// Packages that it runs with.
    pub packages: Vec<String>,
}

/// Room on the disk.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Room {
    /// Bytes.
    pub bytes: u64,
}

impl Recipe {
    /// Reads it.
    pub fn load(repository: &Path) -> Result<Self> {
        let path = repository.join("images/tree.toml");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut recipe: Self =
            toml::from_str(&text).with_context(|| format!("{} is not a recipe", path.display()))?;
        recipe.text = text;
        Ok(recipe)
    }

    /// What belongs to the architecture of this name.
    pub fn of_arch(&self, name: &str) -> Result<&ArchRecipe> {
        self.arch
            .get(name)
            .with_context(|| format!("images/tree.toml has no section arch.{name}"))
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::stages::Arch;

    #[test]
    fn the_recipe_in_images_can_be_read() {
        let recipe = Recipe::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap();
        for arch in Arch::value_variants() {
            let of_arch = recipe.of_arch(arch.name()).unwrap();
            assert!(of_arch.emulator.starts_with("qemu-system-"), "{arch}");
        }
    }

    #[test]
    fn no_recipe_names_a_mirror() {
        let recipe = Recipe::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap();
        assert!(!recipe.text.contains("://"));
    }
}
