// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest's console as it is being written. It must not know what is in it.

use std::fs::File;
use std::io;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;

use anyhow::Context;
use anyhow::Result;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::fs::inotify;

use crate::streams::Output;

/// A console's file, read from its beginning.
#[derive(Debug)]
pub struct Tail {
    file: File,
    changes: OwnedFd,
    buffer: Vec<u8>,
}

impl Tail {
    /// Opens it.
    pub fn open(console: &Path) -> Result<Self> {
        let what = || format!("cannot follow the console {}", console.display());
        let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .with_context(what)?;
        inotify::add_watch(&changes, console, inotify::WatchFlags::MODIFY).with_context(what)?;
        Ok(Self {
            file: File::open(console).with_context(what)?,
            changes,
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Passes on what is new.
    pub fn pass(&mut self, mut to: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        loop {
            match self.file.read(&mut self.buffer)? {
                0 => return Ok(()),
                count => to(self.buffer.get(..count).unwrap_or_default())?,
            }
        }
    }

    /// Waits until there may be something new; false once `end` is readable.
    pub fn wait(&mut self, end: Option<BorrowedFd<'_>>) -> bool {
        let mut fds = vec![PollFd::new(&self.changes, PollFlags::IN)];
        fds.extend(end.map(|end| PollFd::from_borrowed_fd(end, PollFlags::IN)));
        let _ = rustix::event::poll(&mut fds, None);
        let goes_on = fds.get(1).is_none_or(|end| end.revents().is_empty());
        let _ = rustix::io::read(&self.changes, &mut *self.buffer);
        goes_on
    }
}

/// Shows a console on standard error until the lab ends. Makes the file.
pub fn start(console: &Path) -> Result<()> {
    File::create(console)
        .with_context(|| format!("cannot write the console to {}", console.display()))?;
    let mut tail = Tail::open(console)?;
    thread::spawn(move || {
        while tail.pass(|bytes| Output::Stderr.write(bytes)).is_ok() && tail.wait(None) {}
    });
    Ok(())
}
