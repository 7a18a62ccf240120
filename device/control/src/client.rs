// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A connection to a control socket: requests and answers as lines of JSON, and a method for each command.
//!
//! Every call waits for its answer. This file must not know a device, or a terminal.

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::protocol::Cleared;
use crate::protocol::Command;
use crate::protocol::Failure;
use crate::protocol::FaultAdded;
use crate::protocol::Faults;
use crate::protocol::FaultsRemoved;
use crate::protocol::Hello;
use crate::protocol::Metrics;
use crate::protocol::Pulled;
use crate::protocol::Pushed;
use crate::protocol::Request;
use crate::protocol::VERSION;
use crate::protocol::encode;
use crate::status::Event;
use crate::status::FaultStatus;
use crate::status::Status;

/// Longest wait for an answer: a daemon answers within milliseconds, one that is stopped never does.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer, or not the one wanted.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no such file.
    #[error("there is no socket {0}: is the daemon running with --control {0}?")]
    Missing(PathBuf),
    /// The daemon that made it has ended.
    #[error("nobody serves {0}: start the daemon with --control {0}")]
    Dead(PathBuf),
    /// Mode 0600.
    #[error("no permission to use {0}: only the user who started the daemon may")]
    Permission(PathBuf),
    /// Anything else that the kernel says.
    #[error("cannot connect to {path}: {source}")]
    Connect {
        /// As given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a socket of somebody else's, or of the daemon's VMM.
    #[error("{0} is not a control socket: give the path that the daemon has as --control")]
    Stranger(PathBuf),
    /// A daemon of another time.
    #[error(
        "the daemon speaks version {0} of the protocol and this program {VERSION}: use the ctl of the daemon's version"
    )]
    Version(u32),
    /// It ended in the middle.
    #[error("the daemon has ended the connection")]
    Ended,
    /// It says nothing.
    #[error("the daemon does not answer: {0}")]
    Silent(io::Error),
    /// It says no.
    #[error("{0}")]
    Refused(String),
    /// An answer that makes no sense.
    #[error("cannot understand the daemon's answer: {0}")]
    Answer(String),
}

