// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The recipes in images/: what the Debian tree and the kernel are made from, as data.

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
    /// Debian's flavour.
    pub flavour: String,
    /// Patterns of files, relative to the source, that are not unpacked.
    pub omit: Vec<String>,
}

/// The kernel with PREEMPT_RT: of the same major version.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rt {
    /// Debian's flavour.
    pub flavour: String,
    /// Folders of modules, relative to kernel/, that are not kept.
    pub omit_modules: Vec<String>,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipe_in_images_can_be_read() {
        let recipe = Recipe::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap();
        assert!(
            recipe
                .packages
                .iter()
                .any(|package| package == "qemu-system-x86")
        );
    }

    #[test]
    fn no_recipe_names_a_mirror() {
        let recipe = Recipe::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap();
        assert!(!recipe.text.contains("://"));
    }
}
