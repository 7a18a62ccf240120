// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The process between QEMU and the file of a console.
//!
//! QEMU drops the bytes that a file does not take, and keeps no account of them. So QEMU writes to a pipe, and a process of the lab's copies the
//! pipe to the file. That process counts the bytes that the file does not take, and goes on reading: the guest never waits for a disk. It ends
//! with QEMU, not with the lab, so the console of a machine that stays goes on without its keeper.
//!
//! The account is a file of the run, whose bytes are there from the beginning: changing them takes no space. This file must not know what a
//! console says.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::Context;
use anyhow::Result;
use rustix::io::Errno;

use super::rundir::RunDir;
use crate::child::Place;
use crate::child::Running;
use crate::child::Spec;
use crate::exit;
use crate::exit::Exit;
use crate::streams;
use crate::ui;

/// First argument that makes the lab such a process.
pub const SUBCOMMAND: &str = "@console";
/// Bytes of an account.
const ACCOUNT: usize = 32;

/// Bytes of a console that its file has not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    bytes: u64,
    why: Errno,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = io::Error::from(self.why);
        match self.bytes {
            0 => write!(f, "its last bytes are missing: {why}"),
            bytes => write!(f, "{bytes} bytes are missing: {why}"),
        }
    }
}

impl Loss {
    /// The loss of the machine with this account, if there is one.
    pub fn of(account: &Path) -> Option<Self> {
        let text = fs::read_to_string(account).ok()?;
        let (why, bytes) = text.trim().split_once(' ')?;
        Some(Self {
            bytes: bytes.parse().ok()?,
            why: Errno::from_raw_os_error(why.parse().ok()?),
        })
    }

    /// The same as an account.
    fn account(self) -> String {
        let text = format!("{} {}", self.why.raw_os_error(), self.bytes);
        format!("{text:<ACCOUNT$}")
    }

    /// As words for a message about the console in this file.
    pub fn told(&self, console: &Path) -> String {
        let console = console.display();
        format!("the console in {console} is cut: {self}; free some space there")
    }

    /// Tells it. The console of a user who has named a file for it is something asked for: without all of it, the lab's status is not 0.
    pub fn tell(&self, console: &Path, is_users: bool) {
        let text = self.told(console);
        if is_users {
            ui::error(&text);
            streams::is_incomplete(Exit {
                status: exit::FAILURE,
                message: String::new(),
            });
        } else {
            ui::warn(&format!(
                "{text}, or set TMPDIR; a complaint of the guest's kernel may be among what is missing"
            ));
        }
    }
}

/// Starts the process that writes the console of a run; QEMU has to open the pipe.
pub fn start(run: &RunDir, place: Place) -> Result<Running> {
    let pipe = run.console_pipe();
    nix::unistd::mkfifo(
        &pipe,
        nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR,
    )
    .with_context(|| format!("cannot make the pipe {}", pipe.display()))?;
    let account = run.console_account();
    fs::write(&account, [b' '; ACCOUNT])
        .with_context(|| format!("cannot write {}", account.display()))?;
    let console = run.console();
    let file = File::create(&console)
        .with_context(|| format!("cannot write the console to {}", console.display()))?;
    let mut command = Spec::new("/proc/self/exe")
        .arg(SUBCOMMAND)
        .arg(pipe)
        .arg(account)
        .place(place)
        .command();
    command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(Stdio::null());
    Running::start("the console's writer", command)
}

/// The same without the account.
pub fn shell(run: &RunDir) -> String {
    let (pipe, console) = (run.console_pipe(), run.console());
    let [make, copy] = ["mkfifo", "cat"].map(|program| Spec::new(program).arg(&pipe).shell());
    let to = Spec::new(console).shell();
    format!("{make} && {copy} >{to} &")
}

/// Copies the pipe to standard output until QEMU has ended; `args` are the paths of pipe and account.
pub fn main(args: &[OsString]) -> ExitCode {
    let [pipe, account] = args else {
        eprintln!("lab: `{SUBCOMMAND}` is the lab's own");
        return ExitCode::from(exit::USAGE);
    };
    match record(Path::new(pipe), Path::new(account)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(exit::FAILURE),
    }
}

fn record(pipe: &Path, account: &Path) -> io::Result<()> {
    // At a limit of the file's size (ulimit -f), a write is to fail and not to end the process.
    signal_hook::flag::register(nix::libc::SIGXFSZ, Arc::default())?;
    let file = File::from(rustix::stdio::stdout().try_clone_to_owned()?);
    let account = File::options().write(true).open(account)?;
    let recording = Recording {
        file,
        account,
        loss: None,
        gap: 0,
    };
    recording.copy(File::open(pipe)?)
}

