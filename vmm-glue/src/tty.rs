// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's terminal while a guest's command uses it: raw, always put back, and left alone while another job has it.
//!
//! A process group in the background may neither read its terminal (SIGTTIN) nor change its modes (SIGTTOU): both stop it. timeout(1) and a
//! shell's `&` make such groups. This file must not know what the keys mean to the guest.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;

use anyhow::Context;
use anyhow::Result;
use fifo_lab_agent::Size;
use fifo_lab_agent::Terminal;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::termios::OptionalActions;
use rustix::termios::Termios;

use crate::cancel;

/// Modes of the terminal before the lab changed them.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);
/// Length of the longest name that terminfo(5) has.
const NAME_MAX: usize = 64;
/// Directories of a Debian tree that describe terminals.
const TERMINFO: [&str; 3] = ["etc/terminfo", "usr/lib/terminfo", "usr/share/terminfo"];
/// What a terminal is called in the guest when only the host knows its own name: today's emulators all understand it.
const USUAL: &str = "xterm-256color";

/// Raw as long as it exists.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// Makes the terminal raw, so that every key goes to the guest; later if another job has it now (see [`Raw::again`]).
    pub fn enter() -> Result<Self> {
        let raw = Self(());
        Self::again()?;
        Ok(raw)
    }

    /// Makes the terminal raw unless another job has it: the shell has changed it when the lab was stopped and continued.
    pub fn again() -> Result<()> {
        let stdin = rustix::stdio::stdin();
        if !stdin.is_terminal() || is_in_background(stdin) {
            return Ok(());
        }
        let found =
            rustix::termios::tcgetattr(stdin).context("cannot read the terminal's settings")?;
        let mut raw = found.clone();
        raw.make_raw();
        SAVED
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(found);
        // What has been typed already is for the guest: nothing is flushed.
        rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw)
            .context("cannot make the terminal raw")
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back, if it was changed; also for those who leave without unwinding.
pub fn restore() {
    let stdin = rustix::stdio::stdin();
    let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(saved) = saved
        && !is_in_background(stdin)
    {
        let _ = rustix::termios::tcsetattr(stdin, OptionalActions::Now, &saved);
    }
}

/// True if a person can use a shell here.
pub fn interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// True if this is our terminal and another process group has it. What is no terminal, or that of another session, can always be read.
pub fn is_in_background(fd: BorrowedFd<'_>) -> bool {
    rustix::termios::tcgetpgrp(fd).is_ok_and(|group| group != rustix::process::getpgrp())
}

/// From here on, reading the terminal in the background fails with EIO in this thread, and stops nobody.
pub fn do_not_stop_this_thread() -> Result<()> {
    SigSet::from(Signal::SIGTTIN)
        .thread_block()
        .context("cannot block SIGTTIN")
}

/// Size of the terminal that the user looks at.
pub fn size() -> Size {
    let (stdout, stdin, stderr) = (
        rustix::stdio::stdout(),
        rustix::stdio::stdin(),
        rustix::stdio::stderr(),
    );
    [stdout, stdin, stderr]
        .into_iter()
        .find_map(Size::of)
        .unwrap_or_default()
}

/// Tells `tell` of each new size of the terminal, until it wants no more.
pub fn follow_size(mut tell: impl FnMut(Size) -> bool + Send + 'static) {
    let Some(resized) = cancel::resized() else {
        return;
    };
    std::thread::spawn(move || {
        loop {
            let mut fds = [PollFd::from_borrowed_fd(resized, PollFlags::IN)];
            let _ = rustix::event::poll(&mut fds, None);
            let _ = rustix::io::read(resized, &mut [0; 8]);
            if !tell(size()) {
                return;
            }
        }
    });
}

/// The terminal that a guest's command gets.
pub fn terminal() -> Terminal {
    Terminal::of(rustix::stdio::stdin().as_fd(), size())
}

/// The name by which the guest knows a terminal called `name` on the host: `trees` are the directories that make up its root.
pub fn name_in_guest(name: Option<&str>, trees: &[PathBuf]) -> String {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return "dumb".to_owned();
    };
    let plain = name.len() <= NAME_MAX
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c))
        && !name.starts_with('.');
    let first: String = name.chars().take(1).collect();
    let known = plain
        && trees.iter().any(|tree| {
            TERMINFO
                .iter()
                .any(|dir| tree.join(dir).join(&first).join(name).exists())
        });
    if known { name } else { USUAL }.to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_terminal_that_the_guest_does_not_know_gets_a_name_that_it_knows() {
        let tree = tempfile::tempdir().unwrap();
        let layer = tempfile::tempdir().unwrap();
        for (dir, name) in [(&tree, "l/linux"), (&layer, "f/foot")] {
            let path = dir.path().join("usr/share/terminfo").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let trees = [tree.path().to_owned(), layer.path().to_owned()];
        let name = |term| name_in_guest(term, &trees);
        for known in ["linux", "foot"] {
            assert_eq!(name(Some(known)), known);
        }
        for unknown in ["xterm-kitty", "xterm-ghostty", "../l/linux", "é", "a/b"] {
            assert_eq!(name(Some(unknown)), "xterm-256color", "{unknown}");
        }
        assert_eq!(name(None), "dumb");
        assert_eq!(name(Some("")), "dumb");
    }

    #[test]
    fn what_is_no_terminal_is_never_in_the_background() {
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(!is_in_background(reader.as_fd()));
    }
}
