//! The conversation with a running machine: events from everywhere in one queue, and a command's streams.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use fifo_lab_agent::Report;
use fifo_lab_agent::Request;
use rustix::event::PollFd;
use rustix::event::PollFlags;

use crate::cancel;
use crate::child::Running;

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// The agent says something.
    Report(Report),
    /// A process of the machine has ended.
    Ended(String),
    /// The lab was asked to end.
    Cancelled,
    /// A stream has passed on more bytes.
    Drained,
    /// Nobody reads the command's output any more.
    OutputClosed,
}

/// The queue of events.
#[derive(Debug)]
pub struct Events {
    sender: Sender<Event>,
    receiver: Receiver<Event>,
}

impl Events {
    /// Watches the machine's processes and the lab's signals.
    pub fn new(qemu: &Running, devices: &[Running]) -> Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let events = Self { sender, receiver };
        for process in std::iter::once(qemu).chain(devices) {
            let fd = process
                .fd()
                .try_clone_to_owned()
                .context("cannot watch a process")?;
            events.when_readable(fd, Event::Ended(process.name().to_owned()));
        }
        if let Some(fd) = cancel::fd() {
            events.when_readable(
                fd.try_clone_to_owned().context("cannot watch signals")?,
                Event::Cancelled,
            );
        }
        Ok(events)
    }

    fn when_readable(&self, fd: OwnedFd, event: Event) {
        let sender = self.sender.clone();
        thread::spawn(move || {
            let mut fds = [PollFd::new(&fd, PollFlags::IN)];
            while rustix::event::poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
            let _ = sender.send(event);
        });
    }

    /// Where others put events.
    pub fn sender(&self) -> Sender<Event> {
        self.sender.clone()
    }

    /// The next event; `None` when there is none for this long.
    pub fn next(&mut self, limit: Duration) -> Result<Option<Event>> {
        match self.receiver.recv_timeout(limit) {
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("nothing is left to wait for"),
        }
    }
}

/// The way to the agent.
#[derive(Debug, Clone)]
pub struct Control {
    port: Arc<Mutex<UnixStream>>,
}

impl Control {
    /// Reads the agent's reports into the queue.
    pub fn new(port: UnixStream, events: &Events) -> Result<Self> {
        let reader = port.try_clone().context("cannot read the control port")?;
        let sender = events.sender();
        thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                if let Ok(report) = serde_json::from_str(&line) {
                    let _ = sender.send(Event::Report(report));
                }
            }
        });
        Ok(Self {
            port: Arc::new(Mutex::new(port)),
        })
    }

    /// Asks the agent.
    pub fn send(&self, request: &Request) -> Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        port.write_all(&line).context("the guest's agent has gone")
    }
}

/// A stream from the guest: passes bytes on and counts them.
#[derive(Debug, Clone)]
pub struct Outlet {
    passed: Arc<Mutex<u64>>,
}

impl Outlet {
    /// Starts passing on; `sink` gets each piece.
    pub fn new(
        mut port: UnixStream,
        events: &Events,
        mut sink: impl FnMut(&[u8]) -> std::io::Result<()> + Send + 'static,
    ) -> Self {
        let outlet = Self {
            passed: Arc::new(Mutex::new(0)),
        };
        let (passed, sender) = (outlet.passed.clone(), events.sender());
        thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = port.read(&mut buffer) {
                if sink(buffer.get(..count).unwrap_or_default()).is_err() {
                    let _ = sender.send(Event::OutputClosed);
                    return;
                }
                *passed.lock().unwrap_or_else(PoisonError::into_inner) += count as u64;
                let _ = sender.send(Event::Drained);
            }
        });
        outlet
    }

    /// How much has been passed on, ever.
    pub fn passed(&self) -> u64 {
        *self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Feeds the guest's command from here until the end of file, which it passes on. `stop` looks at what was read and may end it.
pub fn feed(mut port: UnixStream, mut stop: impl FnMut(&[u8]) -> bool + Send + 'static) {
    thread::spawn(move || {
        let stdin = rustix::stdio::stdin();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match rustix::io::read(stdin.as_fd(), &mut *buffer) {
                Err(rustix::io::Errno::INTR) => {}
                Err(_) | Ok(0) => break,
                Ok(count) => {
                    let bytes = buffer.get(..count).unwrap_or_default();
                    if stop(bytes) || port.write_all(bytes).is_err() {
                        break;
                    }
                }
            }
        }
        // Half of it: QEMU drops what it has not read yet when both directions go.
        let _ = port.shutdown(Shutdown::Write);
        // The socket itself stays open until the machine has gone.
        std::mem::forget(port);
    });
}
