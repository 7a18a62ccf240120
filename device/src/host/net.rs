// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Stream sockets of either family: how peers come, and what is done with one.
//!
//! Nothing here waits. It must not know FIFOs or the event loop.

use std::io;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::ToSocketAddrs;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::socket as sys;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use nix::sys::socket::SockaddrIn;
use nix::sys::socket::SockaddrIn6;
use nix::sys::socket::sockopt;
use nix::sys::uio::writev;
use vm_memory::VolatileSlice;

use super::HostError;
use super::pump;
use crate::outlet;
use crate::outlet::Outlet;
use crate::socket;

/// Bytes that the kernel is asked to hold for a UNIX peer: what it lets anybody have, unless it was told
/// otherwise (`net.core.wmem_max`), and twice what one has without asking. Each time that it holds so much,
/// what follows is copied once more, and waits for the event loop. (TCP finds its own size.)
const SEND_BUFFER: usize = 212_992;

/// A connected stream socket that never waits.
#[derive(Debug)]
pub struct Peer(OwnedFd);

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Peer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Outlet for Peer {
    fn offer(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        let parts = [IoSlice::new(first), IoSlice::new(second)];
        Ok(writev(&self.0, &parts)?)
    }

    fn offer_pieces(&self, pieces: &[VolatileSlice<'_>]) -> io::Result<usize> {
        outlet::write_pieces(self, pieces)
    }
}

impl pump::Stream for &Peer {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(&self.0, bytes)?)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(&self.0, bytes)?)
    }

    fn short_is_all(&self) -> bool {
        true
    }

    fn at_end(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match sys::recv(self.0.as_raw_fd(), &mut [0], flags) {
            Ok(len) => len == 0,
            Err(errno) => errno != Errno::EAGAIN,
        }
    }
}

/// Where peers connect to.
#[derive(Debug)]
pub enum Listener {
    /// A path.
    Unix(UnixListener),
    /// A port.
    Tcp(TcpListener),
}

impl Listener {
    /// Listens at the first of the addresses of `host` that can be had.
    pub fn tcp(host: &str, port: u16) -> Result<Self, HostError> {
        let failed = |source| HostError::Tcp {
            what: "listen at",
            address: printed(host, port),
            source,
        };
        let listener = TcpListener::bind((host, port)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        // Those who are accepted have both from here.
        set_up_tcp(&listener).map_err(failed)?;
        Ok(Self::Tcp(listener))
    }

    /// The next peer that waits to be accepted.
    pub fn accept(&self) -> io::Result<Peer> {
        let (peer, unix) = match self {
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                (OwnedFd::from(stream), true)
            }
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                (OwnedFd::from(stream), false)
            }
        };
        if unix {
            enlarge(&peer);
        }
        Ok(Peer(peer))
    }

    /// Whether the end of what a peer sends may be the end of the peer. TCP says the same of both; a
    /// UNIX socket does not.
    pub fn may_be_gone_at_end(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// Where it listens, if that is an address.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp(listener) => listener.local_addr().ok(),
        }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Unix(listener) => listener.as_raw_fd(),
            Self::Tcp(listener) => listener.as_raw_fd(),
        }
    }
}

/// Where to connect to.
#[derive(Debug)]
pub enum Target {
    /// A path.
    Unix(PathBuf),
    /// The addresses of a host, and which one is next.
    Tcp {
        /// All of them, at least one.
        addresses: Vec<SocketAddr>,
        /// Counts attempts.
        next: usize,
    },
}

/// What became of an attempt to connect.
#[derive(Debug)]
pub enum Attempt {
    /// It is connected.
    Done(Peer),
    /// It will be writable when it is decided.
    Pending(OwnedFd),
}

impl Target {
    /// The addresses that `host` has now: in the sandbox nobody can be asked.
    pub fn tcp(host: &str, port: u16) -> Result<Self, HostError> {
        let failed = |source| HostError::Tcp {
            what: "find",
            address: printed(host, port),
            source,
        };
        let addresses: Vec<_> = (host, port).to_socket_addrs().map_err(failed)?.collect();
        if addresses.is_empty() {
            return Err(failed(io::Error::other("the name has no address")));
        }
        Ok(Self::Tcp { addresses, next: 0 })
    }

    /// Begins to connect.
    pub fn connect(&mut self) -> io::Result<Attempt> {
        match self {
            Self::Unix(path) => {
                let peer = OwnedFd::from(socket::connect(path)?);
                enlarge(&peer);
                Ok(Attempt::Done(Peer(peer)))
            }
            Self::Tcp { addresses, next } => {
                let address = addresses.iter().cycle().nth(*next % addresses.len().max(1));
                *next = next.wrapping_add(1);
                let Some(address) = address else {
                    return Err(io::ErrorKind::AddrNotAvailable.into());
                };
                let family = if address.is_ipv4() {
                    AddressFamily::Inet
                } else {
                    AddressFamily::Inet6
                };
                let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
                let fd = sys::socket(family, SockType::Stream, flags, None)?;
                set_up_tcp(&fd)?;
                let connected = match address {
                    SocketAddr::V4(address) => {
                        sys::connect(fd.as_raw_fd(), &SockaddrIn::from(*address))
                    }
                    SocketAddr::V6(address) => {
                        sys::connect(fd.as_raw_fd(), &SockaddrIn6::from(*address))
                    }
                };
                match connected {
                    Ok(()) => Ok(Attempt::Done(Peer(fd))),
                    Err(Errno::EINPROGRESS) => Ok(Attempt::Pending(fd)),
                    Err(errno) => Err(errno.into()),
                }
            }
        }
    }
}

/// What became of an attempt that is decided.
pub fn decide(fd: OwnedFd) -> io::Result<Peer> {
    match sys::getsockopt(&fd, sockopt::SocketError)? {
        0 => Ok(Peer(fd)),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Small messages leave at once, and a peer that has vanished, or has closed its socket for good while
/// nothing is sent to it, is noticed after 75 seconds.
fn set_up_tcp(fd: &impl AsFd) -> io::Result<()> {
    sys::setsockopt(fd, sockopt::TcpNoDelay, &true)?;
    sys::setsockopt(fd, sockopt::KeepAlive, &true)?;
    sys::setsockopt(fd, sockopt::TcpKeepIdle, &15)?;
    sys::setsockopt(fd, sockopt::TcpKeepInterval, &15)?;
    sys::setsockopt(fd, sockopt::TcpKeepCount, &4)?;
    Ok(())
}

fn enlarge(fd: &OwnedFd) {
    // The kernel says twice what it was asked for. What it refuses costs speed, and nothing else.
    if sys::getsockopt(fd, sockopt::SndBuf).is_ok_and(|bytes| bytes < 2 * SEND_BUFFER) {
        let _ = sys::setsockopt(fd, sockopt::SndBuf, &SEND_BUFFER);
    }
}

fn printed(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}
