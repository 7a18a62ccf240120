// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The conversation with a running machine: events from everywhere in one queue, the agent's messages, and a command's output.

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use fifo_lab_agent::MESSAGE_MAX;
use fifo_lab_agent::Report;
use fifo_lab_agent::Request;
use rustix::event::EventfdFlags;
use rustix::event::PollFd;
use rustix::event::PollFlags;

use crate::cancel;
use crate::child::Running;
use crate::exit::Exit;

/// How often a waiting reader of the output is looked at.
const LOOK: Duration = Duration::from_millis(500);

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
    /// The command's output cannot be written: what the lab is to end with.
    OutputFailed(Exit),
}

/// The queue of events.
#[derive(Debug)]
pub struct Events {
    sender: Sender<Event>,
    receiver: Receiver<Event>,
    /// Ends the thread that watches.
    gone: OwnedFd,
}

impl Events {
    /// Watches the machine's processes and the lab's signals.
    pub fn new(qemu: &Running, devices: &[Running]) -> Result<Self> {
        let mut watched = Vec::new();
        for process in std::iter::once(qemu).chain(devices) {
            let fd = process
                .fd()
                .try_clone_to_owned()
                .context("cannot watch a process")?;
            watched.push((fd, Some(process.name().to_owned())));
        }
        if let Some(fd) = cancel::fd() {
            let fd = fd.try_clone_to_owned().context("cannot watch signals")?;
            watched.push((fd, None));
        }
        let gone =
            rustix::event::eventfd(0, EventfdFlags::CLOEXEC).context("cannot create an eventfd")?;
        let end = gone.try_clone().context("cannot watch a process")?;
        let (sender, receiver) = mpsc::channel();
        let events = Self {
            sender: sender.clone(),
            receiver,
            gone,
        };
        thread::spawn(move || watch(watched, &end, &sender));
        Ok(events)
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

impl Drop for Events {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.gone, &1_u64.to_ne_bytes());
    }
}

/// Reports each descriptor once, when it becomes readable; ends when `end` does.
fn watch(mut watched: Vec<(OwnedFd, Option<String>)>, end: &OwnedFd, sender: &Sender<Event>) {
    while !watched.is_empty() {
        let mut fds: Vec<_> = watched
            .iter()
            .map(|(fd, _)| PollFd::new(fd, PollFlags::IN))
            .chain([PollFd::new(end, PollFlags::IN)])
            .collect();
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready.last() == Some(&true) {
            return;
        }
        let mut ready = ready.into_iter();
        watched.retain(|(_, name)| {
            let due = ready.next().unwrap_or_default();
            if due {
                let event = name.clone().map_or(Event::Cancelled, Event::Ended);
                let _ = sender.send(event);
            }
            !due
        });
    }
}

/// The way to the agent.
#[derive(Debug, Clone)]
pub struct Control {
    port: Arc<Mutex<UnixStream>>,
}

