// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A program on a real terminal of its own, as a person would have started it, and the person. It must not know what the program is.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::process::Command;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::time::Duration;

use rustix::pty::OpenptFlags;
use rustix::termios::Termios;
use rustix::termios::Winsize;

/// A guest may have to be booted before anything is printed.
const LIMIT: Duration = Duration::from_secs(300);

/// What was printed so far, and whether that is all.
type Printed = Arc<(Mutex<(String, bool)>, Condvar)>;

/// The terminal.
pub struct Terminal {
    master: OwnedFd,
    /// Held open: its modes can be looked at, and it stays when the program ends.
    slave: File,
    printed: Printed,
    child: Option<Child>,
    seen: usize,
}

impl Terminal {
    /// A terminal as the kernel makes it: without a size.
    pub fn new() -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let flags =
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let slave = rustix::fs::open(&*name, flags, rustix::fs::Mode::empty()).unwrap();
        let printed = Printed::default();
        let mut reader = File::from(master.try_clone().unwrap());
        let shared = printed.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let count = reader.read(&mut buffer).unwrap_or_default();
                let mut printed = shared.0.lock().unwrap();
                match &buffer[..count] {
                    [] => printed.1 = true,
                    bytes => printed.0.push_str(&String::from_utf8_lossy(bytes)),
                }
                shared.1.notify_all();
                if printed.1 {
                    return;
                }
            }
        });
        Self {
            master,
            slave: slave.into(),
            printed,
            child: None,
            seen: 0,
        }
    }

    /// Starts a program in a session of its own whose terminal this is.
    pub fn start(&mut self, program: &Command) {
        let mut command = Command::new("setsid");
        command
            .arg("--ctty")
            .arg(program.get_program())
            .args(program.get_args())
            .stdin(self.slave.try_clone().unwrap())
            .stdout(self.slave.try_clone().unwrap())
            .stderr(self.slave.try_clone().unwrap());
        let set = |(name, value): (&OsStr, Option<&OsStr>)| {
            value.map(|value| (name.to_owned(), value.to_owned()))
        };
        command.envs(program.get_envs().filter_map(set));
        self.child = Some(command.spawn().unwrap());
    }

    /// Its modes.
    pub fn modes(&self) -> Termios {
        rustix::termios::tcgetattr(&self.slave).unwrap()
    }

    /// Sets them.
    pub fn set_modes(&self, modes: &Termios) {
        rustix::termios::tcsetattr(&self.slave, rustix::termios::OptionalActions::Now, modes)
            .unwrap();
    }

    /// Gives it a size, as an emulator whose window changes.
    pub fn resize(&self, rows: u16, cols: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&self.master, size).unwrap();
    }

    /// Types.
    pub fn keys(&self, text: &str) {
        let mut bytes = text.as_bytes();
        while !bytes.is_empty() {
            let count = rustix::io::write(self.master.as_fd(), bytes).unwrap();
            bytes = &bytes[count..];
        }
    }

    /// Waits for a text after what was waited for last, and returns what was printed up to its end.
    pub fn wait_for(&mut self, text: &str) -> String {
        let (printed, changed) = &*self.printed;
        let seen = self.seen;
        let (printed, _) = changed
            .wait_timeout_while(printed.lock().unwrap(), LIMIT, |(printed, ended)| {
                !*ended && !printed[seen..].contains(text)
            })
            .unwrap();
        let rest = &printed.0[seen..];
        let Some(at) = rest.find(text) else {
            panic!("no {text:?} in {rest:?}");
        };
        let found = rest[..at + text.len()].to_owned();
        self.seen += found.len();
        found
    }

    /// Waits for the program's end; its status.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.take().unwrap().wait().unwrap().code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
