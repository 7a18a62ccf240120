// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The control socket and its clients, on the event loop.
//!
//! Nothing here waits: a client that does not read is asked nothing more until it has, one that
//! does not write costs a file descriptor, and one too many is told so and sent away. This file
//! must not know what a command does.

use std::collections::HashMap;
use std::io;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use event_manager::EventOps;
use event_manager::EventSet;
use event_manager::Events;
use event_manager::MutEventSubscriber;
use nix::sys::timerfd::ClockId;
use nix::sys::timerfd::Expiration;
use nix::sys::timerfd::TimerFd;
use nix::sys::timerfd::TimerFlags;
use nix::sys::timerfd::TimerSetTimeFlags;
use serde::Serialize;
use tracing::debug;
use tracing::warn;

use super::Service;
use super::lines::Incoming;
use super::lines::Line;
use super::lines::Outgoing;
use super::protocol::Answer;
use super::protocol::BadRequest;
use super::protocol::Code;
use super::protocol::Command;
use super::protocol::Failure;
use super::protocol::Hello;
use super::protocol::MAX_LINE;
use super::protocol::Outcome;
use super::protocol::Request;
use super::protocol::Status;
use super::tracing::Tracing;
use super::watch::Watcher;
use crate::socket::Listening;
use crate::socket::SocketFile;

/// Most clients at a time.
pub const MAX_CLIENTS: usize = 16;

/// How often the device is looked at for those who watch it.
const TICK: Duration = Duration::from_millis(100);

/// One client.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    incoming: Incoming,
    outgoing: Outgoing,
    watcher: Option<Watcher>,
    tracing: Option<Tracing>,
    /// It will send nothing more.
    ended: bool,
    interest: EventSet,
}

/// The client is to be closed.
struct Close;

