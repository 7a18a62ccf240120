// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections, one after another, and an orderly end.
//!
//! The main thread runs an event loop over the listening socket and the end of the
//! connection; what is served besides queues joins it here. Each connection has a
//! [`VhostUserDaemon`] and a thread that waits for its end. This file must not know what a
//! virtqueue carries.

use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use event_manager::EventManager;
use event_manager::EventOps;
use event_manager::EventSet;
use event_manager::Events;
use event_manager::MutEventSubscriber;
use event_manager::SubscriberId;
use event_manager::SubscriberOps;
use tracing::debug;
use tracing::error;
use tracing::info;
use tracing::warn;
use vhost::vhost_user::Error as VhostUserError;
use vhost::vhost_user::Listener;
use vhost_user_backend::Error as DaemonError;
use vhost_user_backend::ShutdownHandle;
use vhost_user_backend::VhostUserDaemon;
use vmm_sys_util::event::EventConsumer;
use vmm_sys_util::event::EventFlag;
use vmm_sys_util::event::EventNotifier;
use vmm_sys_util::event::new_event_consumer_and_notifier;

use crate::backend::FifoBackend;
use crate::device::Device;
use crate::mailbox::Mailbox;
use crate::socket::Listening;
use crate::socket::SocketFile;
use crate::timer::FaultTimer;
use crate::virtqueue::GuestRam;
use crate::virtqueue::SharedRam;

/// Longest time without progress for which the end waits while bytes of the driver leave.
const STALL: Duration = Duration::from_secs(5);

/// What ends the daemon other than a signal.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The event loop cannot go on.
    #[error("event loop failed: {0}")]
    EventLoop(#[from] event_manager::Error),
    /// No file descriptors, no memory …
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The framework failed to start serving.
    #[error("cannot serve the connection: {0}")]
    Daemon(String),
}

impl ServerError {
    fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// How long to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Until a signal, or a [`StopHandle`].
    Stopped,
    /// Or until the first VMM that got as far as choosing features has gone.
    FirstVmmGone,
}

/// Ends a [`Server`] from another thread.
#[derive(Debug)]
pub struct StopHandle(EventNotifier);

impl StopHandle {
    /// Ends it, even while a VMM is connected. While bytes of the driver leave, a second call ends it at once.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn stop(&self) -> io::Result<()> {
        self.0.notify()
    }
}

/// Something that the event loop serves.
pub type Subscriber = Box<dyn MutEventSubscriber + Send>;

