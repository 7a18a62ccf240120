// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A FIFO on files: what the driver writes is appended to one, what it reads comes from another.
//!
//! Files of the disk are always ready: their turns follow one another by the bell, with those of
//! other descriptors in between. Named pipes and devices are watched where the kernel can.

use std::fmt::Display;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use event_manager::EventOps;
use event_manager::EventSet;
use event_manager::Events;
use event_manager::MutEventSubscriber;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use tracing::error;
use tracing::warn;
use vmm_sys_util::event::EventConsumer;
use vmm_sys_util::event::EventFlag;
use vmm_sys_util::event::EventNotifier;
use vmm_sys_util::event::new_event_consumer_and_notifier;

use super::HostError;
use super::pump;
use super::pump::Flow;
use super::pump::Pump;
use super::stdio;
use crate::device::Device;
use crate::fifo::Connection;
use crate::refusal::LogLimit;
use crate::refusal::Refusal;

/// See the module.
pub struct Files {
    pump: Pump,
    pair: Pair,
    output_path: PathBuf,
    input_path: PathBuf,
    log: LogLimit,
    reopen: (EventConsumer, EventNotifier),
}

/// How an output is opened: also anew, after another file was made in its place.
fn append() -> OpenOptions {
    let mut append = OpenOptions::new();
    append.append(true).create(true).mode(0o600);
    append
}

/// The files themselves.
#[derive(Debug)]
struct Pair {
    output: File,
    input: Option<File>,
}

impl Files {
    pub fn open(
        device: &Arc<Device>,
        index: u16,
        capacity: usize,
        output: &Path,
        input: Option<&Path>,
    ) -> Result<Self, HostError> {
        let mut read = OpenOptions::new();
        read.read(true);
        let pair = Pair {
            // First, for opening the other may create it.
            input: input.map(|path| open(path, &mut read)).transpose()?,
            output: open(output, &mut append())?,
        };
        Self::new(
            Pump::new(device, index, capacity)?,
            pair,
            (input.unwrap_or(output).to_owned(), output.to_owned()),
        )
    }

    /// Standard input and output.
    pub fn stdio(device: &Arc<Device>, index: u16, capacity: usize) -> Result<Self, HostError> {
        let input = stdio::input().map_err(HostError::system("use standard input"))?;
        let output = stdio::output().map_err(HostError::system("use standard output"))?;
        let pair = Pair {
            output,
            input: Some(input),
        };
        let pump = Pump::new(device, index, capacity)?;
        Self::new(
            pump,
            pair,
            ("standard input".into(), "standard output".into()),
        )
    }

    fn new(
        pump: Pump,
        pair: Pair,
        (input_path, output_path): (PathBuf, PathBuf),
    ) -> Result<Self, HostError> {
        Ok(Self {
            pump,
            pair,
            output_path,
            input_path,
            log: LogLimit::default(),
            reopen: new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)
                .map_err(HostError::system("create an eventfd"))?,
        })
    }

    /// Has the output opened anew by its name.
    pub fn reopener(&self) -> Result<EventNotifier, HostError> {
        self.reopen
            .1
            .try_clone()
            .map_err(HostError::system("copy an eventfd"))
    }

    /// Goes on in the file that has the name by now. What was written is in the other one, whole.
    fn reopen(&mut self, ops: &mut EventOps<'_>) {
        let output = match open(&self.output_path, &mut append()) {
            Ok(output) => output,
            Err(error) => {
                warn!(fifo = self.pump.index(), %error, "writing goes on in the old file");
                return;
            }
        };
        // It was watched if it is a pipe or a device.
        let _ = ops.remove(Events::new(&self.pair.output, EventSet::empty()));
        self.pair.output = output;
        let watched = watch(&self.pump, &self.pair.output, ops);
        self.pump.open_output(watched);
    }

    fn turn(&mut self) {
        let (input, output) = self.pump.turn(&mut self.pair);
        match (&input, &output) {
            (_, Flow::Ended) => {
                // Whoever read the pipe is gone, and with them the point of it all.
                self.pump.close();
                self.pump.set_connection(Connection::Gone);
            }
            (Flow::Ended, _) => self.pump.set_connection(Connection::HalfClosed),
            _ => {}
        }
        if let Flow::Failed(error) = &input {
            let path = self.input_path.clone();
            self.fail("read", &path, error);
        }
        if let Flow::Failed(error) = &output {
            let path = self.output_path.clone();
            self.fail("write to", &path, error);
        }
    }

    /// The driver is told, and nothing is lost: what was not written is tried again after a reset.
    fn fail(&mut self, what: &str, path: &Path, error: &io::Error) {
        let level = self
            .pump
            .with_fifo(|fifo| {
                fifo.fail("host side of fifo", Refusal::Endpoint);
                fifo.status().tx.level
            })
            .unwrap_or_default();
        self.pump.serve_fifo();
        if let Some(unlogged) = self.log.pass() {
            error!(
                fifo = self.pump.index(),
                %error,
                path = %path.display(),
                kept = level,
                unlogged,
                "cannot {what} the file: the FIFO fails until the device is reset, and then tries again"
            );
        }
    }
}

