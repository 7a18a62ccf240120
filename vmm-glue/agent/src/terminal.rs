// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a terminal of the guest takes over from the host's: size, UTF-8 input, and the control characters.
//!
//! Both sides compile this file: the host reads its terminal with it, the guest sets a pseudo-terminal up. It must not know how the description
//! travels.

use std::os::fd::BorrowedFd;

use rustix::termios::InputModes;
use rustix::termios::OptionalActions;
use rustix::termios::SpecialCodeIndex;
use rustix::termios::Winsize;
use serde::Deserialize;
use serde::Serialize;

/// Control characters that a user may have changed with stty(1), in the order of [`Terminal::keys`].
const KEYS: [SpecialCodeIndex; 11] = [
    SpecialCodeIndex::VINTR,
    SpecialCodeIndex::VQUIT,
    SpecialCodeIndex::VERASE,
    SpecialCodeIndex::VKILL,
    SpecialCodeIndex::VEOF,
    SpecialCodeIndex::VSTART,
    SpecialCodeIndex::VSTOP,
    SpecialCodeIndex::VSUSP,
    SpecialCodeIndex::VREPRINT,
    SpecialCodeIndex::VWERASE,
    SpecialCodeIndex::VLNEXT,
];

/// Size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub cols: u16,
}

impl Default for Size {
    /// The size of a terminal that has none, as in many CI systems.
    fn default() -> Self {
        Self { rows: 24, cols: 80 }
    }
}

impl Size {
    /// The size of an open terminal; a dimension that it does not have is the default's. `None` for what is no terminal.
    pub fn of(terminal: BorrowedFd<'_>) -> Option<Self> {
        let found = rustix::termios::tcgetwinsize(terminal).ok()?;
        let usual = Self::default();
        let or = |value, usual| if value == 0 { usual } else { value };
        Some(Self {
            rows: or(found.ws_row, usual.rows),
            cols: or(found.ws_col, usual.cols),
        })
    }

    /// Gives an open terminal this size; the kernel sends SIGWINCH.
    pub fn apply(self, terminal: BorrowedFd<'_>) {
        let size = Winsize {
            ws_row: self.rows,
            ws_col: self.cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let _ = rustix::termios::tcsetwinsize(terminal, size);
    }
}

/// A terminal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// Its size.
    pub size: Size,
    /// Erase takes a character, not a byte (IUTF8). `None` leaves the kernel's default.
    pub utf8: Option<bool>,
    /// Control characters, or nothing for the kernel's.
    pub keys: Vec<u8>,
}

impl Terminal {
    /// Modes and control characters of an open terminal, with a size from elsewhere.
    pub fn of(terminal: BorrowedFd<'_>, size: Size) -> Self {
        let Ok(modes) = rustix::termios::tcgetattr(terminal) else {
            return Self {
                size,
                ..Self::default()
            };
        };
        Self {
            size,
            utf8: Some(modes.input_modes.contains(InputModes::IUTF8)),
            keys: KEYS.map(|key| modes.special_codes[key]).into(),
        }
    }

    /// Sets an open terminal up like this.
    pub fn apply(&self, terminal: BorrowedFd<'_>) {
        self.size.apply(terminal);
        let Ok(mut modes) = rustix::termios::tcgetattr(terminal) else {
            return;
        };
        if let Some(utf8) = self.utf8 {
            modes.input_modes.set(InputModes::IUTF8, utf8);
        }
        for (key, code) in KEYS.into_iter().zip(&self.keys) {
            modes.special_codes[key] = *code;
        }
        let _ = rustix::termios::tcsetattr(terminal, OptionalActions::Now, &modes);
    }
}

/// The character by which a user of this terminal says that there is no more.
pub fn end_of_file(terminal: BorrowedFd<'_>) -> u8 {
    const CTRL_D: u8 = 4;
    rustix::termios::tcgetattr(terminal)
        .map_or(CTRL_D, |modes| modes.special_codes[SpecialCodeIndex::VEOF])
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::fd::OwnedFd;

    use rustix::pty::OpenptFlags;

    use super::*;

    /// A pseudo-terminal as the kernel makes it; both ends.
    fn pty() -> (OwnedFd, File) {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let slave = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        (master, slave)
    }

    #[test]
    fn a_terminal_without_a_size_is_24_by_80() {
        let (master, slave) = pty();
        assert_eq!(Size::of(slave.as_fd()), Some(Size { rows: 24, cols: 80 }));
        Size { rows: 50, cols: 0 }.apply(master.as_fd());
        assert_eq!(Size::of(slave.as_fd()), Some(Size { rows: 50, cols: 80 }));
        let file = File::open("/dev/null").unwrap();
        assert_eq!(Size::of(file.as_fd()), None);
    }

    #[test]
    fn utf8_and_changed_keys_reach_the_other_terminal() {
        let (_host, host) = pty();
        for utf8 in [true, false] {
            let wanted = Terminal {
                size: Size { rows: 30, cols: 90 },
                utf8: Some(utf8),
                keys: (1..12).collect(),
            };
            wanted.apply(host.as_fd());
            let read = Terminal::of(host.as_fd(), Size::of(host.as_fd()).unwrap());
            assert_eq!(read, wanted);
            let (_guest, guest) = pty();
            read.apply(guest.as_fd());
            let size = Size::of(guest.as_fd()).unwrap();
            assert_eq!(Terminal::of(guest.as_fd(), size), wanted);
            assert_eq!(end_of_file(guest.as_fd()), 5);
        }
    }
}
