// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The cache: directories made once from known inputs, shared by any number of labs, trusted only when complete.
//!
//! An entry is built in a temporary sibling under an exclusive lock, made durable, and renamed into place; so it is either absent or whole,
//! whatever interrupts. Whoever uses an entry holds a shared lock on it. The kernel drops both kinds of lock with their owner: nothing here
//! needs a process to have ended in an orderly way. This file must not know what the entries are.

use std::fs;
use std::fs::File;
use std::fs::TryLockError;
use std::io::Seek;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;

use crate::cancel;
use crate::key::Key;
use crate::ui;

/// In every entry: written last, tells what the entry was made from.
const MARKER: &str = ".complete";
/// How many entries of a kind are kept beside the one in use.
const KEPT: usize = 2;
/// How many logs of failures are kept.
const LOGS_KEPT: usize = 20;
/// The lock that every lab shares, and that cleaning takes alone.
pub const IN_USE: &str = "in-use";
const POLL: Duration = Duration::from_millis(100);

/// The cache, held open against `cargo lab clean`.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    /// Shared by every lab that runs, exclusive for cleaning.
    in_use: File,
}

/// A complete entry; it stays while this exists.
#[derive(Debug)]
pub struct Entry {
    path: PathBuf,
    lock: File,
}

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// With others.
    Shared,
    /// Alone.
    Alone,
}

impl Entry {
    /// A path inside.
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path.join(path)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// It stays until every child started from here on has ended, too.
    pub fn outlive_the_lab(&self) -> Result<()> {
        crate::child::inherit(&self.lock)
    }
}

/// `$XDG_CACHE_HOME/globalfifo`, or `~/.cache/globalfifo`.
pub fn location() -> Result<PathBuf> {
    let dir = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = dir("XDG_CACHE_HOME").or_else(|| dir("HOME").map(|home| home.join(".cache")));
    let root = base
        .context("no place for the cache: set XDG_CACHE_HOME or HOME to an absolute path")?
        .join("globalfifo");
    if let Some(taken) = crate::escape::taken_by_ld_so(root.as_os_str()) {
        return Err(crate::exit::usage(format!(
            "the cache cannot be in {}: programs are loaded from it, and the loader takes '{taken}' in a path for something else; name another \
             place in XDG_CACHE_HOME",
            root.display()
        )));
    }
    Ok(root)
}

/// The existing directory on the way to this one whose disk runs no programs, if so.
pub fn mounted_noexec(dir: &Path) -> Option<PathBuf> {
    let existing = dir.ancestors().find(|dir| dir.is_dir())?;
    let flags = rustix::fs::statvfs(existing).ok()?.f_flag;
    flags
        .contains(rustix::fs::StatVfsMountFlags::NOEXEC)
        .then(|| existing.to_owned())
}

/// Makes a directory and those above it; all that are new can be entered and read by everybody, whatever the user's umask: a guest's users
/// have other ids.
pub fn create_dirs(dir: &Path) -> std::io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        create_dirs(parent)?;
    }
    match fs::create_dir(dir) {
        Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(err) => Err(err),
        Ok(()) => fs::set_permissions(dir, fs::Permissions::from_mode(0o755)),
    }
}

impl Cache {
    /// Opens it, making it if needed.
    pub fn open() -> Result<Self> {
        let root = location()?;
        if let Some(dir) = mounted_noexec(&root) {
            anyhow::bail!(
                "programs are started from the cache, and {} is mounted noexec: put the cache elsewhere with XDG_CACHE_HOME, or remount it with exec",
                dir.display()
            );
        }
        make_parts(&root)?;
        let (in_use, _) = wait_for(
            &root.join("locks").join(IN_USE),
            || Hold::Shared,
            "another lab is cleaning the cache",
        )?;
        // That lab may have removed all of it.
        make_parts(&root)?;
        keep_newest(entries(&root.join("logs")), LOGS_KEPT, |path| {
            drop(remove(path));
        });
        crate::scratch::remove_left_behind(&root);
        let cache = Self { root, in_use };
        cache.remove_partial();
        Ok(cache)
    }

    /// Opens it for cleaning: nobody else uses it meanwhile. `None` if there is no cache.
    pub fn open_exclusive() -> Result<Option<Self>> {
        let root = location()?;
        let path = root.join("locks").join(IN_USE);
        if !path.is_file() {
            return Ok(None);
        }
        let in_use = open_lock(&path)?;
        match in_use.try_lock() {
            Ok(()) => Ok(Some(Self { root, in_use })),
            Err(_) => anyhow::bail!(
                "a lab is running and uses the cache {}: end it first",
                root.display()
            ),
        }
    }

