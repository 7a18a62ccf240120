// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's console on standard error while it is being written. It must not know what is in it.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::thread;

use anyhow::Context;
use anyhow::Result;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::fs::inotify;

use crate::streams::Output;

/// Shows what is appended to the console's file, from its beginning, until the lab ends. Makes the file.
pub fn start(console: &Path) -> Result<()> {
    let what = || format!("cannot follow the console {}", console.display());
    File::create(console).with_context(what)?;
    let mut file = File::open(console).with_context(what)?;
    let changes = inotify::init(inotify::CreateFlags::CLOEXEC).with_context(what)?;
    inotify::add_watch(&changes, console, inotify::WatchFlags::MODIFY).with_context(what)?;
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => {
                    let mut fds = [PollFd::new(&changes, PollFlags::IN)];
                    let _ = rustix::event::poll(&mut fds, None);
                    let _ = rustix::io::read(&changes, &mut *buffer);
                }
                Ok(count) => {
                    let shown = Output::Stderr.write(buffer.get(..count).unwrap_or_default());
                    if shown.is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    });
    Ok(())
}
