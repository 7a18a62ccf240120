// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Temporary directories that go with their lab, or with the next one: each is locked while its lab lives, and what is found without a lock
//! was left by a lab that was killed.
//!
//! This file must not know what the directories are for.

use std::fs::File;
use std::fs::Permissions;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use clap::ValueEnum;
use tempfile::TempDir;

/// The longest path that a Unix socket can have.
const SOCKET_PATH_MAX: usize = 107;
/// Room for a directory's own name and that of a socket in it.
const SOCKET_NAME_MAX: usize = 50;
/// A directory younger than this may not have its lock yet.
const GRACE: Duration = Duration::from_secs(10);
/// What all names begin with; the kind and random letters follow.
const PREFIX: &str = "globalfifo-";

/// What a directory is for: nothing else is ever removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A machine's sockets and logs.
    Run,
    /// Host ends of a test's FIFOs.
    Test,
    /// What a traced guest leaves.
    Trace,
    /// Host ends of a soak's FIFOs.
    Soak,
    /// Sockets of a benchmark.
    Bench,
    /// A daemon without a guest.
    Alone,
    /// A copy of the driver's sources.
    Module,
    /// What a driver is graded with.
    Grade,
    /// Sources of mutants.
    Mutants,
    /// Sources of hostile drivers.
    Hostile,
    /// A new driver.
    New,
    /// mmdebstrap's own: files in it belong to subordinate ids of an ordinary user's, so removing it takes more.
    Debian,
}

/// Where temporary directories for sockets are.
pub fn base_for_sockets() -> PathBuf {
    let wanted = std::env::temp_dir();
    let too_long = wanted.as_os_str().len() + SOCKET_NAME_MAX > SOCKET_PATH_MAX;
    if too_long { "/tmp".into() } else { wanted }
}

/// A temporary directory; dropping it removes it.
#[derive(Debug)]
pub struct Scratch {
    dir: TempDir,
    // Unlocked after the directory has gone.
    lock: File,
}

impl Scratch {
    /// Makes one in $TMPDIR that only this user can look into, and removes what others left there.
    pub fn new(kind: Kind) -> Result<Self> {
        Self::in_dir(&std::env::temp_dir(), kind)
    }

    /// The same for sockets, whose paths are short: in /tmp if $TMPDIR is too long.
    pub fn for_sockets(kind: Kind) -> Result<Self> {
        Self::in_dir(&base_for_sockets(), kind)
    }

    /// The same in a directory of the caller's choice.
    pub fn in_dir(base: &Path, kind: Kind) -> Result<Self> {
        remove_left_behind(base);
        let kind = kind
            .to_possible_value()
            .context("a kind of directory without a name")?;
        let dir = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", kind.get_name()))
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(base)
            .with_context(|| {
                format!(
                    "cannot make a directory in {}: make it writable or set TMPDIR",
                    base.display()
                )
            })?;
        let lock = lock(dir.path()).context("cannot lock a temporary directory")?;
        Ok(Self { dir, lock })
    }

    /// It stays locked until every child started from here on has ended, too.
    pub fn outlive_the_lab(&self) -> Result<()> {
        crate::child::inherit(&self.lock)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

fn lock(dir: &Path) -> Option<File> {
    let file = File::open(dir).ok()?;
    file.try_lock().ok().map(|()| file)
}

/// Removes what labs that were killed have left in a directory.
pub fn remove_left_behind(base: &Path) {
    let is_root = nix::unistd::geteuid().is_root();
    for dir in left_behind(base, |kind| is_root || kind != Kind::Debian, GRACE) {
        let _ = crate::cache::remove(&dir.path);
    }
}

/// Whether this is a directory that was made here.
pub fn is_one(dir: &Path) -> bool {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(PREFIX) && dir.is_dir()
}

/// Removes a directory that was made here, if nobody uses it.
pub fn remove_unused(dir: &Path) {
    if is_one(dir)
        && let Some(_lock) = lock(dir)
    {
        let _ = crate::cache::remove(dir);
    }
}

/// A directory that no lab uses any more. It stays locked until this is dropped.
#[derive(Debug)]
pub struct LeftBehind {
    /// Where it is.
    pub path: PathBuf,
    _lock: File,
}

/// Directories of these kinds whose lab has gone.
pub fn left_behind(base: &Path, wanted: impl Fn(Kind) -> bool, grace: Duration) -> Vec<LeftBehind> {
    let user = nix::unistd::geteuid().as_raw();
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let kind = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.rsplit_once('-'))
            .and_then(|(kind, _)| Kind::from_str(kind, false).ok());
        kind.is_some_and(&wanted)
            && path
                .symlink_metadata()
                .is_ok_and(|meta| meta.is_dir() && meta.uid() == user)
    };
    let is_old = |path: &PathBuf| {
        let made = path.metadata().and_then(|meta| meta.modified());
        made.ok()
            .and_then(|made| made.elapsed().ok())
            .is_some_and(|age| age >= grace)
    };
    crate::cache::entries(base)
        .into_iter()
        .filter(is_ours)
        .filter(is_old)
        .filter_map(|path| {
            let lock = lock(&path)?;
            Some(LeftBehind { path, _lock: lock })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_directory_goes_with_its_owner_and_one_without_an_owner_is_found() {
        let base = tempfile::tempdir().unwrap();
        let used = Scratch::in_dir(base.path(), Kind::Run).unwrap();
        for name in ["globalfifo-run-left", "globalfifo-other-x", "elsewhere"] {
            fs::create_dir_all(base.path().join(name).join("sub")).unwrap();
        }
        std::os::unix::fs::symlink("/etc", base.path().join("globalfifo-test-link")).unwrap();
        let found = left_behind(base.path(), |_| true, Duration::ZERO);
        let paths: Vec<_> = found.iter().map(|found| found.path.clone()).collect();
        assert_eq!(paths, [base.path().join("globalfifo-run-left")]);
        drop(found);
        let path = used.path().to_owned();
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
        drop(used);
        assert!(!path.exists());
    }

    #[test]
    fn what_each_kind_leaves_is_found() {
        let base = tempfile::tempdir().unwrap();
        for kind in Kind::value_variants() {
            let left = Scratch::in_dir(base.path(), *kind).unwrap();
            let name = left.path().file_name().unwrap().to_owned();
            drop(left);
            fs::create_dir(base.path().join(name)).unwrap();
        }
        let found = left_behind(base.path(), |_| true, Duration::ZERO);
        assert_eq!(found.len(), Kind::value_variants().len());
    }

    #[test]
    fn a_directory_made_this_moment_is_left_alone() {
        let base = tempfile::tempdir().unwrap();
        let fresh = base.path().join("globalfifo-soak-new");
        fs::create_dir(&fresh).unwrap();
        remove_left_behind(base.path());
        assert!(fresh.is_dir());
    }
}
