// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Keys: a hash over everything that a cached thing was made from.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;

/// Changed when the meaning of the cache's contents changes; old entries are then no longer found.
const GENERATION: &str = "1";

/// Collects inputs.
#[derive(Debug)]
pub struct KeyBuilder {
    hasher: blake3::Hasher,
    inputs: String,
}

/// A finished key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// What names the entry.
    pub id: String,
    /// What went in, for people.
    pub inputs: String,
}

impl KeyBuilder {
    /// A key for a thing of this kind.
    pub fn new(kind: &str) -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            inputs: String::new(),
        }
        .field("kind", kind)
        .field("generation", GENERATION)
    }

    /// Adds a named value.
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.add(name.as_bytes());
        self.add(value.as_bytes());
        let shown: String = value.chars().take(100).collect();
        self.inputs
            .push_str(&format!("{name}: {}\n", shown.replace('\n', " ")));
        self
    }

    /// Adds a file's contents and whether it can be executed.
    pub fn file(mut self, name: &str, path: &Path) -> Result<Self> {
        let contents = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let executable = path
            .metadata()
            .is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0);
        self.add(name.as_bytes());
        self.add(&contents);
        self.add(&[u8::from(executable)]);
        self.inputs
            .push_str(&format!("{name}: {} bytes\n", contents.len()));
        Ok(self)
    }

    /// Adds a directory's files that `wanted` accepts (given paths relative to it), in order of their names.
    pub fn dir(mut self, name: &str, dir: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<Self> {
        for path in files(dir)? {
            let relative = path.strip_prefix(dir).unwrap_or(&path);
            if wanted(relative) {
                self = self.file(&format!("{name}/{}", relative.display()), &path)?;
            }
        }
        Ok(self)
    }

    fn add(&mut self, bytes: &[u8]) {
        // Lengths keep neighbouring fields apart.
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }

    /// Ends.
    pub fn finish(self) -> Key {
        let id: String = self.hasher.finalize().to_hex().chars().take(16).collect();
        Key {
            id,
            inputs: self.inputs,
        }
    }
}

/// All files under a directory, sorted; links are not followed.
pub fn files(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                todo.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_every_input_and_on_nothing_else() {
        let key = |text: &str| KeyBuilder::new("test").field("a", text).finish().id;
        assert_eq!(key("x"), key("x"));
        assert_ne!(key("x"), key("y"));
        let split = |a: &str, b: &str| KeyBuilder::new("test").field(a, b).finish().id;
        assert_ne!(split("ab", "c"), split("a", "bc"));
    }

    #[test]
    fn a_directory_counts_by_names_contents_and_the_executable_bit() {
        let dir = tempfile::tempdir().unwrap();
        let key = || {
            KeyBuilder::new("test")
                .dir("d", dir.path(), &|path| path != Path::new("skip"))
                .unwrap()
                .finish()
                .id
        };
        fs::write(dir.path().join("one"), "1").unwrap();
        let first = key();
        fs::write(dir.path().join("skip"), "ignored").unwrap();
        assert_eq!(key(), first);
        fs::set_permissions(dir.path().join("one"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_ne!(key(), first);
    }
}
