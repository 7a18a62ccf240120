//! Sockets and logs of one run, in a directory that goes with it.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use nix::fcntl::Flock;
use nix::fcntl::FlockArg;
use tempfile::TempDir;

/// The longest path that a Unix socket can have.
const SOCKET_PATH_MAX: usize = 107;
/// A directory younger than this is not taken for one left behind.
const GRACE: Duration = Duration::from_secs(10);

/// What the directories' names begin with; random letters follow.
const PREFIX: &str = "globalfifo-run-";

/// The directory. It is locked while its lab lives, so that a later one can tell a directory that was left behind.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _dir: Option<(TempDir, Flock<File>)>,
}

impl RunDir {
    /// Makes it, in the shortest of the usual places: sockets have short paths.
    pub fn create() -> Result<Self> {
        let wanted = std::env::temp_dir();
        let too_long = wanted.as_os_str().len() + 50 > SOCKET_PATH_MAX;
        let base = if too_long {
            Path::new("/tmp")
        } else {
            wanted.as_path()
        };
        remove_left_behind(base);
        let mend = || {
            format!(
                "cannot make a directory in {}: make it writable or set TMPDIR",
                base.display()
            )
        };
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(base)
            .with_context(mend)?;
        let lock = lock(dir.path()).context("cannot lock the directory of this run")?;
        Ok(Self {
            path: dir.path().to_owned(),
            _dir: Some((dir, lock)),
        })
    }

    /// A name for printing, without a directory.
    pub fn imagined() -> Self {
        Self {
            path: "/tmp/globalfifo-run-XXXXXX".into(),
            _dir: None,
        }
    }

    /// The console's log.
    pub fn console(&self) -> PathBuf {
        self.path.join("console.log")
    }

    /// What the kernel unpacks at its start, with a root in RAM.
    pub fn initramfs(&self) -> PathBuf {
        self.path.join("initramfs")
    }

    /// The socket of the line by which a guest is woken.
    pub fn alarm(&self) -> PathBuf {
        self.socket("alarm")
    }

    /// A socket.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.sock"))
    }

    /// The device's control socket, where `chosen` or in here.
    pub fn control(&self, chosen: Option<&Path>) -> PathBuf {
        chosen.map_or_else(|| self.socket("control"), Path::to_owned)
    }

    /// Output of a helper program.
    pub fn log(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.log"))
    }
}

fn lock(dir: &Path) -> Option<Flock<File>> {
    let file = File::open(dir).ok()?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()
}

/// Removes what labs that were killed have left.
fn remove_left_behind(base: &Path) {
    let ours = |path: &PathBuf| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let owner = path
            .symlink_metadata()
            .map(|meta| (meta.is_dir(), meta.uid()));
        name.starts_with(PREFIX)
            && owner.is_ok_and(|owner| owner == (true, nix::unistd::geteuid().as_raw()))
    };
    for dir in crate::cache::entries(base).into_iter().filter(ours) {
        // One that was made this moment may not have its lock yet.
        let old = dir
            .metadata()
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|made| made.elapsed().ok());
        if old.is_some_and(|age| age > GRACE) && lock(&dir).is_some() {
            let _ = crate::cache::remove(&dir);
        }
    }
}
