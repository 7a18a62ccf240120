// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The service manager that started this process, if one did: sockets it hands over
//! (`sd_listen_fds(3)`), and messages to it (`sd_notify(3)`).
//!
//! The socket for messages is connected before the sandbox forbids to make one. This file must not
//! know what the process serves.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::fd::RawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixDatagram;

use sd_notify::NotifyState;
use tracing::warn;

/// Name of the control socket among those handed over (`FileDescriptorName=`).
const CONTROL: &str = "control";

/// Listening sockets that were handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activation {
    /// For VMMs.
    pub vhost_user: Option<RawFd>,
    /// For control clients.
    pub control: Option<RawFd>,
}

/// Why the sockets handed over cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// The variables of the environment make no sense.
    #[error("cannot read LISTEN_FDS and LISTEN_FDNAMES: {0}")]
    Environment(#[from] io::Error),
    /// Nobody would know which one is meant.
    #[error(
        "{0} sockets are handed over: hand over one for VMMs, and perhaps one with FileDescriptorName=control"
    )]
    TooMany(usize),
}

impl Activation {
    /// What the environment says.
    ///
    /// # Errors
    ///
    /// When it says something else.
    pub fn from_env() -> Result<Self, ActivationError> {
        if env::var_os("LISTEN_FDNAMES").is_some() {
            Self::from_names(sd_notify::listen_fds_with_names()?)
        } else {
            Self::from_names(sd_notify::listen_fds()?.map(|fd| (fd, String::new())))
        }
    }

    fn from_names(
        sockets: impl ExactSizeIterator<Item = (RawFd, String)>,
    ) -> Result<Self, ActivationError> {
        let count = sockets.len();
        let mut activation = Self::default();
        for (fd, name) in sockets {
            let place = if name == CONTROL {
                &mut activation.control
            } else {
                &mut activation.vhost_user
            };
            if place.replace(fd).is_some() {
                return Err(ActivationError::TooMany(count));
            }
        }
        Ok(activation)
    }
}

/// The way to the service manager.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
}

impl ServiceManager {
    /// The one that the environment names, if it names one that can be reached.
    pub fn from_env() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else {
            return Self::default();
        };
        let socket = connect(&name)
            .inspect_err(|error| {
                warn!(
                    NOTIFY_SOCKET = ?name,
                    %error,
                    "cannot reach the service manager, going on without one"
                );
            })
            .ok();
        Self { socket }
    }

    /// The service is ready, and does what `status` says.
    pub fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The service is about to end.
    pub fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else {
            return;
        };
        let lines: Vec<_> = states.iter().map(ToString::to_string).collect();
        if let Err(error) = socket.send(lines.join("\n").as_bytes()) {
            warn!(%error, "cannot tell the service manager");
        }
    }
}

/// A socket on its way to `name`, a path or, after `@`, an abstract name.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::other("neither an absolute path nor @NAME")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A manager that is busy must not hold up the event loop.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Result<Activation, ActivationError> {
        let sockets: Vec<_> = (3..).zip(names.iter().map(ToString::to_string)).collect();
        Activation::from_names(sockets.into_iter())
    }

    #[test]
    fn a_socket_named_control_is_for_control_clients_and_the_other_for_vmms() {
        let both = Activation {
            vhost_user: Some(3),
            control: Some(4),
        };
        assert_eq!(named(&["fifo", "control"]).unwrap(), both);
        let vmms = Activation {
            vhost_user: Some(3),
            control: None,
        };
        assert_eq!(named(&["unknown"]).unwrap(), vmms);
    }

    #[test]
    fn two_sockets_for_one_purpose_are_an_error() {
        let error = named(&["a", "b"]).unwrap_err().to_string();
        assert!(error.contains("2 sockets are handed over"), "{error}");
        assert!(named(&["control", "control"]).is_err());
    }
}
