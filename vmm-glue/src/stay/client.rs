// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One command in a machine that stays, as if it ran here: its streams, its terminal, its signals, its status.
//!
//! It must not know how the machine was found.

use std::io;
use std::io::BufReader;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::mpsc::Sender;
use std::thread;
use std::thread::JoinHandle;

use anyhow::Context;
use anyhow::Result;
use fifo_lab_agent::Command;
use fifo_lab_agent::Stdin;
use fifo_lab_agent::frame::CHUNK;
use fifo_lab_agent::frame::Credit;
use fifo_lab_agent::frame::Frame;
use fifo_lab_agent::frame::Note;
use fifo_lab_agent::frame::Payload;
use fifo_lab_agent::frame::Stream;
use fifo_lab_agent::frame::WINDOW;
use rustix::event::PollFd;
use rustix::event::PollFlags;

use crate::cancel;
use crate::exit;
use crate::exit::Exit;
use crate::streams::Output;
use crate::tty;
use crate::vm::input;

/// The way to the machine's keeper.
#[derive(Clone)]
struct Link {
    stream: Arc<Mutex<UnixStream>>,
    /// The same, for who cannot wait until another has written.
    end: Arc<UnixStream>,
}

/// Runs the command; its status. `None` if the machine has gone meanwhile.
pub fn run(stream: UnixStream, command: &Command) -> Result<Option<u8>> {
    let clone = || {
        stream
            .try_clone()
            .context("cannot read the machine's socket")
    };
    let mut reader = BufReader::new(clone()?);
    let link = Link {
        end: Arc::new(clone()?),
        stream: Arc::new(Mutex::new(stream)),
    };
    link.say(Note::Start(command.clone()))
        .context("cannot send the command to the machine")?;
    let terminal = matches!(command.stdin, Stdin::Terminal(_));
    let raw = terminal.then(tty::Raw::enter).transpose()?;
    let left = Arc::new(AtomicBool::new(false));
    let credit = Arc::new(Credit::default());
    let stdout = Sink::start(Output::Stdout, Stream::Stdout, &link);
    let stderr = Sink::start(Output::Stderr, Stream::Stderr, &link);
    let status = loop {
        let Ok(Some(frame)) = Frame::read(&mut reader) else {
            break None;
        };
        match frame.payload {
            Payload::Data(Stream::Stdout, bytes) => stdout.take(bytes)?,
            Payload::Data(Stream::Stderr, bytes) => stderr.take(bytes)?,
            Payload::Note(Note::Credit(Stream::Stdin, bytes)) => credit.give(bytes),
            Payload::Note(Note::Exited(status)) => break Some(status),
            Payload::Note(Note::Started) => {
                if command.stdin != Stdin::Null {
                    feed(&link, &credit, terminal, &left);
                }
                if terminal {
                    let link = link.clone();
                    tty::follow_size(move |size| link.say(Note::Resize(size)).is_ok());
                }
                pass_signals(&link);
            }
            _ => anyhow::bail!("the machine says what only the lab may say"),
        }
    };
    let outputs = [stdout.end(), stderr.end()];
    drop(raw);
    if let Some(failed) = outputs.into_iter().flatten().next() {
        return Err(failed.into());
    }
    if status.is_none() && left.load(Ordering::SeqCst) {
        return Ok(Some(exit::INTERRUPTED));
    }
    Ok(status)
}

/// Sends standard input, as far as the command takes it. The keys that leave a command which no longer listens end the link.
fn feed(link: &Link, credit: &Arc<Credit>, terminal: bool, left: &Arc<AtomicBool>) {
    let (to, end, credit) = (link.clone(), link.clone(), credit.clone());
    let (cut, left) = (link.clone(), left.clone());
    let mut escape = input::escape(terminal, move || {
        left.store(true, Ordering::SeqCst);
        cut.hang_up();
    });
    let take = move |mut bytes: &[u8]| {
        if escape(bytes) {
            return false;
        }
        while !bytes.is_empty() {
            let Some(count) = credit.take(bytes.len().min(CHUNK)) else {
                return false;
            };
            let (now, later) = bytes.split_at(count);
            let data = Payload::Data(Stream::Stdin, now.to_vec());
            if to.send(data).is_err() {
                return false;
            }
            bytes = later;
        }
        true
    };
    input::feed(terminal, take, move || drop(end.say(Note::EndOfInput)));
}

/// The first signal that would end the lab is the command's; a second one ends the lab.
fn pass_signals(link: &Link) {
    let Some(cancelled) = cancel::fd() else {
        return;
    };
    let link = link.clone();
    thread::spawn(move || {
        let mut fds = [PollFd::from_borrowed_fd(cancelled, PollFlags::IN)];
        while rustix::event::poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
        if let Some(signal) = cancel::signal() {
            let _ = link.say(Note::Signal(signal));
        }
    });
}

impl Link {
    fn say(&self, note: Note) -> io::Result<()> {
        self.send(Payload::Note(note))
    }

    fn send(&self, payload: Payload) -> io::Result<()> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        Frame {
            channel: 0,
            payload,
        }
        .write(&mut *stream)
    }

    fn hang_up(&self) {
        let _ = self.end.shutdown(Shutdown::Both);
    }
}

/// An output of the command, written by a thread of its own: one that is read slowly holds the other up no more than two pipes would.
struct Sink {
    queue: Sender<Vec<u8>>,
    queued: Arc<AtomicUsize>,
    thread: JoinHandle<Option<Exit>>,
}

impl Sink {
    fn start(output: Output, stream: Stream, link: &Link) -> Self {
        let (queue, pieces) = mpsc::channel::<Vec<u8>>();
        let queued = Arc::new(AtomicUsize::new(0));
        let (left, link) = (queued.clone(), link.clone());
        let thread = thread::spawn(move || {
            for bytes in pieces {
                if let Err(err) = output.write(&bytes) {
                    // The command has lost its reader; nothing more is expected of it.
                    link.hang_up();
                    return Some(output.failure(&err));
                }
                left.fetch_sub(bytes.len(), Ordering::SeqCst);
                let count = u32::try_from(bytes.len()).unwrap_or_default();
                let _ = link.say(Note::Credit(stream, count));
            }
            None
        });
        Self {
            queue,
            queued,
            thread,
        }
    }

    fn take(&self, bytes: Vec<u8>) -> Result<()> {
        let queued = self.queued.fetch_add(bytes.len(), Ordering::SeqCst) + bytes.len();
        anyhow::ensure!(
            queued <= WINDOW,
            "the machine sends more than was asked for"
        );
        // A thread that has ended says why in the end.
        let _ = self.queue.send(bytes);
        Ok(())
    }

    /// Waits until everything has been written; what went wrong.
    fn end(self) -> Option<Exit> {
        drop(self.queue);
        self.thread.join().ok().flatten()
    }
}
