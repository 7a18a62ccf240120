// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Any number of commands over one stream of bytes: frames, and credit for each direction of each command.
//!
//! A frame is a header of nine bytes (channel and length as little-endian u32, between them the kind), then bytes of a stream or a [`Note`] as
//! JSON. A sender of data has [`WINDOW`] bytes of credit; the receiver gives back what it has passed on. So neither side ever waits while it
//! reads frames, and a command whose reader has stopped holds up no other. This file must not know who relays frames, nor what a command is.

use std::io;
use std::io::Read;
use std::io::Write;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use serde::Deserialize;
use serde::Serialize;

use crate::Command;
use crate::MESSAGE_MAX;
use crate::Size;

/// Bytes of a stream that may be under way: two round trips' worth on an emulated CPU.
pub const WINDOW: usize = 256 * 1024;
/// Most bytes of a stream in one frame.
pub const CHUNK: usize = 32 * 1024;
const HEADER: usize = 9;
const NOTE: u8 = 3;

/// A stream of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// To the command.
    Stdin,
    /// From the command; both streams of one that has a terminal.
    Stdout,
    /// From the command.
    Stderr,
}

/// What is said about a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// Host: start it, on a channel that is new.
    Start(Command),
    /// Guest: it runs.
    Started,
    /// Host: its input has ended.
    EndOfInput,
    /// Either: so many bytes of the stream have been passed on.
    Credit(Stream, u32),
    /// Host: its terminal has a new size.
    Resize(Size),
    /// Host: send this signal to its process group.
    Signal(i32),
    /// Host: nobody waits for it any more.
    Gone,
    /// Guest: it has ended, and all of its output has been sent. The status is as `sh` gives it.
    Exited(u8),
}

/// What a frame carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Bytes of a stream.
    Data(Stream, Vec<u8>),
    /// Anything else.
    Note(Note),
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Which command.
    pub channel: u32,
    /// What about it.
    pub payload: Payload,
}

impl Frame {
    /// Writes it in one piece.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let note;
        let (kind, body) = match &self.payload {
            Payload::Data(stream, bytes) => (kind(*stream), bytes.as_slice()),
            Payload::Note(message) => {
                note = serde_json::to_vec(message)?;
                (NOTE, note.as_slice())
            }
        };
        let length = u32::try_from(body.len())
            .ok()
            .filter(|_| body.len() <= limit(kind))
            .ok_or_else(|| invalid("a frame is too long"))?;
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend(self.channel.to_le_bytes());
        bytes.push(kind);
        bytes.extend(length.to_le_bytes());
        bytes.extend(body);
        to.write_all(&bytes)
    }

    /// Reads one; `None` at the end of the stream. A frame that is wrong is an error: where the next one begins is not known then.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER];
        let first = loop {
            match from.read(&mut header) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if first == 0 {
            return Ok(None);
        }
        from.read_exact(header.get_mut(first..).unwrap_or_default())?;
        let [a, b, c, d, kind, e, f, g, h] = header;
        let length = u32::from_le_bytes([e, f, g, h]) as usize;
        if length > limit(kind) {
            return Err(invalid("a frame is too long"));
        }
        let mut body = vec![0; length];
        from.read_exact(&mut body)?;
        Ok(Some(Self {
            channel: u32::from_le_bytes([a, b, c, d]),
            payload: match stream(kind) {
                Some(stream) => Payload::Data(stream, body),
                None => Payload::Note(serde_json::from_slice(&body)?),
            },
        }))
    }

    /// Bytes that it takes, about.
    pub fn cost(&self) -> usize {
        HEADER
            + match &self.payload {
                Payload::Data(_, bytes) => bytes.len(),
                Payload::Note(_) => HEADER,
            }
    }
}

fn kind(stream: Stream) -> u8 {
    match stream {
        Stream::Stdin => 0,
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    }
}

fn stream(kind: u8) -> Option<Stream> {
    [Stream::Stdin, Stream::Stdout, Stream::Stderr]
        .into_iter()
        .find(|stream| self::kind(*stream) == kind)
}

