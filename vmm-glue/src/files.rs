// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Copies of files, with the folders that they need.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

/// A file, or the files of a folder, with their names below `to`.
pub fn below(from: &Path, to: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
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

/// Copies a file, with the folders that it needs.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Copies a file; of a copy that cannot be made whole, nothing stays.
pub fn copy_or_nothing(from: &Path, to: &Path) -> Result<()> {
    copy(from, to).inspect_err(|_| drop(fs::remove_file(to)))
}

/// Whether the file system of a path has no space left for this user.
pub fn is_full(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|all| all.f_bavail == 0)
}

/// Writes files, by their names in a folder, with what is in each.
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