impl Control {
    /// Reads the agent's reports into the queue. What is no report, or too long for one, is the guest's own affair and ignored.
    pub fn new(port: UnixStream, events: &Events) -> Result<Self> {
        let reader = port.try_clone().context("cannot read the control port")?;
        let sender = events.sender();
        thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            while let Ok(Some(line)) = bounded_line(&mut reader, MESSAGE_MAX) {
                if let Ok(report) = serde_json::from_slice(&line) {
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

/// The next line without its end, `None` at the end of the stream; of a line longer than `limit`, the rest is dropped and so is the line.
pub fn bounded_line(from: &mut impl BufRead, limit: usize) -> io::Result<Option<Vec<u8>>> {
    loop {
        let mut line = Vec::new();
        let count = from
            .by_ref()
            .take(limit as u64)
            .read_until(b'\n', &mut line)?;
        if count == 0 {
            return Ok(None);
        }
        if line.pop_if(|last| *last == b'\n').is_some() || count < limit {
            return Ok(Some(line));
        }
        from.skip_until(b'\n')?;
    }
}

/// What an outlet has done so far.
#[derive(Debug, Default)]
struct Passed {
    bytes: AtomicU64,
    /// It has bytes that its sink has not taken yet.
    is_writing: AtomicBool,
}

/// A stream from the guest: passes bytes on and counts them.
#[derive(Debug, Clone)]
pub struct Outlet {
    passed: Arc<Passed>,
}

impl Outlet {
    /// Starts passing on; `sink` gets each piece, and says what a failure means.
    pub fn new(
        mut port: UnixStream,
        events: &Events,
        mut sink: impl FnMut(&[u8]) -> Result<(), Exit> + Send + 'static,
    ) -> Self {
        let outlet = Self {
            passed: Arc::new(Passed::default()),
        };
        let (passed, sender) = (outlet.passed.clone(), events.sender());
        thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = port.read(&mut buffer) {
                passed.is_writing.store(true, Ordering::SeqCst);
                if let Err(exit) = sink(buffer.get(..count).unwrap_or_default()) {
                    let _ = sender.send(Event::OutputFailed(exit));
                    return;
                }
                passed.bytes.fetch_add(count as u64, Ordering::SeqCst);
                passed.is_writing.store(false, Ordering::SeqCst);
                let _ = sender.send(Event::Drained);
            }
        });
        outlet
    }

    /// How much has been passed on, ever.
    pub fn passed(&self) -> u64 {
        self.passed.bytes.load(Ordering::SeqCst)
    }

    /// True while it is the sink that others wait for, not the guest.
    pub fn waits_for_its_sink(&self) -> bool {
        self.passed.is_writing.load(Ordering::SeqCst)
    }
}

/// Waits until each outlet has passed on as many bytes as its command wrote. `limit` is for a guest that sends nothing; a reader of the output
/// may take as long as it likes. False when the guest has made no progress for that long; `look` sees all other events.
pub fn drain(
    outlets: &[(&Outlet, u64)],
    limit: Duration,
    mut next: impl FnMut(Duration) -> Result<()>,
) -> Result<bool> {
    let mut last = (0, Instant::now());
    loop {
        let passed: u64 = outlets.iter().map(|(outlet, _)| outlet.passed()).sum();
        if outlets
            .iter()
            .all(|(outlet, wanted)| outlet.passed() >= *wanted)
        {
            return Ok(true);
        }
        let waits = outlets
            .iter()
            .any(|(outlet, _)| outlet.waits_for_its_sink());
        if passed != last.0 || waits {
            last = (passed, Instant::now());
        }
        let left = limit.saturating_sub(last.1.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        next(left.min(LOOK))?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn events() -> Events {
        let (sender, receiver) = mpsc::channel();
        let gone = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        Events {
            sender,
            receiver,
            gone,
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_dropped_and_the_next_one_read() {
        let text = [b"one\n".to_vec(), vec![b'x'; 5000], b"\ntwo\nlast".to_vec()].concat();
        let mut reader = BufReader::with_capacity(16, Cursor::new(text));
        let mut lines = Vec::new();
        while let Some(line) = bounded_line(&mut reader, 100).unwrap() {
            lines.push(String::from_utf8(line).unwrap());
        }
        assert_eq!(lines, ["one", "two", "last"]);
    }

    #[test]
    fn a_slow_reader_is_waited_for_and_a_silent_guest_is_not() {
        let mut events = events();
        let (mut guest, port) = UnixStream::pair().unwrap();
        let (sink, taken) = mpsc::channel::<()>();
        let outlet = Outlet::new(port, &events, move |_| {
            taken.recv().unwrap();
            Ok(())
        });
        guest.write_all(b"12345").unwrap();
        // The reader takes its bytes after many times the guest's limit.
        let limit = Duration::from_millis(100);
        while !outlet.waits_for_its_sink() {
            thread::yield_now();
        }
        let mut looks = 0;
        let done = drain(&[(&outlet, 5)], limit, |left| {
            looks += u32::from(outlet.waits_for_its_sink());
            if looks == 3 {
                sink.send(()).unwrap();
            }
            events.next(left).map(drop)
        });
        assert!(done.unwrap());
        let silent = drain(&[(&outlet, 6)], limit, |left| events.next(left).map(drop));
        assert!(!silent.unwrap());
    }

    #[test]
    fn the_watching_thread_ends_with_its_machine() {
        let gone = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let end = gone.try_clone().unwrap();
        let (never, _writer) = io::pipe().unwrap();
        let (sender, receiver) = mpsc::channel();
        let thread = thread::spawn(move || watch(vec![(never.into(), None)], &end, &sender));
        rustix::io::write(&gone, &1_u64.to_ne_bytes()).unwrap();
        thread.join().unwrap();
        assert!(receiver.try_recv().is_err());
    }
}
