// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A FIFO on a UNIX stream socket: one peer at a time, and the next may follow.
//!
//! Either peers connect to a socket made here, or this connects to theirs, again and again with a
//! pause that doubles up to a bound. A peer that closes one direction has said all it will, and
//! still gets what the driver writes.

use std::io;
use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use event_manager::EventOps;
use event_manager::EventSet;
use event_manager::Events;
use event_manager::MutEventSubscriber;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::getsockopt;
use nix::sys::socket::recv;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt;
use tracing::debug;
use tracing::error;
use tracing::info;
use tracing::warn;
use vm_memory::VolatileSlice;
use vmm_sys_util::timerfd::TimerFd;

use super::HostError;
use super::pump;
use super::pump::Flow;
use super::pump::Pump;
use crate::device::Device;
use crate::fifo::Connection;
use crate::outlet;
use crate::outlet::Outlet;
use crate::refusal::LogLimit;
use crate::socket;
use crate::socket::Listening;
use crate::socket::SocketFile;
use crate::spec::Role;

/// The first pause before another attempt to connect, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How long to wait after a failure to accept, which is a lack of something.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Bytes that the kernel is asked to hold for a peer: what it lets anybody have, unless it was told otherwise
/// (`net.core.wmem_max`), and twice what one has without asking. Each time that it holds so much, what follows is
/// copied once more, and waits for the event loop.
const SEND_BUFFER: usize = 212_992;

/// How peers come.
#[derive(Debug)]
enum Way {
    Listen {
        listener: UnixListener,
        _file: Option<SocketFile>,
    },
    Connect {
        path: PathBuf,
        pause: Duration,
    },
}

/// See the module.
pub struct Unix {
    pump: Pump,
    way: Way,
    /// Runs until another attempt.
    timer: TimerFd,
    peer: Option<Arc<UnixStream>>,
    log: LogLimit,
}

impl Unix {
    pub fn open(
        device: &Arc<Device>,
        index: u16,
        capacity: usize,
        path: &Path,
        role: Role,
    ) -> Result<Self, HostError> {
        let way = match role {
            Role::Listen => {
                let (listener, file) = Listening::bind(path)?.into_parts();
                listener
                    .set_nonblocking(true)
                    .map_err(HostError::system("set up a socket"))?;
                Way::Listen {
                    listener,
                    _file: file,
                }
            }
            Role::Connect => {
                socket::check_address(path)?;
                if path
                    .metadata()
                    .is_ok_and(|metadata| !metadata.file_type().is_socket())
                {
                    return Err(HostError::NotASocket(path.to_owned()));
                }
                Way::Connect {
                    path: path.to_owned(),
                    pause: PAUSES.0,
                }
            }
        };
        let timer = TimerFd::new()
            .map_err(io::Error::from)
            .map_err(HostError::system("create a timer"))?;
        let pump = Pump::new(device, index, capacity)?;
        pump.set_connection(Connection::Awaited);
        Ok(Self {
            pump,
            way,
            timer,
            peer: None,
            log: LogLimit::default(),
        })
    }

    /// Looks for the next peer.
    fn next(&mut self, ops: &mut EventOps<'_>) {
        match &mut self.way {
            Way::Listen { listener, .. } => {
                if let Err(error) = ops.add(Events::new(listener, EventSet::IN)) {
                    error!(fifo = self.pump.index(), %error, "cannot watch the socket");
                }
            }
            Way::Connect { path, pause } => match socket::connect(path) {
                Ok(stream) => {
                    *pause = PAUSES.0;
                    self.begin(stream, ops);
                }
                Err(error) => {
                    // Said once: the loop tries for as long as it takes.
                    if *pause == PAUSES.0 {
                        info!(fifo = self.pump.index(), path = %path.display(), %error, "nobody to connect to yet");
                    }
                    let now = *pause;
                    *pause = (now * 2).min(PAUSES.1);
                    self.wait(now);
                }
            },
        }
    }

    fn wait(&mut self, pause: Duration) {
        if let Err(error) = self.timer.reset(pause, None) {
            error!(fifo = self.pump.index(), %error, "cannot set a timer");
        }
    }

    /// Somebody waits to be accepted; others must wait until this peer is gone.
    fn accept(&mut self, ops: &mut EventOps<'_>) {
        let Way::Listen { listener, .. } = &self.way else {
            return;
        };
        let accepted = listener.accept();
        if matches!(&accepted, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            return;
        }
        if let Err(error) = ops.remove(Events::new(listener, EventSet::IN)) {
            error!(fifo = self.pump.index(), %error, "cannot leave the socket");
        }
        match accepted {
            Ok((stream, _)) => self.begin(stream, ops),
            Err(error) => {
                if self.log.pass().is_some() {
                    warn!(fifo = self.pump.index(), %error, "cannot accept a peer, trying again");
                }
                self.wait(ACCEPT_PAUSE);
            }
        }
    }

