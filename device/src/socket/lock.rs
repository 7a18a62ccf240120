// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which process a path belongs to: a lock on a file beside it, which goes with the process.
//!
//! A file that a daemon left when it was killed is told by it from one that a living daemon uses,
//! and two daemons that start at once cannot both replace it. The lock's file is removed at an orderly
//! end. It must not know what is at the path.

use std::fs;
use std::fs::File;
use std::fs::TryLockError;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use nix::fcntl::OFlag;

/// A path that is this process's, until it is dropped.
#[derive(Debug)]
pub struct PathLock {
    file: PathBuf,
    /// Closing it unlocks.
    _locked: File,
}

impl PathLock {
    /// Locks `path`; `None` if a living process has it.
    ///
    /// # Errors
    ///
    /// When the file of the lock, `path` with `.lock` added, cannot be made.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = path.with_added_extension("lock");
        loop {
            let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
            let locked = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(flags.bits())
                .open(&file)?;
            match locked.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Its last owner may have removed it between the two calls: then it locks nothing.
            if is_at(&locked, &file)? {
                return Ok(Some(Self {
                    file,
                    _locked: locked,
                }));
            }
        }
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        // While it is locked: so it is the one that everybody finds. One that stays does no harm.
        let _ = fs::remove_file(&self.file);
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    Ok(fs::symlink_metadata(path)
        .is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_locked_once_and_its_lock_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = PathLock::take(&path).unwrap().unwrap();
        assert!(PathLock::take(&path).unwrap().is_none());
        drop(first);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        // One that was left, unlocked.
        fs::write(dir.path().join("s.lock"), "").unwrap();
        assert!(PathLock::take(&path).unwrap().is_some());
    }

    #[test]
    fn a_link_in_the_place_of_the_lock_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::os::unix::fs::symlink(&victim, dir.path().join("s.lock")).unwrap();
        PathLock::take(&dir.path().join("s")).unwrap_err();
        assert!(!victim.exists());
    }
}
