// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The terminal while the panel has it: put back when this is dropped, at a panic, and before a signal ends the program.
//! It must not know what is drawn.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::poll;
use ratatui::DefaultTerminal;
use ratatui::Frame;
use ratatui::crossterm::event;
use ratatui::crossterm::event::Event;
use ratatui::crossterm::event::KeyEvent;
use ratatui::crossterm::event::KeyEventKind;
use signal_hook::consts::SIGHUP;
use signal_hook::consts::SIGINT;
use signal_hook::consts::SIGTERM;
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Longest time until a signal or news from the daemon is noticed.
const PATIENCE_MS: u16 = 50;
/// How long crossterm may read after SIGHUP.
const LAST_READ: Duration = Duration::from_secs(2);

/// What has happened.
#[derive(Clone, Copy, Debug)]
pub enum Happening {
    /// Time has passed, or the terminal has another size.
    Nothing,
    /// A key.
    Key(KeyEvent),
    /// A signal that ends programs: its number.
    Signal(i32),
}

/// The terminal: raw, with the alternate screen.
#[derive(Debug)]
pub struct Screen {
    terminal: DefaultTerminal,
    signal: Arc<AtomicUsize>,
    /// Whether crossterm reads: see [`end_a_read_of_what_is_gone`].
    reads: Arc<AtomicBool>,
}

impl Screen {
    /// Takes the terminal. Signals that would end the program are noticed from now on instead.
    ///
    /// # Errors
    ///
    /// What the kernel says of the terminal.
    pub fn open() -> io::Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        let reads = Arc::new(AtomicBool::new(false));
        end_a_read_of_what_is_gone(Arc::clone(&reads))?;
        for number in [SIGINT, SIGTERM, SIGHUP] {
            let value = usize::try_from(number).unwrap_or_default();
            flag::register_usize(number, Arc::clone(&signal), value)?;
        }
        // It also has a panic put the terminal back before its message.
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self {
                terminal,
                signal,
                reads,
            }),
            Err(error) => {
                // Part of it may have been done.
                let _ = ratatui::try_restore();
                Err(error)
            }
        }
    }

    /// Draws.
    ///
    /// # Errors
    ///
    /// What the kernel says of the terminal.
    pub fn draw(&mut self, what: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(what).map(drop)
    }

    /// Waits for a key, a signal or 50 ms.
    ///
    /// # Errors
    ///
    /// What the kernel says of the terminal.
    pub fn wait(&self) -> io::Result<Happening> {
        // Keys that came together with the last one are crossterm's by now.
        match self.look(0)? {
            Happening::Nothing => self.look(PATIENCE_MS),
            found => Ok(found),
        }
    }

    fn look(&self, patience_ms: u16) -> io::Result<Happening> {
        let stdin = io::stdin();
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, patience_ms) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [fd] = fds;
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        if fd.revents().is_some_and(|found| found.intersects(gone)) {
            return Ok(Happening::Signal(SIGHUP));
        }
        self.reads.store(true, Ordering::SeqCst);
        let happening = self.happening();
        self.reads.store(false, Ordering::SeqCst);
        happening
    }

    fn happening(&self) -> io::Result<Happening> {
        if let Ok(number @ 1..) = i32::try_from(self.signal.load(Ordering::SeqCst)) {
            return Ok(Happening::Signal(number));
        }
        if !event::poll(Duration::ZERO)? {
            return Ok(Happening::Nothing);
        }
        match event::read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => Ok(Happening::Key(key)),
            _ => Ok(Happening::Nothing),
        }
    }
}

/// Has SIGHUP end the program if crossterm goes on reading: from a terminal that is gone it reads the end for ever. A
/// terminal that is still there is put back first, by the loop that waits for keys.
fn end_a_read_of_what_is_gone(reads: Arc<AtomicBool>) -> io::Result<()> {
    let mut hung_up = Signals::new([SIGHUP])?;
    let watch = move || {
        for signal in hung_up.forever() {
            thread::sleep(LAST_READ);
            if reads.load(Ordering::SeqCst) {
                // It fails for signals without a default only.
                let _ = emulate_default_handler(signal);
            }
        }
    };
    let thread = thread::Builder::new().name("hang-up".to_owned());
    thread.spawn(watch).map(drop)
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The cursor is hidden while there is no line to edit. A terminal that is gone needs nothing.
        let _ = self.terminal.show_cursor();
        let _ = ratatui::try_restore();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::process::Command;
    use std::process::Stdio;

    use nix::fcntl::OFlag;
    use nix::pty;
    use nix::sys::termios;

    use super::*;

    /// Tells the test's program, run once more on a terminal, to panic there.
    const ON_A_TERMINAL: &str = "FIFO_TOP_PANICS";

    #[test]
    fn a_panic_puts_the_terminal_back_before_its_message() {
        if std::env::var_os(ON_A_TERMINAL).is_some() {
            let _screen = Screen::open().unwrap();
            panic!("on purpose");
        }
        let master = pty::posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY).unwrap();
        pty::grantpt(&master).unwrap();
        pty::unlockpt(&master).unwrap();
        let slave = File::options()
            .read(true)
            .write(true)
            .open(pty::ptsname_r(&master).unwrap())
            .unwrap();
        let before = termios::tcgetattr(&slave).unwrap();
        let name = "ctl::top::screen::tests::a_panic_puts_the_terminal_back_before_its_message";
        let status = Command::new("setsid")
            .arg("--ctty")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(ON_A_TERMINAL, "1")
            .stdin(Stdio::from(slave.try_clone().unwrap()))
            .stdout(Stdio::from(slave.try_clone().unwrap()))
            .stderr(Stdio::from(slave.try_clone().unwrap()))
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(101));
        assert_eq!(termios::tcgetattr(&slave).unwrap(), before);
        drop(slave);
        let mut printed = Vec::new();
        // EIO ends it: nobody has the other side open.
        let _ = File::from(master.as_fd().try_clone_to_owned().unwrap()).read_to_end(&mut printed);
        let printed = String::from_utf8_lossy(&printed);
        let there = printed.find("\u{1b}[?1049h").unwrap();
        let back = printed.find("\u{1b}[?1049l").unwrap();
        let message = printed.find("on purpose").unwrap();
        assert!(there < back && back < message, "{printed}");
    }
}