impl Client {
    fn new(stream: UnixStream) -> Self {
        let mut client = Self {
            stream,
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
            watcher: None,
            tracing: None,
            ended: false,
            interest: EventSet::IN,
        };
        client.say(&Hello::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
        ));
        client
    }

    /// What there is to be done: requests as long as the client reads the answers.
    fn serve(&mut self, service: &Service) -> Result<(), Close> {
        self.flush()?;
        // What is there first, so that there is room for more.
        self.answer(service);
        if !self.ended && !self.outgoing.is_enough() {
            self.receive()?;
            self.answer(service);
        }
        self.trace();
        self.flush()?;
        if self.ended && !self.is_subscribed() && self.outgoing.is_empty() {
            return Err(Close);
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), Close> {
        match self.incoming.fill(&mut self.stream) {
            Ok(0) => self.ended = true,
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => return Err(Close),
        }
        Ok(())
    }

    fn answer(&mut self, service: &Service) {
        while !self.outgoing.is_enough() && !self.ends_trace() {
            let mut line = self.incoming.next_line();
            if line.is_none() && self.ended {
                line = self.incoming.last();
            }
            let Some(line) = line else { break };
            if let Some(answer) = self.answer_to(line, service) {
                self.say(&answer);
            }
        }
    }

    /// The answer, unless it comes later.
    fn answer_to(&mut self, line: Line, service: &Service) -> Option<Answer> {
        let request = match line {
            Line::Whole(line) => Request::parse(&line),
            Line::TooLong => Err(BadRequest {
                id: None,
                failure: Failure::new(
                    Code::TooLong,
                    format!("the line is too long: send at most {MAX_LINE} bytes at a time"),
                ),
            }),
        };
        match request {
            Ok(Request { id, command }) => {
                match &command {
                    Command::Trace { on: true } => {
                        self.tracing
                            .get_or_insert_with(|| Tracing::new(service.tracer()));
                    }
                    Command::Trace { on: false } => {
                        if let Some(tracing) = &mut self.tracing {
                            tracing.end(id);
                            return None;
                        }
                    }
                    _ => {}
                }
                let watched = match &command {
                    Command::Watch { fifos } => Some(fifos.clone()),
                    _ => None,
                };
                let result = service.run(command);
                if let (Some(fifos), Ok(_)) = (watched, &result) {
                    self.watcher = Some(Watcher::new(fifos, service.status()));
                }
                Some(Answer::new(id, result))
            }
            Err(BadRequest { id, failure }) => Some(Answer::new(id, Err(failure))),
        }
    }

    /// Tells events as far as the client reads, then answers the request to end that.
    fn trace(&mut self) {
        while !self.outgoing.is_enough()
            && let Some(tracing) = &mut self.tracing
        {
            let lines = tracing.lines();
            if lines.is_empty() {
                if let Some((id, traced)) = tracing.ended() {
                    self.tracing = None;
                    self.say(&Answer::new(id, Ok(Outcome::Traced(traced))));
                }
                return;
            }
            for line in lines {
                self.say(&line);
            }
        }
    }

    /// Whether its last request waits until it has every event.
    fn ends_trace(&self) -> bool {
        self.tracing.as_ref().is_some_and(Tracing::is_ending)
    }

    /// Whether it gets events: of `watch` or of `trace`.
    fn is_subscribed(&self) -> bool {
        self.watcher.is_some() || self.tracing.is_some()
    }

    fn tell(&mut self, now: Option<&Status>) -> Result<(), Close> {
        let can_take = !self.outgoing.is_enough();
        let events = match (&mut self.watcher, now) {
            (Some(watcher), Some(now)) => watcher.look(now, can_take),
            _ => Vec::new(),
        };
        for event in events {
            self.say(&event);
        }
        self.trace();
        self.flush()
    }

    fn say(&mut self, line: &impl Serialize) {
        match serde_json::to_string(line) {
            Ok(line) => self.outgoing.add(&line),
            Err(error) => warn!(%error, "cannot put an answer into JSON"),
        }
    }

    fn flush(&mut self) -> Result<(), Close> {
        self.outgoing.flush(&mut self.stream).map_err(|_| Close)
    }

    /// What must be waited for now. That it is gone is always told.
    fn wanted(&self) -> EventSet {
        let mut wanted = EventSet::empty();
        if !self.ended && !self.outgoing.is_enough() {
            wanted |= EventSet::IN;
        }
        let traced = self.tracing.as_ref().is_some_and(Tracing::has_much);
        if !self.outgoing.is_empty() || traced {
            wanted |= EventSet::OUT;
        }
        wanted
    }
}

/// The control socket: something for the event loop to serve.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    _file: Option<SocketFile>,
    service: Service,
    clients: HashMap<RawFd, Client>,
    timer: TimerFd,
    ticking: bool,
    /// The listening socket is left alone until the next tick.
    deaf: bool,
}

