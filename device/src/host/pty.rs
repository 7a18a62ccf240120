// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A FIFO on a pseudo-terminal, in raw mode: programs open its slave as they would a serial line.
//!
//! While no program has it open, nothing is written, and the master, which the kernel then reports
//! as hung up over and over, is not watched; inotify tells when the slave is opened.

use std::fs;
use std::io;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use event_manager::EventOps;
use event_manager::EventSet;
use event_manager::Events;
use event_manager::MutEventSubscriber;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::pty::PtyMaster;
use nix::pty::grantpt;
use nix::pty::posix_openpt;
use nix::pty::ptsname_r;
use nix::pty::unlockpt;
use nix::sys::inotify::AddWatchFlags;
use nix::sys::inotify::InitFlags;
use nix::sys::inotify::Inotify;
use nix::sys::termios::SetArg;
use nix::sys::termios::cfmakeraw;
use nix::sys::termios::tcgetattr;
use nix::sys::termios::tcsetattr;
use tracing::debug;
use tracing::error;
use tracing::warn;

use super::HostError;
use super::pump;
use super::pump::Flow;
use super::pump::Pump;
use crate::device::Device;
use crate::fifo::Connection;
use crate::socket::PathLock;
use crate::socket::SocketFile;

/// Where slaves of pseudo-terminals are.
const TERMINALS: &str = "/dev/pts";

/// See the module.
pub struct Pty {
    pump: Pump,
    master: Master,
    path: PathBuf,
    opened: Inotify,
    /// Whether some program has the slave open, as far as is known.
    attached: bool,
    _link: Option<SocketFile>,
}

impl Pty {
    pub fn open(
        device: &Arc<Device>,
        index: u16,
        capacity: usize,
        link: Option<&Path>,
    ) -> Result<Self, HostError> {
        let (master, path, opened) =
            make().map_err(|errno| HostError::Pty(io::Error::from(errno)))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(HostError::Pty)?;
        let link = link.map(|at| self::link(&path, at)).transpose()?;
        let pump = Pump::new(device, index, capacity)?;
        pump.set_connection(Connection::Awaited);
        Ok(Self {
            pump,
            master,
            path,
            opened,
            attached: false,
            _link: link,
        })
    }

    /// Of the slave.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Somebody has opened the slave.
    fn attach(&mut self, ops: &mut EventOps<'_>) {
        // However many did: what counts is that it is open, or was and has left something.
        while self.opened.read_events().is_ok() {}
        if self.attached {
            return;
        }
        // Watching it tells at once what is ready.
        if let Err(error) = ops.add(Events::new(&self.master.0, pump::interest())) {
            error!(fifo = self.pump.index(), %error, "cannot watch the pseudo-terminal");
            return;
        }
        self.attached = true;
        self.pump.open(None);
        self.pump.set_connection(Connection::Connected);
        debug!(fifo = self.pump.index(), "the pseudo-terminal is open");
    }

    fn turn(&mut self, ops: &mut EventOps<'_>) {
        if !self.attached {
            return;
        }
        match self.pump.turn(&mut self.master) {
            (Flow::Open, Flow::Open) => {}
            (input, output) => {
                debug!(
                    fifo = self.pump.index(),
                    ?input,
                    ?output,
                    "the pseudo-terminal is closed"
                );
                self.detach(ops);
            }
        }
    }

    /// The last program has closed the slave. What it did not take stays for the next.
    fn detach(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.remove(Events::new(&self.master.0, EventSet::empty())) {
            error!(fifo = self.pump.index(), %error, "cannot leave the pseudo-terminal");
        }
        self.attached = false;
        self.pump.close();
        self.pump.set_connection(Connection::Gone);
        // The next program shall find it as the first did.
        if let Err(errno) = make_raw(&self.master.0) {
            warn!(fifo = self.pump.index(), %errno, "cannot set the pseudo-terminal to raw mode");
        }
    }
}

