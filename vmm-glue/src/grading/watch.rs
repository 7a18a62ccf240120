// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Waits until a source is saved: the file with what lies beside it, or the folder with what is in it. It must not know what follows.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::fs::inotify;
use rustix::fs::inotify::WatchFlags;

use crate::cancel;
use crate::stages::module::is_source;

/// An editor writes in several steps: it has saved when nothing has happened for so long.
const QUIET: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// Changes since it was made.
#[derive(Debug)]
pub struct Watch {
    changes: OwnedFd,
}

impl Watch {
    /// Watches a source.
    pub fn on(path: &Path) -> Result<Self> {
        let what = || format!("--watch: cannot watch {}", path.display());
        let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .with_context(what)?;
        // By its folder: most editors put a new file in the place of the old one.
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::ONLYDIR;
        for folder in folders(path) {
            inotify::add_watch(&changes, &folder, flags).with_context(what)?;
        }
        Ok(Self { changes })
    }

    /// Waits for a change of a source; an error once the lab has been asked to end.
    pub fn wait(self) -> Result<()> {
        let mut changed = false;
        loop {
            let mut fds = vec![PollFd::new(&self.changes, PollFlags::IN)];
            fds.extend(cancel::fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            let limit = changed.then_some(&QUIET);
            match rustix::event::poll(&mut fds, limit) {
                Err(rustix::io::Errno::INTR) => continue,
                Ok(0) => return Ok(()),
                other => other.context("--watch: cannot wait")?,
            };
            cancel::check()?;
            changed |= self.has_source();
        }
    }

    /// Takes what has happened; whether any of it was to a source.
    fn has_source(&self) -> bool {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.changes, &mut buffer);
        let mut found = false;
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|name| name.to_string_lossy());
            found |= name.is_some_and(|name| is_source(Path::new(&*name)) && !name.ends_with('~'));
        }
        found
    }
}

/// The folder of a file; a folder and those in it.
fn folders(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        return vec![parent.unwrap_or(Path::new(".")).to_owned()];
    }
    let mut all = vec![path.to_owned()];
    let mut at = 0;
    while let Some(folder) = all.get(at).cloned() {
        at += 1;
        let inside = crate::cache::entries(&folder).into_iter();
        all.extend(inside.filter(|dir| dir.is_dir() && !dir.is_symlink() && is_source(dir)));
    }
    all
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_saved_source_ends_the_wait_and_what_a_build_leaves_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sub")).unwrap();
        let watch = Watch::on(dir.path()).unwrap();
        for name in ["x.o", ".x.c.swp", "x.c~", "x.mod.c"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert!(!watch.has_source());
        fs::write(dir.path().join("new"), "text").unwrap();
        fs::rename(dir.path().join("new"), dir.path().join("sub/x.c")).unwrap();
        watch.wait().unwrap();
    }

    #[test]
    fn a_file_is_watched_by_its_folder() {
        assert_eq!(folders(Path::new("x.c")), [PathBuf::from(".")]);
        assert_eq!(folders(Path::new("/a/x.c")), [PathBuf::from("/a")]);
    }
}