/// An answer, or an event, as the type that belongs to its command.
///
/// # Errors
///
/// [`ClientError::Answer`] if it is of another type.
pub fn read<T: DeserializeOwned>(answer: Value) -> Result<T, ClientError> {
    serde_json::from_value(answer).map_err(|error| ClientError::Answer(error.to_string()))
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the daemon at `path`. It may take 10 s for each answer.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        Self::connect_within(path, PATIENCE)
    }

    /// As [`Client::connect`], with another limit for each answer.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn connect_within(path: &Path, patience: Duration) -> Result<Self, ClientError> {
        let owned = || path.to_owned();
        let stream = UnixStream::connect(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ClientError::Missing(owned()),
            io::ErrorKind::ConnectionRefused => ClientError::Dead(owned()),
            io::ErrorKind::PermissionDenied => ClientError::Permission(owned()),
            _ => ClientError::Connect {
                path: owned(),
                source,
            },
        })?;
        stream
            .set_read_timeout(Some(patience))
            .and_then(|()| stream.set_write_timeout(Some(patience)))
            .map_err(ClientError::Silent)?;
        let mut client = Self {
            stream: BufReader::new(stream),
        };
        let first = client
            .receive()
            .map_err(|_| ClientError::Stranger(owned()))?;
        if let Some(refusal) = refusal(&first) {
            return Err(refusal);
        }
        let hello: Hello =
            serde_json::from_value(first).map_err(|_| ClientError::Stranger(owned()))?;
        if hello.protocol != VERSION {
            return Err(ClientError::Version(hello.protocol));
        }
        Ok(client)
    }

    /// The device and its FIFOs.
    ///
    /// # Errors
    ///
    /// As [`Client::ask`], for this and all other commands.
    pub fn status(&mut self) -> Result<Status, ClientError> {
        read(self.ask(Command::Status {})?)
    }

    /// The status as Prometheus text.
    ///
    /// # Errors
    ///
    /// As [`Client::ask`].
    pub fn metrics(&mut self) -> Result<String, ClientError> {
        let answer: Metrics = read(self.ask(Command::Metrics {})?)?;
        Ok(answer.metrics)
    }

    /// Bytes into the rx stream of a FIFO, as if its host side had sent them: at most [`crate::MAX_BYTES`]. Those that
    /// do not fit are not taken.
    ///
    /// # Errors
    ///
    /// As [`Client::ask`].
    pub fn push(&mut self, fifo: u16, bytes: &[u8]) -> Result<Pushed, ClientError> {
        read(self.ask(Command::Push {
            fifo,
            text: None,
            base64: Some(encode(bytes)),
        })?)
    }

    /// Up to `max` bytes that the driver has sent and the host side of a FIFO has not taken, and how many more there are.
    /// One answer has at most [`crate::MAX_BYTES`].
    ///
    /// # Errors
    ///
    /// As [`Client::ask`].
    pub fn pull(&mut self, fifo: u16, max: usize) -> Result<(Vec<u8>, usize), ClientError> {
        let answer: Pulled = read(self.ask(Command::Pull { fifo, max })?)?;
        let bytes = answer
            .bytes()
            .map_err(|error| ClientError::Answer(error.message))?;
        Ok((bytes, answer.left))
    }

    /// Discards all bytes of a FIFO; how many there were.
    ///
    /// # Errors
    ///
    /// As [`Client::ask`].
    pub fn clear(&mut self, fifo: u16) -> Result<usize, ClientError> {
        let answer: Cleared = read(self.ask(Command::Clear { fifo })?)?;
        Ok(answer.cleared)
    }

    /// Hangs up the host side of a FIFO, or takes that back.
    ///
    /// # Errors
    ///
    /// As [`Client::ask`].
    pub fn hang_up(&mut self, fifo: u16, on: bool) -> Result<(), ClientError> {
        self.ask(Command::Hangup { fifo, on }).map(drop)
    }

    /// Adds a fault, as for `--fault`; its number.
    ///
    /// # Errors
    ///
    /// As [`Client::ask`].
    pub fn add_fault(&mut self, spec: &str) -> Result<u32, ClientError> {
        let spec = spec.to_owned();
        let answer: FaultAdded = read(self.ask(Command::FaultAdd { spec })?)?;
        Ok(answer.fault)
    }

    /// All faults.
    ///
    /// # Errors
    ///
    /// As [`Client::ask`].
    pub fn faults(&mut self) -> Result<Vec<FaultStatus>, ClientError> {
        let answer: Faults = read(self.ask(Command::FaultList {})?)?;
        Ok(answer.faults)
    }

    /// Takes a fault away.
    ///
    /// # Errors
    ///
    /// As [`Client::ask`].
    pub fn remove_fault(&mut self, fault: u32) -> Result<(), ClientError> {
        self.ask(Command::FaultRemove { fault }).map(drop)
    }

    /// Takes all faults away; how many there were.
    ///
    /// # Errors
    ///
    /// As [`Client::ask`].
    pub fn clear_faults(&mut self) -> Result<usize, ClientError> {
        let answer: FaultsRemoved = read(self.ask(Command::FaultClear {})?)?;
        Ok(answer.removed)
    }

    /// What happens from now on to these FIFOs, or to all if there is none in the list. The iterator waits for the next event,
    /// however long, and ends after the first error.
    ///
    /// # Errors
    ///
    /// As [`Client::ask`].
    pub fn watch(
        mut self,
        fifos: &[u16],
    ) -> Result<impl Iterator<Item = Result<Event, ClientError>>, ClientError> {
        let fifos = fifos.to_vec();
        self.ask(Command::Watch { fifos })?;
        let mut client = Some(self);
        Ok(std::iter::from_fn(move || {
            let event = client.as_mut()?.next_event().and_then(read);
            if event.is_err() {
                client = None;
            }
            Some(event)
        }))
    }

    /// Has a command carried out; the answer as it came.
    ///
    /// # Errors
    ///
    /// What the daemon says against it.
    pub fn ask(&mut self, command: Command) -> Result<Value, ClientError> {
        let mut line = Request { id: None, command }.to_line();
        line.push('\n');
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => ClientError::Ended,
                _ => ClientError::Silent(error),
            })?;
        let answer = self.receive()?;
        match refusal(&answer) {
            Some(refusal) => Err(refusal),
            None => Ok(answer),
        }
    }

    /// Waits for the next event, however long.
    ///
    /// # Errors
    ///
    /// When the daemon has ended.
    pub fn next_event(&mut self) -> Result<Value, ClientError> {
        self.stream
            .get_ref()
            .set_read_timeout(None)
            .map_err(ClientError::Silent)?;
        self.receive()
    }

    fn receive(&mut self) -> Result<Value, ClientError> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => Err(ClientError::Ended),
            Ok(_) => {
                serde_json::from_str(&line).map_err(|error| ClientError::Answer(error.to_string()))
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(ClientError::Ended),
            Err(error) => Err(ClientError::Silent(error)),
        }
    }
}

fn refusal(answer: &Value) -> Option<ClientError> {
    let failure: Failure = serde_json::from_value(answer.get("error")?.clone()).ok()?;
    Some(ClientError::Refused(failure.message))
}

#[cfg(test)]
mod tests;
