// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What FIFOs end at outside of the device: sockets, pseudo-terminals, files.
//!
//! The event loop serves them; the queue worker does no more than to offer bytes to a socket, by the
//! [`crate::outlet::Outlet`] that a FIFO has while there is a peer. Each is one
//! subscriber of the loop with descriptors of its own, and a bell by which its FIFO calls it; a
//! [`pump::Pump`] moves the bytes, a bounded amount a turn, and wakes the worker. What is here
//! knows FIFOs and descriptors; it must not know virtqueues or messages.

mod file;
mod net;
mod pty;
mod pump;
mod stdio;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use event_manager::MutEventSubscriber;
use vmm_sys_util::event::EventNotifier;

use crate::device::Device;
use crate::socket::SocketError;
use crate::spec::FifoSpec;
use crate::spec::Kind;

/// Why a FIFO has no host side.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// There is no listening socket.
    #[error("--fifo unix: {0}")]
    Socket(#[from] SocketError),
    /// A path to connect to that can never be a socket.
    #[error(
        "--fifo unix: {0} exists and is not a socket: give the path of the socket to connect to"
    )]
    NotASocket(PathBuf),
    /// No such host, no such port …
    #[error("--fifo tcp: cannot {what} {address}: {source}")]
    Tcp {
        /// What was tried.
        what: &'static str,
        /// As given.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// There is only one standard input.
    #[error("--fifo stdio is given twice: standard input and output are for one FIFO")]
    SecondStdio,
    /// A file cannot be opened.
    #[error("--fifo file: cannot open {path}: {reason}")]
    File {
        /// As given.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// There is no pseudo-terminal.
    #[error("--fifo pty: cannot make a pseudo-terminal: {0}")]
    Pty(io::Error),
    /// Something is where the link should be.
    #[error("--fifo pty: {0} exists: it is left alone, use another link=PATH")]
    LinkTaken(PathBuf),
    /// No permission, no folder …
    #[error(
        "--fifo pty: cannot make the link {path}: {source}; use a link=PATH in a folder you can write to"
    )]
    Link {
        /// As given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No file descriptors, no memory …
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl HostError {
    fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// The outside of a device, open.
#[derive(Default)]
pub struct Outside {
    /// What the event loop is to serve.
    pub subscribers: Vec<Box<dyn MutEventSubscriber + Send>>,
    /// The pseudo-terminals, each with the number of its FIFO.
    pub ptys: Vec<(u16, PathBuf)>,
    /// TCP addresses that are listened at, each with the number of its FIFO.
    pub ports: Vec<(u16, SocketAddr)>,
    /// Those who have files open by name, and open them anew when told to.
    pub reopen: Vec<EventNotifier>,
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside")
            .field("ptys", &self.ptys)
            .field("ports", &self.ports)
            .finish_non_exhaustive()
    }
}

/// Opens what the FIFOs of `device` end at, which was made of `specs`.
///
/// # Errors
///
/// What is in the way of one of them.
pub fn open(device: &Arc<Device>, specs: &[FifoSpec]) -> Result<Outside, HostError> {
    let mut outside = Outside::default();
    let mut stdio = false;
    for (index, spec) in (0..).zip(specs) {
        match &spec.kind {
            Kind::Unix { path, role } => {
                let unix = stream::Stream::unix(device, index, spec.capacity, path, *role)?;
                outside.subscribers.push(Box::new(unix));
            }
            Kind::Tcp { host, port, role } => {
                let address = (host.as_str(), *port);
                let tcp = stream::Stream::tcp(device, index, spec.capacity, address, *role)?;
                let listens = tcp.address().map(|address| (index, address));
                outside.ports.extend(listens);
                outside.subscribers.push(Box::new(tcp));
            }
            Kind::Stdio => {
                if std::mem::replace(&mut stdio, true) {
                    return Err(HostError::SecondStdio);
                }
                let file = file::Files::stdio(device, index, spec.capacity)?;
                outside.subscribers.push(Box::new(file));
            }
            Kind::Pty { link } => {
                let pty = pty::Pty::open(device, index, spec.capacity, link.as_deref())?;
                outside.ptys.push((index, pty.path().to_owned()));
                outside.subscribers.push(Box::new(pty));
            }
            Kind::File { path, input } => {
                let file = file::Files::open(device, index, spec.capacity, path, input.as_deref())?;
                outside.reopen.push(file.reopener()?);
                outside.subscribers.push(Box::new(file));
            }
            Kind::Loopback | Kind::Pattern { .. } | Kind::Zero | Kind::Null => {}
        }
    }
    Ok(outside)
}