impl MutEventSubscriber for Files {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        for fd in [self.pump.bell.fd(), self.reopen.0.as_raw_fd()] {
            if let Err(error) = ops.add(Events::new_raw(fd, EventSet::IN)) {
                error!(fifo = self.pump.index(), %error, "cannot watch a descriptor");
            }
        }
        let output = watch(&self.pump, &self.pair.output, ops);
        let input = self.pair.input.as_ref();
        let input = input.map(|file| watch(&self.pump, file, ops));
        self.pump.open_output(output);
        if let Some(watched) = input {
            self.pump.open_input(watched);
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let fd = events.fd();
        let set = events.event_set();
        if fd == self.pump.bell.fd() {
            self.pump.bell.heard();
        } else if fd == self.reopen.0.as_raw_fd() {
            let _ = self.reopen.0.consume();
            self.reopen(ops);
        } else if fd == self.pair.output.as_raw_fd() {
            self.pump.note_output(set);
            if set.contains(EventSet::ERROR) {
                // Nobody reads the pipe any more; there may be nothing to write that would tell.
                if let Err(error) = ops.remove(Events::new(&self.pair.output, EventSet::empty())) {
                    error!(fifo = self.pump.index(), %error, "cannot leave a pipe");
                }
                self.pump.close();
                self.pump.set_connection(Connection::Gone);
            }
        } else {
            self.pump.note_input(set);
        }
        self.turn();
    }
}

/// Watches a file; whether events will tell when it is ready.
fn watch(pump: &Pump, file: &File, ops: &mut EventOps<'_>) -> bool {
    match ops.add(Events::new(file, pump::interest())) {
        Ok(()) => true,
        // How the kernel says that a file is always ready.
        Err(event_manager::Error::Epoll(errno)) if errno.errno() == Errno::EPERM as i32 => false,
        Err(error) => {
            error!(fifo = pump.index(), %error, "cannot watch a file");
            true
        }
    }
}

impl pump::Stream for Pair {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &mut self.input {
            Some(input) => io::Read::read(input, bytes),
            None => Ok(0),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(&mut self.output, bytes)
    }

    fn at_end(&self) -> bool {
        // Only a read can tell, and there will be room for one.
        false
    }
}

/// Opens a file, not waiting for anybody, with an error that says what to do.
fn open(path: &Path, options: &mut OpenOptions) -> Result<File, HostError> {
    let refused = |reason: &dyn Display| HostError::File {
        path: path.to_owned(),
        reason: reason.to_string(),
    };
    if let Ok(metadata) = fs::metadata(path) {
        let kind = metadata.file_type();
        if kind.is_dir() {
            return Err(refused(&"it is a folder; name a file"));
        }
        if kind.is_socket() {
            return Err(refused(&"it is a socket; use unix=PATH,connect"));
        }
        if kind.is_block_device() {
            return Err(refused(&"it is a block device; name a file"));
        }
    }
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    options
        .custom_flags(flags.bits())
        .open(path)
        .map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENXIO) => {
                refused(&"nobody reads this named pipe yet; start its reader first")
            }
            Some(Errno::ENOSYS) => refused(
                &"the sandbox opens no file, as this kernel lacks Landlock; use --sandbox none, or restart",
            ),
            _ => refused(&error),
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::folder("folder", "it is a folder")]
    #[case::socket("socket", "use unix=PATH,connect")]
    #[case::pipe("pipe", "start its reader first")]
    #[case::nowhere("no/file", "No such file")]
    fn what_cannot_be_written_says_why(#[case] name: &str, #[case] part: &str) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        let _socket = UnixListener::bind(dir.path().join("socket")).unwrap();
        mkfifo(&dir.path().join("pipe"), Mode::S_IRWXU).unwrap();
        let path = dir.path().join(name);
        let error = open(&path, &mut append()).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(name), "{error}");
    }

    #[test]
    fn a_file_that_is_made_is_the_owners() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        open(&path, &mut append()).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
