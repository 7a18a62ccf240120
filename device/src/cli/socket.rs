// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Options that say where VMMs connect: QEMU's conventions for backend programs, and systemd's.
//!
//! It must not know what is served on the socket.

use std::fmt;
use std::fmt::Display;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::Args;

use crate::socket::Access;

/// The options.
#[derive(Args, Clone, Debug)]
pub struct SocketArgs {
    /// Create the vhost-user socket here
    #[arg(long, value_name = "PATH", conflicts_with = "fd")]
    socket_path: Option<PathBuf>,

    /// Use this inherited listening socket; without it and without --socket-path, the one that
    /// systemd hands over
    #[arg(long, alias = "socket-fd", value_name = "FD", value_parser = clap::value_parser!(i32).range(0..))]
    fd: Option<RawFd>,

    /// Group that may connect to --socket-path too, by name or number; --socket-mode is then 660
    #[arg(
        long,
        value_name = "GROUP",
        requires = "socket_path",
        conflicts_with = "fd"
    )]
    socket_group: Option<String>,

    /// Mode of --socket-path [default: 600]
    #[arg(long, value_name = "OCTAL", requires = "socket_path", conflicts_with = "fd",
          value_parser = parse_mode)]
    socket_mode: Option<u32>,
}

/// Where VMMs connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketSource {
    /// A socket to create, for those of [`Access`].
    Path(PathBuf, Access),
    /// A listening socket inherited.
    Fd(RawFd),
    /// The listening socket that the service manager hands over.
    Activation,
}

impl Display for SocketSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path, _) => write!(f, "{path:?}"),
            Self::Fd(fd) => write!(f, "fd {fd}"),
            Self::Activation => write!(f, "systemd's socket"),
        }
    }
}

impl SocketArgs {
    /// What the options ask for; `None` if they name no socket.
    pub fn source(self) -> Option<SocketSource> {
        if let Some(path) = self.socket_path {
            let private = if self.socket_group.is_some() {
                0o660
            } else {
                0o600
            };
            let access = Access {
                mode: self.socket_mode.unwrap_or(private),
                group: self.socket_group,
            };
            return Some(SocketSource::Path(path, access));
        }
        self.fd.map(SocketSource::Fd)
    }
}

fn parse_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| "use three octal digits, 600 for instance".to_owned())
}