    /// A new peer.
    fn begin(&mut self, stream: UnixStream, ops: &mut EventOps<'_>) {
        // The kernel says twice what it was asked for.
        let enlarged = getsockopt(&stream, sockopt::SndBuf).and_then(|bytes| {
            if bytes < 2 * SEND_BUFFER {
                setsockopt(&stream, sockopt::SndBuf, &SEND_BUFFER)?;
            }
            Ok(())
        });
        if let Err(error) = enlarged {
            debug!(fifo = self.pump.index(), %error, "cannot have a larger send buffer");
        }
        let watched = stream
            .set_nonblocking(true)
            .map_err(|error| error.to_string())
            .and_then(|()| {
                ops.add(Events::new(&stream, pump::interest()))
                    .map_err(|error| error.to_string())
            });
        if let Err(error) = watched {
            if self.log.pass().is_some() {
                warn!(fifo = self.pump.index(), %error, "cannot serve a peer, trying again");
            }
            self.wait(ACCEPT_PAUSE);
            return;
        }
        let stream = Arc::new(stream);
        self.pump.open(Some(Arc::clone(&stream) as Arc<dyn Outlet>));
        self.peer = Some(stream);
        self.pump.set_connection(Connection::Connected);
        match self.log.pass() {
            Some(unlogged) => info!(fifo = self.pump.index(), unlogged, "a peer has connected"),
            None => debug!(fifo = self.pump.index(), "a peer has connected"),
        }
    }

    fn turn(&mut self, ops: &mut EventOps<'_>) {
        let Some(peer) = &self.peer else {
            return;
        };
        let (input, output) = self.pump.turn(&mut &**peer);
        if let Flow::Failed(error) = &input {
            // A connection that was reset: there is no peer any more.
            debug!(fifo = self.pump.index(), %error, "the connection has failed");
            self.end(ops);
            return;
        }
        if let Flow::Failed(error) = &output {
            debug!(fifo = self.pump.index(), %error, "cannot write to the peer");
            self.pump.close_output();
        }
        if self.pump.over() {
            self.end(ops);
        } else if matches!(input, Flow::Ended) {
            self.pump.set_connection(Connection::HalfClosed);
        }
    }

    /// The peer is gone. What it did not take stays for the next.
    fn end(&mut self, ops: &mut EventOps<'_>) {
        if let Some(peer) = self.peer.take()
            && let Err(error) = ops.remove(Events::new(&*peer, EventSet::empty()))
        {
            error!(fifo = self.pump.index(), %error, "cannot leave a peer");
        }
        self.pump.close();
        self.pump.set_connection(Connection::Gone);
        debug!(fifo = self.pump.index(), "the peer is gone");
        match &self.way {
            Way::Listen { .. } => self.next(ops),
            // Not at once: somebody may accept only to close.
            Way::Connect { pause, .. } => self.wait(*pause),
        }
    }
}

impl MutEventSubscriber for Unix {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        for fd in [self.pump.bell.fd(), self.timer.as_raw_fd()] {
            if let Err(error) = ops.add(Events::new_raw(fd, EventSet::IN)) {
                error!(fifo = self.pump.index(), %error, "cannot watch a descriptor");
            }
        }
        self.next(ops);
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let fd = events.fd();
        if fd == self.pump.bell.fd() {
            self.pump.bell.heard();
            self.turn(ops);
        } else if fd == self.timer.as_raw_fd() {
            let _ = self.timer.wait();
            self.next(ops);
        } else if self
            .peer
            .as_ref()
            .is_some_and(|peer| peer.as_raw_fd() == fd)
        {
            self.pump.note(events.event_set());
            self.turn(ops);
        } else {
            self.accept(ops);
        }
    }
}

impl Outlet for UnixStream {
    fn offer(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        let parts = [IoSlice::new(first), IoSlice::new(second)];
        io::Write::write_vectored(&mut { self }, &parts)
    }

    fn offer_pieces(&self, pieces: &[VolatileSlice<'_>]) -> io::Result<usize> {
        outlet::write_pieces(self, pieces)
    }
}

impl pump::Stream for &UnixStream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        io::Read::read(self, bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(self, bytes)
    }

    fn short_is_all(&self) -> bool {
        true
    }

    fn at_end(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match recv(self.as_raw_fd(), &mut [0], flags) {
            Ok(len) => len == 0,
            Err(errno) => errno != nix::errno::Errno::EAGAIN,
        }
    }
}