/// Serves one device to one VMM after another.
pub struct Server {
    events: EventManager<Subscriber>,
    connections: Arc<Mutex<Loop>>,
    _file: Option<SocketFile>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl Server {
    /// A server of `device` on `listening`; it serves once it is [`Server::run`].
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn new(
        device: Arc<Device>,
        queue_size: u16,
        listening: Listening,
        until: Until,
    ) -> Result<(Self, StopHandle), ServerError> {
        let (listener, file) = listening.into_parts();
        let flags = EventFlag::NONBLOCK | EventFlag::CLOEXEC;
        let (stopped, stop) = new_event_consumer_and_notifier(flags)
            .map_err(ServerError::system("create an eventfd"))?;
        let (ended, end) = new_event_consumer_and_notifier(flags)
            .map_err(ServerError::system("create an eventfd"))?;
        let (worker_ended, worker_end) = new_event_consumer_and_notifier(flags)
            .map_err(ServerError::system("create an eventfd"))?;
        let timer = FaultTimer::new(Arc::clone(&device));
        let connections = Arc::new(Mutex::new(Loop {
            listener_fd: listener.as_raw_fd(),
            listener: Listener::from(listener),
            stopped,
            ended,
            end: Arc::new(end),
            worker_ended,
            worker_end: Arc::new(worker_end),
            device,
            queue_size,
            until,
            connection: None,
            closed: false,
            outcome: None,
        }));
        let mut events = EventManager::<Subscriber>::new()?;
        events.add_subscriber(Box::new(Arc::clone(&connections)));
        events.add_subscriber(Box::new(timer));
        let server = Self {
            events,
            connections,
            _file: file,
        };
        Ok((server, StopHandle(stop)))
    }

    /// Has the event loop serve `subscriber` too. It runs on the thread of [`Server::run`] and must
    /// not block; the device is served even while it does not run.
    pub fn add(&mut self, subscriber: Subscriber) -> SubscriberId {
        self.events.add_subscriber(subscriber)
    }

    /// Serves until the end; then no thread and no socket is left. An orderly end leaves time for bytes of the driver to be
    /// taken.
    ///
    /// # Errors
    ///
    /// When it cannot go on.
    pub fn run(mut self) -> Result<(), ServerError> {
        let outcome = loop {
            self.events.run()?;
            let outcome = self.connections().outcome.take();
            if let Some(outcome) = outcome {
                break outcome;
            }
        };
        self.connections().close();
        let outcome = outcome.and_then(|()| self.let_bytes_leave());
        for (fifo, bytes) in self.connections().device.undelivered() {
            warn!(
                fifo,
                bytes, "bytes of the driver that were not taken are discarded"
            );
        }
        outcome
    }

    /// Goes on with the event loop while bytes of the driver leave, until the next reason to end.
    fn let_bytes_leave(&mut self) -> Result<(), ServerError> {
        let device = Arc::clone(&self.connections().device);
        let mut bytes = device.leaving();
        if bytes > 0 {
            info!(
                bytes,
                "bytes of the driver leave before the end; another signal ends at once"
            );
        }
        let mut since = Instant::now();
        while bytes > 0 {
            let left = STALL.saturating_sub(since.elapsed());
            if left.is_zero() {
                break;
            }
            // Rounded up: 0 would not wait.
            let wait = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
            self.events.run_with_timeout(wait)?;
            if let Some(outcome) = self.connections().outcome.take() {
                return outcome;
            }
            let now = device.leaving();
            if now < bytes {
                since = Instant::now();
            }
            bytes = now;
        }
        Ok(())
    }

    fn connections(&self) -> MutexGuard<'_, Loop> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that serves a connection, and how to end it.
struct Connection {
    shutdown: Option<ShutdownHandle>,
    thread: JoinHandle<Ended>,
    mailbox: Arc<Mailbox>,
}

impl Connection {
    fn close(&self) {
        if let Some(shutdown) = &self.shutdown {
            shutdown.shutdown();
        }
    }
}

/// How a connection ended.
struct Ended {
    negotiated: bool,
}

/// What the event loop's events are about.
struct Loop {
    listener: Listener,
    listener_fd: RawFd,
    stopped: EventConsumer,
    ended: EventConsumer,
    end: Arc<EventNotifier>,
    /// A queue worker has ended though its connection has not.
    worker_ended: EventConsumer,
    worker_end: Arc<EventNotifier>,
    device: Arc<Device>,
    queue_size: u16,
    until: Until,
    connection: Option<Connection>,
    /// No VMM is served any more.
    closed: bool,
    /// Set when the loop is to end.
    outcome: Option<Result<(), ServerError>>,
}

impl MutEventSubscriber for Loop {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        for fd in [
            self.listener_fd,
            self.stopped.as_raw_fd(),
            self.ended.as_raw_fd(),
            self.worker_ended.as_raw_fd(),
        ] {
            self.watch(fd, ops);
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let fd = events.fd();
        if fd == self.listener_fd {
            self.connect(ops);
        } else if fd == self.ended.as_raw_fd() {
            let _ = self.ended.consume();
            self.connection_ended(ops);
        } else if fd == self.worker_ended.as_raw_fd() {
            let _ = self.worker_ended.consume();
            self.end_without_worker();
        } else {
            let _ = self.stopped.consume();
            self.finish(Ok(()));
        }
    }
}

impl Loop {
    fn watch(&mut self, fd: RawFd, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new_raw(fd, EventSet::IN)) {
            self.finish(Err(error.into()));
        }
    }

    /// The first reason to end stands.
    fn finish(&mut self, outcome: Result<(), ServerError>) {
        self.outcome.get_or_insert(outcome);
    }

    /// Somebody waits to be accepted. The next one waits until this one has gone.
    fn connect(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.remove(Events::new_raw(self.listener_fd, EventSet::IN)) {
            self.finish(Err(error.into()));
            return;
        }
        if self.closed {
            return;
        }
        match self.serve() {
            Ok(connection) => self.connection = Some(connection),
            Err(error) => self.finish(Err(error)),
        }
    }

    fn serve(&mut self) -> Result<Connection, ServerError> {
        let ram = SharedRam::new(GuestRam::default());
        let backend = FifoBackend::new(Arc::clone(&self.device), self.queue_size, ram.clone())
            .map_err(ServerError::system("create an eventfd"))?
            .watched_by(Arc::clone(&self.worker_end));
        let backend = Arc::new(backend);
        let failed = |error: DaemonError| ServerError::Daemon(error.to_string());
        let mut daemon = VhostUserDaemon::new("vhost-user".to_owned(), Arc::clone(&backend), ram)
            .map_err(failed)?;
        let (fd, number) = backend.listener();
        for handler in daemon.get_epoll_handlers() {
            handler
                .register_listener(fd, EventSet::IN, number)
                .map_err(ServerError::system("listen to the worker's mailbox"))?;
        }
        let mailbox = backend.mailbox();
        // The worker's first event, before a VMM can send it one: from then on its end is noticed.
        mailbox.wake();
        daemon.start(&mut self.listener).map_err(failed)?;
        self.device.set_worker(Some(Arc::clone(&mailbox)));
        info!("a VMM has connected");
        let shutdown = daemon.shutdown_handle();
        let (device, end) = (Arc::clone(&self.device), Arc::clone(&self.end));
        let thread = thread::Builder::new()
            .name("connection".to_owned())
            .spawn(move || {
                let ended = wait(daemon, &backend);
                device.set_worker(None);
                // Whoever only knocked has reset nothing.
                if ended.negotiated {
                    device.reset();
                }
                if let Err(error) = end.notify() {
                    error!(%error, "cannot announce the end of the connection");
                }
                ended
            })
            .map_err(ServerError::system("start a thread"))?;
        Ok(Connection {
            shutdown,
            thread,
            mailbox,
        })
    }

    fn connection_ended(&mut self, ops: &mut EventOps<'_>) {
        let Some(ended) = self.join() else {
            return;
        };
        if ended.negotiated && self.until == Until::FirstVmmGone {
            self.finish(Ok(()));
        } else {
            self.watch(self.listener_fd, ops);
        }
    }

    /// Nobody serves the queues of the connection any more. Its end is the one thing that its VMM
    /// can hear.
    fn end_without_worker(&self) {
        // Not one that came after it.
        let dead = |connection: &&Connection| connection.mailbox.is_closed();
        if let Some(connection) = self.connection.as_ref().filter(dead) {
            error!("the queue worker has ended: the connection is closed");
            connection.close();
        }
    }

    /// Ends the connection, if there is one, for good.
    fn close(&mut self) {
        self.closed = true;
        if let Some(connection) = &self.connection {
            connection.close();
        }
        self.join();
    }

    fn join(&mut self) -> Option<Ended> {
        let ended = self.connection.take()?.thread.join();
        if ended.is_err() {
            error!("the connection's thread has panicked");
        }
        ended.ok()
    }
}

/// Waits for the VMM to go, then ends the worker.
fn wait(mut daemon: VhostUserDaemon<Arc<FifoBackend>>, backend: &FifoBackend) -> Ended {
    match daemon.wait() {
        Ok(())
        | Err(DaemonError::HandleRequest(
            VhostUserError::Disconnected | VhostUserError::PartialMessage,
        )) => info!("the VMM has disconnected"),
        Err(error) => warn!(%error, "the connection has failed"),
    }
    if let Err(error) = backend.stop_all() {
        error!(%error, "messages of the last VMM may be lost");
    }
    backend.expect_end();
    drop(daemon);
    if let Some(fd) = backend.leaked_fd() {
        // The framework takes this descriptor and never closes it; its worker is gone by now.
        if let Err(error) = nix::unistd::close(fd) {
            debug!(%error, fd, "cannot close the worker's exit event");
        }
    }
    Ended {
        negotiated: backend.negotiated(),
    }
}
