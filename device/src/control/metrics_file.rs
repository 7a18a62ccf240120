// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A file of metrics, written on request: at SIGUSR1, and when the daemon starts and ends.
//!
//! The file is opened once and written in place, so that a daemon which can open nothing any more
//! can still write it.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;

use event_manager::EventOps;
use event_manager::EventSet;
use event_manager::Events;
use event_manager::MutEventSubscriber;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SfdFlags;
use nix::sys::signalfd::SignalFd;
use tracing::warn;

use super::Service;

/// Why there can be no file of metrics.
#[derive(Debug, thiserror::Error)]
pub enum MetricsFileError {
    /// It cannot be opened or written.
    #[error(
        "cannot write metrics to {path}: {source}; use a --metrics file in a directory you can write to"
    )]
    File {
        /// As given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory, a device …
    #[error("{0} is not a regular file: use another --metrics file")]
    NotAFile(PathBuf),
    /// The signal is not to be had.
    #[error("cannot take over SIGUSR1: {0}")]
    Signal(#[from] nix::Error),
}

/// The file.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    file: File,
    signals: SignalFd,
    service: Service,
}

impl MetricsFile {
    /// Writes the file `path`, and has SIGUSR1 write it again. Call it before any other thread is
    /// started, so that none of them gets the signal instead.
    ///
    /// # Errors
    ///
    /// Why that cannot be.
    pub fn new(service: Service, path: &Path) -> Result<Self, MetricsFileError> {
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Err(MetricsFileError::NotAFile(path.to_owned()));
        }
        let failed = |source| MetricsFileError::File {
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        let mut set = SigSet::empty();
        set.add(Signal::SIGUSR1);
        set.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let metrics = Self {
            path: path.to_owned(),
            file,
            signals: SignalFd::with_flags(&set, flags)?,
            service,
        };
        metrics.write().map_err(failed)?;
        Ok(metrics)
    }

    fn write(&self) -> io::Result<()> {
        let text = self
            .service
            .metrics()
            .map_err(|failure| io::Error::other(failure.message))?;
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.set_len(text.len() as u64)
    }

    fn write_or_warn(&self) {
        if let Err(error) = self.write() {
            warn!(path = %self.path.display(), %error, "cannot write metrics");
        }
    }
}

impl Drop for MetricsFile {
    fn drop(&mut self) {
        self.write_or_warn();
    }
}

impl MutEventSubscriber for MetricsFile {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let fd = self.signals.as_fd().as_raw_fd();
        if let Err(error) = ops.add(Events::new_raw(fd, EventSet::IN)) {
            warn!(%error, "SIGUSR1 writes no metrics");
        }
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        self.write_or_warn();
    }
}
