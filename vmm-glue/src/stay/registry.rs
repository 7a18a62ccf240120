// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The machines that stay: a directory each in the cache, with a record of what others need and a lock.
//!
//! Every process of a machine holds the lock open, the keeper and what it has started: so a machine is there as long as one of them is,
//! also when the keeper was killed, and all of them are found without trusting a number that may be someone else's by now. This file must not know what the
//! processes are.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::fs::TryLockError;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use anyhow::Context;
use anyhow::Result;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::Signal;
use serde::Deserialize;
use serde::Serialize;

use crate::cache;
use crate::files;
use crate::scratch;
use crate::vm::recording::Loss;
use crate::vm::rundir;

/// The name of a machine whose user gives it none.
pub const USUAL: &str = "default";
const NAME_MAX: usize = 32;
const LOCK: &str = "lock";
const RECORD: &str = "record.json";
/// The console of a machine that has ended by itself.
const CONSOLE: &str = "console.log";
/// How long a machine's keeper may take to end it.
const ORDERLY: Duration = Duration::from_secs(20);
/// How long a process may take to end by SIGKILL.
const KILL: Duration = Duration::from_secs(10);
/// Somebody who only looks has a lock for less than that.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: u32 = 5;

/// The name of a machine: also that of its directory.
pub fn name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let first = text.chars().next();
    if first.is_some_and(|c| c.is_ascii_alphanumeric())
        && text.chars().all(plain)
        && text.len() <= NAME_MAX
    {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "a machine's name has up to {NAME_MAX} letters, digits, '-', '_' and '.', and begins with a letter or digit"
        ))
    }
}

/// What others need to know of a machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Process id of its keeper.
    pub pid: u32,
    /// When it was started, in seconds since 1970.
    pub since: u64,
    /// When a command was last started or ended there.
    pub used: u64,
    /// How many commands run.
    pub commands: usize,
    /// How far it is.
    pub state: State,
    /// Directory of its sockets and logs.
    #[serde(with = "crate::child::raw::path")]
    pub run: PathBuf,
    /// What its kernel says.
    #[serde(with = "crate::child::raw::path")]
    pub console: PathBuf,
    /// Directories that make up its root, the topmost first.
    #[serde(with = "crate::child::raw::paths")]
    pub trees: Vec<PathBuf>,
    /// Where its commands start.
    pub cwd: String,
    /// What its commands find in their environment.
    pub env: BTreeMap<String, String>,
}

/// How far a machine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is being set up or boots.
    Starting,
    /// It takes commands.
    Running,
    /// It has ended by itself, for this reason.
    Ended(String),
}

impl Record {
    /// Of a machine that is about to be started by this process.
    pub fn new() -> Self {
        Self {
            pid: std::process::id(),
            since: now(),
            used: now(),
            commands: 0,
            state: State::Starting,
            run: PathBuf::new(),
            console: PathBuf::new(),
            trees: Vec::new(),
            cwd: String::new(),
            env: BTreeMap::new(),
        }
    }

    /// What of its console the console's file has not taken. After the machine's end, its last words tell it.
    pub fn loss(&self) -> Option<Loss> {
        Loss::of(&rundir::console_account(&self.run))
    }

    /// Where its keeper takes commands.
    pub fn socket(&self) -> PathBuf {
        socket(&self.run)
    }
}

/// Where the keeper of a machine with this directory takes commands.
pub fn socket(run: &Path) -> PathBuf {
    run.join("machine.sock")
}

/// Seconds since 1970.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

/// What can be seen of a machine from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Its keeper lives; this is what it says.
    Kept(State),
    /// Its keeper was killed, and the rest of it is still there.
    Unattended,
    /// Nothing of it is there any more; why.
    Over(String),
}

/// Where a machine is, or may be.
#[derive(Debug, Clone)]
pub struct Place {
    /// The machine's name.
    pub name: String,
    dir: PathBuf,
}

/// A place that this process has for itself.
#[derive(Debug)]
pub struct Taken {
    place: Place,
    lock: File,
}

/// A process of a machine.
#[derive(Debug)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    fd: OwnedFd,
}

/// All places where a machine is, or has been and left word, by name.
pub fn all() -> Result<Vec<Place>> {
    let mut places: Vec<Place> = cache::entries(&machines()?)
        .into_iter()
        .filter_map(|dir| {
            let name = dir.file_name()?.to_str()?.to_owned();
            Some(Place { name, dir })
        })
        .collect();
    places.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(places)
}

