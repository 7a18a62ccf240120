// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Drivers to start from: examples/skeletons under a name of the user's.
//!
//! It must not know what a driver does.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

use crate::cli::Kind;
use crate::cli::Lang;
use crate::files;

/// Folder of the skeletons in the repository.
const SKELETONS: &str = "examples/skeletons";
/// The name that they have.
const PLACEHOLDER: &str = "skeleton";
/// What a Rust skeleton stands on.
const KAPI: [&str; 5] = [
    "guest-driver/kapi",
    "guest-driver/helpers.c",
    "guest-driver/splice.c",
    "guest-driver/bindings.h",
    "guest-driver/include",
];

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
    for (path, to) in files::below(&skeleton, Path::new(""))? {
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .replace(PLACEHOLDER, name);
        let to = to.to_string_lossy().replace(PLACEHOLDER, name);
        sources.push((PathBuf::from(to), text.into_bytes()));
    }
    for other in others {
        let from = repository.join(other);
        let to = Path::new(from.file_name().unwrap_or_default());
        for (path, to) in files::below(&from, to)? {
            let bytes =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            sources.push((to, bytes));
        }
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;
    use regex::Regex;

    use super::*;
    use crate::grading::catalog::Catalog;

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