impl MutEventSubscriber for Pty {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        for fd in [self.pump.bell.fd(), self.opened.as_fd().as_raw_fd()] {
            if let Err(error) = ops.add(Events::new_raw(fd, EventSet::IN)) {
                error!(fifo = self.pump.index(), %error, "cannot watch a descriptor");
            }
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let fd = events.fd();
        if fd == self.opened.as_fd().as_raw_fd() {
            self.attach(ops);
        } else if fd == self.pump.bell.fd() {
            self.pump.bell.heard();
            self.turn(ops);
        } else {
            self.pump.note(events.event_set());
            self.turn(ops);
        }
    }
}

/// The host's end of the pseudo-terminal.
struct Master(PtyMaster);

impl pump::Stream for Master {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match io::Read::read(&mut self.0, bytes) {
            // How a master says that no slave is open and nothing is left.
            Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => Ok(0),
            result => result,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(&mut self.0, bytes)
    }

    fn at_end(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let polled = poll(&mut fds, PollTimeout::ZERO);
        let [fd] = fds;
        let events = fd.revents().unwrap_or(PollFlags::empty());
        polled.is_ok() && events.contains(PollFlags::POLLHUP) && !events.contains(PollFlags::POLLIN)
    }
}

/// A pseudo-terminal in raw mode: its master, its slave's path, and the news of who opens that.
fn make() -> nix::Result<(Master, PathBuf, Inotify)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags)?;
    grantpt(&master)?;
    // Before anybody can open it.
    make_raw(&master)?;
    let path = PathBuf::from(ptsname_r(&master)?);
    let opened = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    opened.add_watch(&path, AddWatchFlags::IN_OPEN)?;
    unlockpt(&master)?;
    Ok((Master(master), path, opened))
}

/// No echo, no lines, every byte as it is. Both ends of a pseudo-terminal share their settings.
fn make_raw(master: &PtyMaster) -> nix::Result<()> {
    let mut settings = tcgetattr(master)?;
    cfmakeraw(&mut settings);
    tcsetattr(master, SetArg::TCSANOW, &settings)
}

/// Makes a symbolic link to `target`.
fn link(target: &Path, path: &Path) -> Result<SocketFile, HostError> {
    let failed = |source: io::Error| match source.kind() {
        ErrorKind::AlreadyExists => HostError::LinkTaken(path.to_owned()),
        _ => HostError::Link {
            path: path.to_owned(),
            source,
        },
    };
    let lock = PathLock::take(path)
        .map_err(failed)?
        .ok_or_else(|| HostError::LinkTaken(path.to_owned()))?;
    // No daemon that lives has made it. One that leads to a terminal was left by one that is no more,
    // whoever has that terminal by now; so was one that leads nowhere.
    let stale = fs::read_link(path).is_ok_and(|to| to.starts_with(TERMINALS) || !path.exists());
    if stale {
        fs::remove_file(path).map_err(failed)?;
    }
    symlink(target, path).map_err(failed)?;
    SocketFile::new(path, lock).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_goes_with_its_owner_and_replaces_only_stale_ones() {
        let dir = tempfile::tempdir().unwrap();
        let (at, target) = (dir.path().join("tty"), dir.path().join("pts"));
        symlink(&target, &at).unwrap();
        // It leads nowhere.
        let made = link(&target, &at).unwrap();
        fs::write(&target, "").unwrap();
        assert!(matches!(link(&target, &at), Err(HostError::LinkTaken(_))));
        drop(made);
        assert!(!at.is_symlink());
        fs::write(&at, "data").unwrap();
        assert!(matches!(link(&target, &at), Err(HostError::LinkTaken(_))));
        assert_eq!(fs::read(&at).unwrap(), b"data");
        let missing = link(&target, &dir.path().join("no/tty"));
        assert!(matches!(missing, Err(HostError::Link { .. })));
    }
}
