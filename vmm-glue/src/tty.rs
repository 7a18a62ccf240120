//! The host's terminal while a guest's shell uses it: raw, and always put back.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::PoisonError;

use anyhow::Context;
use anyhow::Result;
use fifo_lab_agent::Size;
use rustix::termios::OptionalActions;
use rustix::termios::Termios;

static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Raw as long as it exists.
#[derive(Debug)]
pub struct Raw;

impl Raw {
    /// Makes the terminal raw: every key goes to the guest.
    pub fn enter() -> Result<Self> {
        let stdin = rustix::stdio::stdin();
        let saved =
            rustix::termios::tcgetattr(stdin).context("cannot read the terminal's settings")?;
        let mut raw = saved.clone();
        raw.make_raw();
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
        rustix::termios::tcsetattr(stdin, OptionalActions::Flush, &raw)
            .context("cannot make the terminal raw")?;
        Ok(Self)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back, if it was changed; also for those who leave without unwinding.
pub fn restore() {
    if let Some(saved) = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &saved);
    }
}

/// True if a person can use a shell here.
pub fn interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// The terminal's size.
pub fn size() -> Size {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout());
    size.map_or(Size { rows: 24, cols: 80 }, |size| Size {
        rows: size.ws_row.max(1),
        cols: size.ws_col.max(1),
    })
}
