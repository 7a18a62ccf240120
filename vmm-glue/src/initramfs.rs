// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Archives of files that the kernel unpacks at its start: cpio in the form "newc", one after another in a file.
//!
//! It must not know what is in them.

use std::ffi::OsStr;
use std::fs;
use std::fs::File;
use std::io;
use std::io::BufWriter;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;
use cpio::newc;

/// Appends an archive of the files below `dir` that are wanted (paths relative to it), to be unpacked below `place`. A folder that is not wanted
/// is left out with all that is in it. Files of the user who runs the lab become root's.
pub fn append(
    to: &mut impl Write,
    place: &Path,
    dir: &Path,
    wanted: &dyn Fn(&Path) -> bool,
) -> Result<()> {
    for path in paths(dir, wanted)? {
        let from = dir.join(&path);
        one(to, &place.join(&path), &from)
            .with_context(|| format!("cannot pack {}", from.display()))?;
    }
    end(to)
}

/// Appends an archive of one file under another name.
pub fn append_file(to: &mut impl Write, name: &Path, file: &Path) -> Result<()> {
    one(to, name, file).with_context(|| format!("cannot pack {}", file.display()))?;
    end(to)
}

/// Joins a ready archive and more of them, which `add` appends, to one file.
pub fn join(
    path: &Path,
    first: &Path,
    add: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
) -> Result<()> {
    let make = || format!("cannot make {}: is there room?", path.display());
    fs::copy(first, path).with_context(make)?;
    let file = File::options().append(true).open(path).with_context(make)?;
    let mut archive = BufWriter::new(file);
    add(&mut archive).with_context(make)?;
    archive.flush().with_context(make)
}

fn end(to: &mut impl Write) -> Result<()> {
    newc::trailer(&mut *to)?;
    Ok(())
}

/// Paths below a folder, each folder before what is in it.
fn paths(dir: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(relative) = todo.pop() {
        let here = dir.join(&relative);
        let entries =
            fs::read_dir(&here).with_context(|| format!("cannot read {}", here.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = relative.join(entry.file_name());
            if wanted(&path) {
                if entry.file_type()?.is_dir() {
                    todo.push(path.clone());
                }
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Folders, files and links; there is no use for anything else (an overlay marks with devices what was removed).
fn one(to: &mut impl Write, name: &Path, from: &Path) -> io::Result<()> {
    let meta = from.symlink_metadata()?;
    let kind = meta.file_type();
    if kind.is_char_device() || kind.is_block_device() || kind.is_fifo() || kind.is_socket() {
        return Ok(());
    }
    let contents = if kind.is_symlink() {
        fs::read_link(from)?.into_os_string().into_encoded_bytes()
    } else if kind.is_file() {
        fs::read(from)?
    } else {
        Vec::new()
    };
    let size = u32::try_from(contents.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let root = |id: u32, own: u32| if id == own { 0 } else { id };
    let mut writer = newc::Builder::new(&utf8(name.as_os_str())?)
        .mode(meta.mode())
        .uid(root(meta.uid(), uid.as_raw()))
        .gid(root(meta.gid(), gid.as_raw()))
        .mtime(u32::try_from(meta.mtime()).unwrap_or(0))
        .write(to, size);
    writer.write_all(&contents)?;
    writer.finish()?;
    Ok(())
}

fn utf8(name: &OsStr) -> io::Result<String> {
    std::str::from_utf8(name.as_bytes())
        .map(str::to_owned)
        .map_err(|_| io::ErrorKind::InvalidFilename.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// The kernel looks for the next archive at a multiple of this.
    const ALIGNMENT: usize = 4;

    /// Name, mode and contents of what is in an archive, and what comes after it.
    fn unpack(mut bytes: &[u8]) -> (Vec<(String, u32, String)>, &[u8]) {
        let mut found = Vec::new();
        loop {
            let mut reader = newc::Reader::new(bytes).unwrap();
            if reader.entry().is_trailer() {
                return (found, reader.finish().unwrap());
            }
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            let mut contents = String::new();
            reader.read_to_string(&mut contents).unwrap();
            found.push((name, mode, contents));
            bytes = reader.finish().unwrap();
        }
    }

    #[test]
    fn an_archive_has_folders_first_links_as_links_and_only_what_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir_all(at("no/c")).unwrap();
        fs::write(at("a/b/file"), "text").unwrap();
        fs::set_permissions(at("a/b/file"), fs::Permissions::from_mode(0o751)).unwrap();
        fs::write(at("no/c/file"), "text").unwrap();
        std::os::unix::fs::symlink("b/file", at("a/link")).unwrap();
        let mut archive = Vec::new();
        let wanted = |path: &Path| path != Path::new("no");
        append(&mut archive, Path::new("x"), dir.path(), &wanted).unwrap();
        let (found, rest) = unpack(&archive);
        let names: Vec<_> = found.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["x/a", "x/a/b", "x/a/b/file", "x/a/link"]);
        assert_eq!(found[2].1 & 0o7777, 0o751);
        assert_eq!(found[2].2, "text");
        assert_eq!(found[3].2, "b/file");
        assert_eq!(found[3].1 & 0o170_000, 0o120_000);
        assert!(rest.is_empty());
    }

    #[test]
    fn a_joined_archive_begins_each_part_where_the_kernel_looks_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir(at("tree")).unwrap();
        fs::write(at("tree/odd"), "x").unwrap();
        let mut first = Vec::new();
        append(&mut first, Path::new(""), &at("tree"), &|_| true).unwrap();
        fs::write(at("first"), &first).unwrap();
        join(&at("all"), &at("first"), |archive| {
            append_file(archive, Path::new("init"), &at("tree/odd"))
        })
        .unwrap();
        let all = fs::read(at("all")).unwrap();
        assert_eq!(first.len() % ALIGNMENT, 0);
        let (found, rest) = unpack(&all);
        assert_eq!(found[0].0, "odd");
        assert_eq!(unpack(rest).0[0].0, "init");
    }
}
