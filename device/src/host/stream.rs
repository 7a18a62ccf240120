// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A FIFO on a stream socket: one peer at a time, and the next may follow.
//!
//! Either peers connect to a socket made here, or this connects to theirs, again and again with a
//! pause that doubles up to a bound. A peer that closes one direction has said all it will, and
//! still gets what the driver writes.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use event_manager::EventOps;
use event_manager::EventSet;
use event_manager::Events;
use event_manager::MutEventSubscriber;
use tracing::debug;
use tracing::error;
use tracing::info;
use tracing::warn;
use vmm_sys_util::timerfd::TimerFd;

use super::HostError;
use super::net;
use super::net::Attempt;
use super::net::Listener;
use super::net::Peer;
use super::net::Target;
use super::pump;
use super::pump::Flow;
use super::pump::Pump;
use crate::device::Device;
use crate::fifo::Connection;
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

/// How peers come.
#[derive(Debug)]
enum Way {
    Listen {
        listener: Listener,
        /// It is watched: the next peer is welcome.
        watched: bool,
        _file: Option<SocketFile>,
    },
    Connect {
        target: Target,
        pause: Duration,
        /// An attempt that is not decided.
        attempt: Option<OwnedFd>,
    },
}

impl Way {
    fn connect(target: Target) -> Self {
        Self::Connect {
            target,
            pause: PAUSES.0,
            attempt: None,
        }
    }
}

/// See the module.
pub struct Stream {
    pump: Pump,
    way: Way,
    /// Runs until another attempt.
    timer: TimerFd,
    peer: Option<Arc<Peer>>,
    log: LogLimit,
}

impl Stream {
    pub fn unix(
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
                    listener: Listener::Unix(listener),
                    watched: false,
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
                Way::connect(Target::Unix(path.to_owned()))
            }
        };
        Self::new(device, index, capacity, way)
    }

    pub fn tcp(
        device: &Arc<Device>,
        index: u16,
        capacity: usize,
        (host, port): (&str, u16),
        role: Role,
    ) -> Result<Self, HostError> {
        let way = match role {
            Role::Listen => Way::Listen {
                listener: Listener::tcp(host, port)?,
                watched: false,
                _file: None,
            },
            Role::Connect => Way::connect(Target::tcp(host, port)?),
        };
        Self::new(device, index, capacity, way)
    }

    fn new(device: &Arc<Device>, index: u16, capacity: usize, way: Way) -> Result<Self, HostError> {
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

    /// Where it listens, if that is an address.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.way {
            Way::Listen { listener, .. } => listener.address(),
            Way::Connect { .. } => None,
        }
    }

    /// Looks for the next peer.
    fn next(&mut self, ops: &mut EventOps<'_>) {
        match &mut self.way {
            Way::Listen { watched: true, .. } => {}
            Way::Listen {
                listener, watched, ..
            } => {
                *watched = true;
                if let Err(error) = ops.add(Events::new(&*listener, EventSet::IN)) {
                    error!(fifo = self.pump.index(), %error, "cannot watch the socket");
                }
            }
            Way::Connect {
                target, attempt, ..
            } => match target.connect() {
                Ok(Attempt::Done(peer)) => self.connected(peer, ops),
                Ok(Attempt::Pending(fd)) => {
                    let watched = ops.add(Events::new(&fd, EventSet::OUT));
                    *attempt = Some(fd);
                    if let Err(error) = watched {
                        self.failed(&io::Error::other(error.to_string()));
                    }
                }
                Err(error) => self.failed(&error),
            },
        }
    }

    /// An attempt to connect is decided.
    fn decided(&mut self, ops: &mut EventOps<'_>) {
        let Way::Connect { attempt, .. } = &mut self.way else {
            return;
        };
        let Some(fd) = attempt.take() else { return };
        if let Err(error) = ops.remove(Events::new(&fd, EventSet::empty())) {
            error!(fifo = self.pump.index(), %error, "cannot leave a socket");
        }
        match net::decide(fd) {
            Ok(peer) => self.connected(peer, ops),
            Err(error) => self.failed(&error),
        }
    }

    fn connected(&mut self, peer: Peer, ops: &mut EventOps<'_>) {
        if let Way::Connect { pause, .. } = &mut self.way {
            *pause = PAUSES.0;
        }
        self.begin(peer, ops);
    }

    /// There is nobody to connect to: another attempt follows.
    fn failed(&mut self, error: &io::Error) {
        let Way::Connect {
            target,
            pause,
            attempt,
        } = &mut self.way
        else {
            return;
        };
        *attempt = None;
        // Said once: the loop tries for as long as it takes.
        if *pause == PAUSES.0 {
            info!(fifo = self.pump.index(), ?target, %error, "nobody to connect to yet");
        }
        let now = *pause;
        *pause = (now * 2).min(PAUSES.1);
        self.wait(now);
    }

    fn wait(&mut self, pause: Duration) {
        if let Err(error) = self.timer.reset(pause, None) {
            error!(fifo = self.pump.index(), %error, "cannot set a timer");
        }
    }

    /// Somebody waits to be accepted; others must wait until this peer is gone.
    fn accept(&mut self, ops: &mut EventOps<'_>) {
        let Way::Listen {
            listener, watched, ..
        } = &mut self.way
        else {
            return;
        };
        let accepted = listener.accept();
        if matches!(&accepted, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            return;
        }
        *watched = false;
        if let Err(error) = ops.remove(Events::new(&*listener, EventSet::IN)) {
            error!(fifo = self.pump.index(), %error, "cannot leave the socket");
        }
        match accepted {
            Ok(peer) => {
                // The one until now has said all it will, and may be gone.
                self.leave(ops);
                self.begin(peer, ops);
            }
            Err(error) => {
                if self.log.pass().is_some() {
                    warn!(fifo = self.pump.index(), %error, "cannot accept a peer, trying again");
                }
                self.wait(ACCEPT_PAUSE);
            }
        }
    }

    /// A new peer.
    fn begin(&mut self, peer: Peer, ops: &mut EventOps<'_>) {
        let watched = ops.add(Events::new(&peer, pump::interest()));
        if let Err(error) = watched {
            if self.log.pass().is_some() {
                warn!(fifo = self.pump.index(), %error, "cannot serve a peer, trying again");
            }
            self.wait(ACCEPT_PAUSE);
            return;
        }
        let peer = Arc::new(peer);
        self.pump.open(Some(Arc::clone(&peer) as Arc<dyn Outlet>));
        self.peer = Some(peer);
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
            if matches!(&self.way, Way::Listen { listener, .. } if listener.may_be_gone_at_end()) {
                self.next(ops);
            }
        }
    }

    /// The peer is gone. What it did not take stays for the next.
    fn end(&mut self, ops: &mut EventOps<'_>) {
        self.leave(ops);
        match &self.way {
            Way::Listen { .. } => self.next(ops),
            // Not at once: somebody may accept only to close.
            Way::Connect { pause, .. } => self.wait(*pause),
        }
    }
}

impl Stream {
    fn leave(&mut self, ops: &mut EventOps<'_>) {
        let Some(peer) = self.peer.take() else { return };
        if let Err(error) = ops.remove(Events::new(&*peer, EventSet::empty())) {
            error!(fifo = self.pump.index(), %error, "cannot leave a peer");
        }
        self.pump.close();
        self.pump.set_connection(Connection::Gone);
        debug!(fifo = self.pump.index(), "the peer is gone");
    }
}

impl MutEventSubscriber for Stream {
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
        } else if let Way::Connect { .. } = self.way {
            self.decided(ops);
        } else {
            self.accept(ops);
        }
    }
}