fn machines() -> Result<PathBuf> {
    Ok(cache::location()?.join("machines"))
}

impl Place {
    /// Of this name.
    pub fn of(name: &str) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            dir: machines()?.join(name),
        })
    }

    /// Whether there is or was a machine of which something is known.
    pub fn is_known(&self) -> bool {
        self.dir.is_dir()
    }

    /// What others need to know of the machine.
    pub fn record(&self) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.dir.join(RECORD)).ok()?).ok()
    }

    /// Whether a process of the machine is there.
    pub fn is_alive(&self) -> bool {
        File::open(self.dir.join(LOCK))
            .is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Returns once no process of the machine is there any more.
    pub fn wait_until_over(&self) -> Result<()> {
        match File::open(self.dir.join(LOCK)) {
            Ok(lock) => lock
                .lock_shared()
                .with_context(|| format!("cannot wait for the machine {}", self.name)),
            Err(_) => Ok(()),
        }
    }

    /// How it looks from outside.
    pub fn seen(&self) -> Seen {
        let record = self.record();
        if !self.is_alive() {
            return Seen::Over(match record.map(|record| record.state) {
                Some(State::Ended(why)) => why,
                _ => "its processes were killed".to_owned(),
            });
        }
        match record {
            Some(record) if self.holders().iter().any(|holder| holder.pid == record.pid) => {
                Seen::Kept(record.state)
            }
            // Its keeper has not said anything yet.
            None => Seen::Kept(State::Starting),
            Some(_) => Seen::Unattended,
        }
    }

    /// All processes of the machine: those that have its lock open.
    pub fn holders(&self) -> Vec<Holder> {
        let Ok(lock) = self.dir.join(LOCK).canonicalize() else {
            return Vec::new();
        };
        cache::entries(Path::new("/proc"))
            .into_iter()
            .filter_map(|process| {
                let pid: u32 = process.file_name()?.to_str()?.parse().ok()?;
                if pid == std::process::id() {
                    return None;
                }
                // First of all: what is looked at from here on is this process.
                let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
                let fd = rustix::process::pidfd_open(raw, PidfdFlags::empty()).ok()?;
                let holds = cache::entries(&process.join("fd"))
                    .iter()
                    .any(|fd| fs::read_link(fd).is_ok_and(|target| target == lock));
                holds.then_some(Holder { pid, fd })
            })
            .collect()
    }

    /// Takes the place for a new machine; `None` if there is one.
    pub fn take(&self) -> Result<Option<Taken>> {
        cache::create_dirs(&self.dir)
            .with_context(|| format!("cannot make {}", self.dir.display()))?;
        let path = self.dir.join(LOCK);
        for _ in 0..LOOKS {
            let lock = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .with_context(|| format!("cannot open the lock {}", path.display()))?;
            match lock.try_lock() {
                Ok(()) if is_at(&lock, &path) => {
                    return Ok(Some(Taken {
                        place: self.clone(),
                        lock,
                    }));
                }
                // Who had it has removed it.
                Ok(()) => cache::create_dirs(&self.dir)?,
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK),
                Err(TryLockError::Error(err)) => {
                    return Err(err).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
        }
        Ok(None)
    }

    /// Ends the machine, and all that is left of it goes: in an orderly way by its keeper, by SIGKILL if that is not there.
    pub fn end(&self) -> Result<()> {
        let record = self.record();
        let keeper = record.as_ref().map(|record| record.pid);
        let holders = self.holders();
        // Of a machine whose keeper was killed before it could say where they are, too.
        let dirs: Vec<PathBuf> = holders.iter().flat_map(Holder::scratch_dirs).collect();
        if let Some(holder) = holders.iter().find(|holder| Some(holder.pid) == keeper) {
            holder.signal(Signal::TERM);
            holder.wait(ORDERLY);
        }
        for holder in self.holders() {
            holder.signal(Signal::KILL);
            holder.wait(KILL);
        }
        let Some(taken) = self.take()? else {
            anyhow::bail!(
                "a process of the machine {} cannot be ended: it belongs to another user, or waits in the kernel",
                self.name
            );
        };
        dirs.iter().for_each(|dir| scratch::remove_unused(dir));
        if let Some(record) = &record {
            scratch::remove_unused(&record.run);
        }
        taken.remove()
    }
}

impl Holder {
    /// Temporary directories of the lab's that it holds open.
    fn scratch_dirs(&self) -> Vec<PathBuf> {
        let fds = cache::entries(&Path::new("/proc").join(self.pid.to_string()).join("fd"));
        fds.iter()
            .filter_map(|fd| fs::read_link(fd).ok())
            .filter(|target| scratch::is_one(target))
            .collect()
    }

    fn signal(&self, signal: Signal) {
        let _ = rustix::process::pidfd_send_signal(&self.fd, signal);
    }

    fn wait(&self, limit: Duration) {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let limit = Timespec::try_from(limit).ok();
        while rustix::event::poll(&mut fds, limit.as_ref()) == Err(rustix::io::Errno::INTR) {}
    }
}

impl Taken {
    /// Every process started from here on belongs to the machine.
    pub fn outlive_the_lab(&self) -> Result<()> {
        crate::child::inherit(&self.lock)
    }

    /// Tells others.
    pub fn write(&self, record: &Record) -> Result<()> {
        let (path, new) = (self.place.dir.join(RECORD), self.place.dir.join("new"));
        fs::write(&new, serde_json::to_vec(record)?)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Leaves word of a machine that has ended by itself, with its console.
    pub fn ended(&self, mut record: Record, why: &str) -> Result<()> {
        let kept = self.place.dir.join(CONSOLE);
        let loss = record.loss().map(|loss| loss.told(&record.console));
        let copied = files::copy_or_nothing(&record.console, &kept).err();
        let not_kept = copied.map(|err| format!("its console is not kept: {err:#}"));
        let words = std::iter::once(why.to_owned()).chain(loss).chain(not_kept);
        record.state = State::Ended(words.collect::<Vec<_>>().join("\n"));
        record.console = kept;
        record.commands = 0;
        self.write(&record)
    }

    /// Nothing is left of the machine.
    pub fn remove(self) -> Result<()> {
        cache::remove(&self.place.dir)
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

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::process::Stdio;

    use super::*;

    fn place(dir: &Path) -> Place {
        Place {
            name: "x".to_owned(),
            dir: dir.join("x"),
        }
    }

    #[test]
    fn a_name_is_one_plain_folder() {
        for good in ["x", "default", "a-b_c.1", "9"] {
            assert_eq!(name(good).unwrap(), good);
        }
        for bad in ["", ".", "..", "-x", "a/b", "é", "a b", &"x".repeat(33)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_machine_is_there_until_the_last_of_its_processes_has_ended() {
        let base = tempfile::tempdir().unwrap();
        let place = place(base.path());
        let taken = place.take().unwrap().unwrap();
        assert!(place.is_alive());
        assert!(place.take().unwrap().is_none());
        let mut record = Record::new();
        // The keeper is a process that has been killed.
        let mut keeper = Command::new("true").spawn().unwrap();
        record.pid = keeper.id();
        keeper.wait().unwrap();
        taken.write(&record).unwrap();
        taken.outlive_the_lab().unwrap();
        let mut part = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        drop(taken);
        assert_eq!(place.seen(), Seen::Unattended);
        let holders: Vec<u32> = place.holders().iter().map(|holder| holder.pid).collect();
        assert_eq!(holders, [part.id()]);
        // Waiting for a child closes its input, which would end it.
        let _input = part.stdin.take();
        let waiter = std::thread::spawn(move || part.wait().unwrap());
        place.end().unwrap();
        assert!(!waiter.join().unwrap().success());
        assert!(!place.is_known());
    }

    #[test]
    fn a_machine_that_ended_by_itself_leaves_word_and_its_console_and_its_place_can_be_taken_again()
    {
        let base = tempfile::tempdir().unwrap();
        let place = place(base.path());
        let taken = place.take().unwrap().unwrap();
        let mut record = Record::new();
        record.console = base.path().join("console");
        fs::write(&record.console, "Linux").unwrap();
        taken.ended(record, "panic").unwrap();
        drop(taken);
        assert_eq!(place.seen(), Seen::Over("panic".to_owned()));
        let console = place.record().unwrap().console;
        assert_eq!(fs::read_to_string(console).unwrap(), "Linux");
        place.take().unwrap().unwrap().remove().unwrap();
        assert!(!place.is_known());
    }
}