/// A console on its way.
#[derive(Debug)]
struct Recording {
    file: File,
    account: File,
    /// All of it.
    loss: Option<Loss>,
    /// Bytes lost since the file has last taken one.
    gap: u64,
}

impl Recording {
    fn copy(mut self, mut from: impl Read) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => self.take(buffer.get(..count).unwrap_or_default()),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        self.end()
    }

    /// Writes what the file takes. What follows a gap begins with a line about it.
    fn take(&mut self, bytes: &[u8]) {
        if self.gap > 0 && !self.mark() {
            let why = self.loss.map_or(Errno::NOSPC, |loss| loss.why);
            return self.lose(bytes.len(), why);
        }
        let mut left = bytes;
        while !left.is_empty() {
            match rustix::io::write(&self.file, left) {
                Ok(count) => left = left.get(count..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(err) => return self.lose(left.len(), err),
            }
        }
    }

    /// Writes the line about a gap; false, and nothing of it is there, if the file does not take it.
    fn mark(&mut self) -> bool {
        let Some(loss) = self.loss else {
            return true;
        };
        let gap = Loss {
            bytes: self.gap,
            ..loss
        };
        let Ok(length) = self.file.metadata().map(|file| file.len()) else {
            return false;
        };
        let line = format!("\n[lab: {gap}]\n");
        if streams::write_all(self.file.as_fd(), line.as_bytes()).is_err() {
            let _ = self.file.set_len(length);
            let _ = rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Start(length));
            return false;
        }
        self.gap = 0;
        true
    }

    fn lose(&mut self, count: usize, why: Errno) {
        let bytes = self.loss.map_or(0, |loss| loss.bytes);
        self.gap = self.gap.saturating_add(count as u64);
        let loss = Loss {
            bytes: bytes.saturating_add(count as u64),
            why: self.loss.map_or(why, |loss| loss.why),
        };
        self.loss = Some(loss);
        // Nothing can be told elsewhere.
        let _ = self.account.write_all_at(loss.account().as_bytes(), 0);
    }

    /// A network's file system says only now that it has no space.
    fn end(mut self) -> io::Result<()> {
        let copy = self.file.try_clone()?;
        if let Err(err) = nix::unistd::close(copy) {
            self.lose(0, Errno::from_raw_os_error(err as i32));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn recording(file: &Path, account: &Path) -> Recording {
        fs::write(account, [b' '; ACCOUNT]).unwrap();
        Recording {
            file: File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(file)
                .unwrap(),
            account: File::options().write(true).open(account).unwrap(),
            loss: None,
            gap: 0,
        }
    }

    #[test]
    fn a_console_that_fits_is_whole_and_has_no_account() {
        let dir = tempfile::tempdir().unwrap();
        let (file, account) = (dir.path().join("console"), dir.path().join("account"));
        let text: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        recording(&file, &account).copy(Cursor::new(&text)).unwrap();
        assert!(fs::read(&file).unwrap() == text);
        assert_eq!(Loss::of(&account), None);
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_counted_and_the_pipe_is_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let account = dir.path().join("account");
        let mut console = Cursor::new(vec![b'x'; 100_000]);
        recording(Path::new("/dev/full"), &account)
            .copy(&mut console)
            .unwrap();
        assert_eq!(console.position(), 100_000);
        let loss = Loss::of(&account).unwrap();
        assert_eq!(
            loss.to_string(),
            "100000 bytes are missing: No space left on device (os error 28)"
        );
        assert_eq!(account.metadata().unwrap().len(), ACCOUNT as u64);
    }

    #[test]
    fn a_gap_is_marked_where_the_console_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (file, account) = (dir.path().join("console"), dir.path().join("account"));
        let mut recording = recording(&file, &account);
        recording.take(b"before");
        let disk = std::mem::replace(
            &mut recording.file,
            File::options().write(true).open("/dev/full").unwrap(),
        );
        recording.take(b"lost");
        recording.take(b"too");
        recording.file = disk;
        recording.take(b"after");
        recording.end().unwrap();
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            "before\n[lab: 7 bytes are missing: No space left on device (os error 28)]\nafter"
        );
        assert_eq!(Loss::of(&account).unwrap().bytes, 7);
    }
}