    /// It is in use until every child started from here on has ended, too.
    pub fn outlive_the_lab(&self) -> Result<()> {
        crate::child::inherit(&self.in_use)
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// An empty directory to mount things on, in a namespace of one's own.
    pub fn mountpoint(&self) -> PathBuf {
        self.root.join("mountpoint")
    }

    /// Where the log of a stage goes while it is being built, and stays if that fails.
    pub fn log(&self, stage: &str) -> PathBuf {
        self.root
            .join("logs")
            .join(format!("{stage}-{}.log", std::process::id()))
    }

    /// True if the entry is there.
    pub fn has(&self, stage: &str, key: &Key) -> bool {
        self.path(stage, key).join(MARKER).is_file()
    }

    /// Where an entry is, or would be.
    pub fn path(&self, stage: &str, key: &Key) -> PathBuf {
        self.root.join("stages").join(stage).join(&key.id)
    }

    fn lock_path(&self, stage: &str, id: &str) -> PathBuf {
        self.root.join("locks").join(format!("{stage}-{id}"))
    }

    /// The entry for a key; built by `build` in the directory it is given if nobody has done so yet.
    pub fn obtain(
        &self,
        stage: &str,
        key: &Key,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Entry> {
        let path = self.path(stage, key);
        let lock_path = self.lock_path(stage, &key.id);
        // An entry that is there is shared, also with its maker, who uses it from then on.
        let how = || {
            if self.has(stage, key) {
                Hold::Shared
            } else {
                Hold::Alone
            }
        };
        let why = format!("another lab is building the {stage} of this cache");
        let mut lock = loop {
            match wait_for(&lock_path, how, &why)? {
                (lock, Hold::Shared) if self.has(stage, key) => return Ok(Entry { path, lock }),
                // It was removed in between.
                (_, Hold::Shared) => {}
                (lock, Hold::Alone) => break lock,
            }
        };
        if !self.has(stage, key) {
            note_owner(&mut lock)?;
            self.build(&path, key, build)
                .map_err(|err| full_disk(err, &self.root))?;
            self.prune(stage, &key.id);
        }
        // Others may come in between; the entry is whole, and only an exclusive lock could remove it.
        lock.lock_shared().context("cannot share the lock")?;
        anyhow::ensure!(
            self.has(stage, key),
            "another lab removed the {stage} just made: run it again"
        );
        Ok(Entry { path, lock })
    }

    /// Removes what labs that were killed have left half made, of whatever key.
    fn remove_partial(&self) {
        let stages = entries(&self.root.join("stages")).into_iter();
        // A stage that is a link is another cache's, with locks of its own.
        for stage in stages.filter(|stage| !stage.is_symlink()) {
            let name = id_of(&stage);
            let is_partial = |path: &PathBuf| path.extension().is_some_and(|ext| ext == "partial");
            for partial in entries(&stage).into_iter().filter(is_partial) {
                self.remove_unused(&name, &partial);
            }
        }
    }

    fn build(&self, path: &Path, key: &Key, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let parent = path.parent().context("a cache entry has a parent")?;
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
        // Ours alone, as the lock is: what is there is what an interrupted lab left.
        let temporary = parent.join(format!("{}.partial", key.id));
        remove(&temporary)?;
        remove(path)?;
        create_dirs(&temporary)
            .with_context(|| format!("cannot create {}", temporary.display()))?;
        let result = build(&temporary)
            .and_then(|()| cancel::check())
            .and_then(|()| publish(&temporary, path, key));
        if result.is_err() {
            let _ = remove(&temporary);
        }
        result
    }

    /// Removes a whole stage; its entries lose their markers first, so that half a removal leaves nothing trusted.
    pub fn forget(&self, stage: &Path) -> Result<()> {
        if !stage.is_symlink() {
            for entry in entries(stage) {
                remove(&entry.join(MARKER))?;
            }
        }
        remove(stage)
    }

    /// Removes all of it, this lock included. Only for who has it alone.
    pub fn forget_all(self) -> Result<()> {
        remove(&self.root)
    }

    /// Removes old entries of a stage that nobody uses, but for a few.
    fn prune(&self, stage: &str, current: &str) {
        let dir = self.root.join("stages").join(stage);
        let others = entries(&dir)
            .into_iter()
            .filter(|path| id_of(path) != current)
            .collect();
        keep_newest(others, KEPT, |path| self.remove_unused(stage, path));
    }

    fn remove_unused(&self, stage: &str, path: &Path) {
        let id = id_of(path);
        let Ok(file) = open_lock(&self.lock_path(stage, &id)) else {
            return;
        };
        if file.try_lock().is_ok() {
            // The marker goes first: an entry half removed must not be trusted.
            let _ = fs::remove_file(path.join(MARKER));
            let _ = remove(path);
            // Nobody else has it open for long: whoever gets a lock looks whether it is still the one of that name.
            let _ = fs::remove_file(self.lock_path(stage, &id));
        }
    }
}

fn make_parts(root: &Path) -> Result<()> {
    for dir in ["stages", "locks", "logs", "mountpoint"] {
        let dir = root.join(dir);
        fs::create_dir_all(&dir).with_context(|| {
            format!(
                "cannot create {}: make it writable, or put the cache elsewhere with XDG_CACHE_HOME",
                dir.display()
            )
        })?;
    }
    Ok(())
}

/// Entries, whole or not, of a stage's directory.
pub fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .map(|found| found.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

/// Hands the older ones on for removal.
fn keep_newest(mut paths: Vec<PathBuf>, count: usize, remove: impl Fn(&Path)) {
    paths.sort_by_key(|path| {
        std::cmp::Reverse(path.metadata().and_then(|meta| meta.modified()).ok())
    });
    paths.iter().skip(count).for_each(|path| remove(path));
}

fn id_of(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Makes a built directory durable and gives it its name.
fn publish(temporary: &Path, path: &Path, key: &Key) -> Result<()> {
    fs::write(temporary.join(MARKER), &key.inputs)
        .context("cannot mark the cache entry complete")?;
    let dir = File::open(temporary)?;
    rustix::fs::syncfs(&dir).context("cannot write the cache entry to the disk")?;
    fs::rename(temporary, path)
        .with_context(|| format!("cannot move the cache entry to {}", path.display()))?;
    if let Some(parent) = path.parent() {
        File::open(parent)?
            .sync_all()
            .with_context(|| format!("cannot write {} to the disk", parent.display()))?;
    }
    Ok(())
}

fn open_lock(path: &Path) -> Result<File> {
    if let Some(parent) = path.parent() {
        let _ = fs::create_dir_all(parent);
    }
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .with_context(|| format!("cannot open the lock {}", path.display()))
}

/// Takes a lock, as `how` wants it at each try, saying why it waits.
fn wait_for(path: &Path, how: impl Fn() -> Hold, why: &str) -> Result<(File, Hold)> {
    let mut file = open_lock(path)?;
    let mut told = false;
    loop {
        let hold = how();
        let tried = match hold {
            Hold::Shared => file.try_lock_shared(),
            Hold::Alone => file.try_lock(),
        };
        match tried {
            Ok(()) if is_at(&file, path) => return Ok((file, hold)),
            // Its name has gone, or is another file's by now.
            Ok(()) => {
                file = open_lock(path)?;
                continue;
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(err)) => {
                return Err(err).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        if !told {
            let owner = std::io::read_to_string(&file).unwrap_or_default();
            ui::say(&format!("{why}{}: waiting for it", owner.trim_end()));
            told = true;
        }
        cancel::check()?;
        std::thread::sleep(POLL);
    }
}

/// Whether a lock is still the one that others find by its path.
fn is_at(lock: &File, path: &Path) -> bool {
    let id = |meta: fs::Metadata| (meta.dev(), meta.ino());
    match (lock.metadata(), path.metadata()) {
        (Ok(held), Ok(named)) => id(held) == id(named),
        _ => false,
    }
}

/// Tells those who wait who holds the lock.
fn note_owner(lock: &mut File) -> Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, " (process {})", std::process::id()).context("cannot write the lock")
}

fn full_disk(err: anyhow::Error, root: &Path) -> anyhow::Error {
    let full = err
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|err| {
            matches!(
                err.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            )
        });
    if full {
        err.context(format!(
            "no space left for the cache in {}: free some, or put it elsewhere with XDG_CACHE_HOME",
            root.display()
        ))
    } else {
        err
    }
}

/// Removes a file or a directory, also where directories in it are not writable; that it is not there is no error.
pub fn remove(path: &Path) -> Result<()> {
    if path.is_dir() && !path.is_symlink() {
        if fs::remove_dir_all(path).is_ok() {
            return Ok(());
        }
        make_writable(path);
    }
    let removed = if path.is_dir() && !path.is_symlink() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            Err(err).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn make_writable(dir: &Path) {
    let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
    for path in entries(dir) {
        if path.is_dir() && !path.is_symlink() {
            make_writable(&path);
        }
    }
}

/// Bytes that a directory takes on the disk; files with several names count once.
pub fn size(path: &Path) -> u64 {
    let mut seen = std::collections::HashSet::new();
    let mut total = 0;
    let mut todo = vec![path.to_owned()];
    while let Some(path) = todo.pop() {
        let Ok(meta) = path.symlink_metadata() else {
            continue;
        };
        if meta.nlink() <= 1 || meta.is_dir() || seen.insert((meta.dev(), meta.ino())) {
            total += meta.blocks() * 512;
        }
        if meta.is_dir() {
            todo.extend(entries(&path));
        }
    }
    total
}

#[cfg(test)]
mod tests;
