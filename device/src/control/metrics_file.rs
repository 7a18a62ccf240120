// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A file of metrics, written on request, and when the daemon starts and ends.
//!
//! The file is opened once and written in place, so that a daemon which can open nothing any more
//! can still write it. It must not know which signal a request comes from.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use event_manager::EventOps;
use event_manager::EventSet;
use event_manager::Events;
use event_manager::MutEventSubscriber;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use tracing::warn;
use vmm_sys_util::event::EventConsumer;
use vmm_sys_util::event::EventFlag;
use vmm_sys_util::event::EventNotifier;
use vmm_sys_util::event::new_event_consumer_and_notifier;

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
    /// A folder, a device, a symbolic link …
    #[error("{0} is not a regular file: use another --metrics file")]
    NotAFile(PathBuf),
    /// No descriptor is left.
    #[error("cannot create an eventfd: {0}")]
    Event(io::Error),
}

/// The file.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    file: File,
    report: EventConsumer,
    reopen: EventConsumer,
    service: Service,
}

/// How a [`MetricsFile`] on the event loop is asked for something.
#[derive(Debug)]
pub struct Handles {
    /// To write the file.
    pub report: EventNotifier,
    /// To open it anew, for it was renamed, and to write it.
    pub reopen: EventNotifier,
}

impl MetricsFile {
    /// Writes the file `path`, and again when it is asked to.
    ///
    /// # Errors
    ///
    /// Why that cannot be.
    pub fn new(service: Service, path: &Path) -> Result<(Self, Handles), MetricsFileError> {
        let failed = |source| MetricsFileError::File {
            path: path.to_owned(),
            source,
        };
        let event = || {
            new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)
                .map_err(MetricsFileError::Event)
        };
        let ((report, to_report), (reopen, to_reopen)) = (event()?, event()?);
        let metrics = Self {
            path: path.to_owned(),
            file: open(path)?,
            report,
            reopen,
            service,
        };
        metrics.write().map_err(failed)?;
        let handles = Handles {
            report: to_report,
            reopen: to_reopen,
        };
        Ok((metrics, handles))
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
        for fd in [self.report.as_raw_fd(), self.reopen.as_raw_fd()] {
            if let Err(error) = ops.add(Events::new_raw(fd, EventSet::IN)) {
                warn!(%error, "no signal writes metrics");
            }
        }
    }

    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        if events.fd() == self.reopen.as_raw_fd() {
            let _ = self.reopen.consume();
            match open(&self.path) {
                Ok(file) => self.file = file,
                Err(error) => warn!(%error, "metrics go on in the old file"),
            }
        } else {
            let _ = self.report.consume();
        }
        self.write_or_warn();
    }
}

/// Opens the file for its owner; a symbolic link leads nowhere, and nothing is waited for.
fn open(path: &Path) -> Result<File, MetricsFileError> {
    let failed = |source| MetricsFileError::File {
        path: path.to_owned(),
        source,
    };
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags.bits())
        .open(path)
        .map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ELOOP | Errno::ENXIO | Errno::EISDIR) => {
                MetricsFileError::NotAFile(path.to_owned())
            }
            _ => failed(error),
        })?;
    if file.metadata().map_err(failed)?.is_file() {
        Ok(file)
    } else {
        Err(MetricsFileError::NotAFile(path.to_owned()))
    }
}
