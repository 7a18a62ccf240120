// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Any number of commands at once, over the frames of one port. It must not know how a command is run.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::thread;

use fifo_lab_agent::Command;
use fifo_lab_agent::Report;
use fifo_lab_agent::frame::CHUNK;
use fifo_lab_agent::frame::Credit;
use fifo_lab_agent::frame::Frame;
use fifo_lab_agent::frame::Note;
use fifo_lab_agent::frame::Payload;
use fifo_lab_agent::frame::Stream;

use crate::reaper::Reaper;
use crate::run;
use crate::run::Shared;
use crate::wires::Output;
use crate::wires::Wires;

type Port = Arc<Mutex<File>>;
type Channels = Arc<Mutex<HashMap<u32, Arc<Channel>>>>;

/// One command.
struct Channel {
    number: u32,
    port: Port,
    current: Shared,
    /// Input that the host has sent; without a sender it ends.
    feed: Mutex<Option<Sender<Vec<u8>>>>,
    input: Mutex<Input>,
    stdout: Credit,
    stderr: Credit,
}

/// What the thread that feeds the command has in hand.
struct Input {
    fed: Receiver<Vec<u8>>,
    /// Bytes that the command has been given since the host was last told.
    taken: u32,
}

/// Serves the port until the host closes it, then ends all commands.
pub fn serve(port: File, reaper: &Arc<Reaper>) -> io::Result<()> {
    let mut reader = port.try_clone()?;
    let port = Arc::new(Mutex::new(port));
    let channels = Channels::default();
    let result = loop {
        match Frame::read(&mut reader) {
            Ok(Some(frame)) => take(frame, &port, &channels, reaper),
            Ok(None) => break Ok(()),
            Err(err) => break Err(err),
        }
    };
    lock(&channels)
        .values()
        .for_each(|channel| channel.give_up());
    result
}

fn take(frame: Frame, port: &Port, channels: &Channels, reaper: &Arc<Reaper>) {
    let number = frame.channel;
    if let Payload::Note(Note::Start(command)) = frame.payload {
        let channel = Arc::new(Channel::new(number, port.clone()));
        lock(channels).insert(number, channel.clone());
        let (channels, reaper) = (channels.clone(), reaper.clone());
        thread::spawn(move || {
            channel.run(&command, &reaper);
            lock(&channels).remove(&number);
        });
        return;
    }
    // What comes late is about a command that has ended.
    let Some(channel) = lock(channels).get(&number).cloned() else {
        return;
    };
    match frame.payload {
        Payload::Data(Stream::Stdin, bytes) => {
            if let Some(feed) = &*lock(&channel.feed) {
                let _ = feed.send(bytes);
            }
        }
        Payload::Note(Note::EndOfInput) => *lock(&channel.feed) = None,
        Payload::Note(Note::Credit(Stream::Stdout, bytes)) => channel.stdout.give(bytes),
        Payload::Note(Note::Credit(Stream::Stderr, bytes)) => channel.stderr.give(bytes),
        Payload::Note(Note::Resize(size)) => run::resize(&channel.current, size),
        Payload::Note(Note::Signal(number)) => run::signal(&channel.current, number),
        Payload::Note(Note::Gone) => channel.give_up(),
        other => eprintln!("lab agent: bad frame {other:?}"),
    }
}

impl Channel {
    fn new(number: u32, port: Port) -> Self {
        let (feed, fed) = mpsc::channel();
        Self {
            number,
            port,
            current: Shared::default(),
            feed: Mutex::new(Some(feed)),
            input: Mutex::new(Input { fed, taken: 0 }),
            stdout: Credit::default(),
            stderr: Credit::default(),
        }
    }

    fn run(self: &Arc<Self>, command: &Command, reaper: &Reaper) {
        let report = run::run(command, reaper, self, &self.current, || {
            let _ = self.say(Note::Started);
        });
        // Ends the thread that feeds it.
        *lock(&self.feed) = None;
        if let Report::Exited { status, .. } = report {
            let _ = self.say(Note::Exited(status));
        }
    }

    /// Nobody waits for this command any more.
    fn give_up(&self) {
        run::kill(&self.current);
        *lock(&self.feed) = None;
        self.stdout.close();
        self.stderr.close();
    }

    fn say(&self, note: Note) -> io::Result<()> {
        self.send(Payload::Note(note))
    }

    fn send(&self, payload: Payload) -> io::Result<()> {
        let channel = self.number;
        Frame { channel, payload }.write(&mut *lock(&self.port))
    }
}

impl Wires for Channel {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut input = lock(&self.input);
        if input.taken > 0 {
            self.say(Note::Credit(Stream::Stdin, input.taken))?;
            input.taken = 0;
        }
        // A frame has no more than fits: both are a chunk.
        let Ok(bytes) = input.fed.recv() else {
            return Ok(0);
        };
        debug_assert!(bytes.len() <= buffer.len() && buffer.len() == CHUNK);
        let count = bytes.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), bytes.get(..count)) {
            to.copy_from_slice(from);
        }
        input.taken = u32::try_from(count).unwrap_or_default();
        Ok(count)
    }

    fn write(&self, to: Output, mut bytes: &[u8]) -> io::Result<()> {
        let (credit, stream) = match to {
            Output::Stdout => (&self.stdout, Stream::Stdout),
            Output::Stderr => (&self.stderr, Stream::Stderr),
        };
        while !bytes.is_empty() {
            let count = credit
                .take(bytes.len().min(CHUNK))
                .ok_or(io::ErrorKind::BrokenPipe)?;
            let (now, later) = bytes.split_at(count);
            self.send(Payload::Data(stream, now.to_vec()))?;
            bytes = later;
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
