// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A connection to a control socket.

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::protocol::Command;
use crate::protocol::Failure;
use crate::protocol::Hello;
use crate::protocol::Request;
use crate::protocol::VERSION;

/// A daemon that takes longer for an answer is stopped, or no such daemon.
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
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the daemon at `path`.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
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
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
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

    /// Has a command carried out.
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
            Ok(_) => serde_json::from_str(&line)
                .map_err(|error| ClientError::Refused(format!("not an answer: {error}"))),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(ClientError::Ended),
            Err(error) => Err(ClientError::Silent(error)),
        }
    }
}

fn refusal(answer: &Value) -> Option<ClientError> {
    let failure: Failure = serde_json::from_value(answer.get("error")?.clone()).ok()?;
    Some(ClientError::Refused(failure.message))
}