fn limit(kind: u8) -> usize {
    match kind {
        0..NOTE => CHUNK,
        NOTE => MESSAGE_MAX,
        // No such kind.
        _ => 0,
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// How much of a stream may still be sent. Closed, it gives nothing more.
#[derive(Debug)]
pub struct Credit {
    left: Mutex<Option<usize>>,
    changed: Condvar,
}

impl Default for Credit {
    fn default() -> Self {
        Self {
            left: Mutex::new(Some(WINDOW)),
            changed: Condvar::new(),
        }
    }
}

impl Credit {
    /// Takes up to so many bytes' worth, waiting until there is some; `None` once it is closed.
    pub fn take(&self, wanted: usize) -> Option<usize> {
        let left = self
            .changed
            .wait_while(self.lock(), |left| *left == Some(0))
            .unwrap_or_else(PoisonError::into_inner);
        let mut left = left;
        let got = left.as_ref()?.to_owned().min(wanted);
        *left = left.map(|left| left - got);
        Some(got)
    }

    /// Gives some back.
    pub fn give(&self, bytes: u32) {
        let mut left = self.lock();
        *left = left.map(|left| left.saturating_add(bytes as usize).min(WINDOW));
        self.changed.notify_all();
    }

    /// Whoever waits for it, or comes later, gets nothing.
    pub fn close(&self) {
        *self.lock() = None;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Option<usize>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn frames_come_back_equal_and_in_order() {
        let frames = [
            Payload::Note(Note::Start(Command::default())),
            Payload::Data(Stream::Stdin, vec![7; CHUNK]),
            Payload::Data(Stream::Stderr, Vec::new()),
            Payload::Note(Note::Credit(Stream::Stdout, 5)),
            Payload::Note(Note::Exited(130)),
        ];
        let frames: Vec<Frame> = (1..)
            .zip(frames)
            .map(|(channel, payload)| Frame { channel, payload })
            .collect();
        let mut bytes = Vec::new();
        for frame in &frames {
            frame.write(&mut bytes).unwrap();
        }
        let mut from = Cursor::new(bytes);
        for frame in &frames {
            assert_eq!(Frame::read(&mut from).unwrap().as_ref(), Some(frame));
        }
        assert_eq!(Frame::read(&mut from).unwrap(), None);
    }

    #[test]
    fn a_frame_that_is_too_long_unknown_or_cut_off_is_an_error() {
        let long = [
            &[0; 4][..],
            &[1],
            &u32::try_from(CHUNK + 1).unwrap().to_le_bytes(),
        ]
        .concat();
        let unknown = [&[0; 4][..], &[9], &1_u32.to_le_bytes(), b"x"].concat();
        let cut = [&[0; 4][..], &[1], &5_u32.to_le_bytes(), b"x"].concat();
        let nonsense = [&[0; 4][..], &[3], &1_u32.to_le_bytes(), b"x"].concat();
        for bad in [long, unknown, cut, nonsense, vec![0; 3]] {
            assert!(Frame::read(&mut Cursor::new(bad)).is_err());
        }
        let frame = Frame {
            channel: 0,
            payload: Payload::Data(Stream::Stdin, vec![0; CHUNK + 1]),
        };
        assert!(frame.write(&mut Vec::new()).is_err());
    }

    #[test]
    fn a_sender_without_credit_waits_until_some_is_given_or_it_is_closed() {
        let credit = Arc::new(Credit::default());
        assert_eq!(credit.take(WINDOW + 1), Some(WINDOW));
        let sender = {
            let credit = credit.clone();
            std::thread::spawn(move || (credit.take(10), credit.take(10)))
        };
        credit.give(4);
        credit.close();
        let (first, second) = sender.join().unwrap();
        assert!(first == Some(4) || first.is_none(), "{first:?}");
        assert_eq!(second, None);
        credit.give(4);
        assert_eq!(credit.take(1), None);
    }
}