impl Control {
    /// Serves `service` on `listening`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn new(service: Service, listening: Listening) -> io::Result<Self> {
        let (listener, file) = listening.into_parts();
        listener.set_nonblocking(true)?;
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Self {
            listener,
            _file: file,
            service,
            clients: HashMap::new(),
            timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?,
            ticking: false,
            deaf: false,
        })
    }

    fn accept(&mut self, ops: &mut EventOps<'_>) {
        match self.listener.accept() {
            Ok((stream, _)) => self.welcome(stream, ops),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::Interrupted
                        | io::ErrorKind::ConnectionAborted
                ) => {}
            Err(error) => {
                // No descriptor is left, say. Asking again at once would only keep the loop busy.
                warn!(%error, "cannot accept a control client now");
                self.deaf = ops
                    .remove(Events::new(&self.listener, EventSet::IN))
                    .is_ok();
            }
        }
    }

    fn welcome(&mut self, stream: UnixStream, ops: &mut EventOps<'_>) {
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        if self.clients.len() >= MAX_CLIENTS {
            turn_away(&stream);
            return;
        }
        let fd = stream.as_raw_fd();
        if let Err(error) = ops.add(Events::new_raw(fd, EventSet::IN)) {
            warn!(%error, "cannot serve a control client");
            return;
        }
        debug!(clients = self.clients.len() + 1, "a control client");
        self.clients.insert(fd, Client::new(stream));
        self.with_client(fd, ops, Client::flush);
    }

    /// Does something for a client, then waits for what it needs next, or closes it.
    fn with_client(
        &mut self,
        fd: RawFd,
        ops: &mut EventOps<'_>,
        act: impl FnOnce(&mut Client) -> Result<(), Close>,
    ) {
        let Some(client) = self.clients.get_mut(&fd) else {
            return;
        };
        let mut close = act(client).is_err();
        let wanted = client.wanted();
        if !close && wanted != client.interest {
            client.interest = wanted;
            close = ops.modify(Events::new_raw(fd, wanted)).is_err();
        }
        if close {
            if let Err(error) = ops.remove(Events::new_raw(fd, EventSet::empty())) {
                warn!(%error, "cannot forget a control client");
            }
            self.clients.remove(&fd);
        }
    }

    fn client_event(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let service = self.service.clone();
        let gone = EventSet::HANG_UP | EventSet::ERROR;
        let gone = events.event_set().intersects(gone);
        self.with_client(events.fd(), ops, |client| {
            client.serve(&service)?;
            // Nobody is left to read an answer. What it had sent before is done first.
            if gone && (client.ended || client.is_subscribed()) {
                return Err(Close);
            }
            Ok(())
        });
    }

    fn tick(&mut self, ops: &mut EventOps<'_>) {
        // Only to make it unreadable; that it was not is no harm.
        let _ = nix::unistd::read(self.timer.as_fd(), &mut [0; 8]);
        if self.deaf {
            self.deaf = ops.add(Events::new(&self.listener, EventSet::IN)).is_err();
        }
        let told: Vec<RawFd> = self
            .clients
            .iter()
            .filter(|(_, client)| client.is_subscribed())
            .map(|(fd, _)| *fd)
            .collect();
        let watched = self.clients.values().any(|client| client.watcher.is_some());
        let now = watched.then(|| self.service.status());
        for fd in told {
            self.with_client(fd, ops, |client| client.tell(now.as_ref()));
        }
    }

    /// The timer runs only as long as somebody waits for it.
    fn set_timer(&mut self) {
        let wanted = self.deaf || self.clients.values().any(Client::is_subscribed);
        if wanted == self.ticking {
            return;
        }
        let result = if wanted {
            self.timer.set(
                Expiration::Interval(TICK.into()),
                TimerSetTimeFlags::empty(),
            )
        } else {
            self.timer.unset()
        };
        match result {
            Ok(()) => self.ticking = wanted,
            Err(error) => warn!(%error, "cannot set the timer of the control socket"),
        }
    }
}

impl MutEventSubscriber for Control {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let timer = self.timer.as_fd().as_raw_fd();
        for fd in [self.listener.as_raw_fd(), timer] {
            if let Err(error) = ops.add(Events::new_raw(fd, EventSet::IN)) {
                warn!(%error, "the control socket is not served");
            }
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let fd = events.fd();
        if fd == self.listener.as_raw_fd() {
            self.accept(ops);
        } else if fd == self.timer.as_fd().as_raw_fd() {
            self.tick(ops);
        } else {
            self.client_event(events, ops);
        }
        self.set_timer();
    }
}

fn turn_away(mut stream: &UnixStream) {
    let failure = Failure::new(
        Code::Busy,
        format!("{MAX_CLIENTS} clients are connected: end one of them"),
    );
    let answer = Answer::new(None, Err(failure));
    if let Ok(mut line) = serde_json::to_string(&answer) {
        line.push('\n');
        // A new connection has room for it; if not, there is nobody to care.
        let _ = stream.write_all(line.as_bytes());
    }
}
