// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Lines to and from a client that may be slow, greedy or broken.
//!
//! Neither buffer grows beyond its limit, whatever the client does. This file must not know what a
//! line says, or what it travels on beyond `Read` and `Write` that do not block.

use std::collections::VecDeque;
use std::io;
use std::io::Read;
use std::io::Write;

use super::protocol::MAX_LINE;

/// A client with this much to read yet is told nothing new and asked nothing new.
const ENOUGH: usize = 64 << 10;

/// A line that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// All of it, without its newline.
    Whole(Vec<u8>),
    /// It is longer than [`MAX_LINE`]; none of it is kept.
    TooLong,
}

/// Bytes from a client, on their way to lines.
#[derive(Debug, Default)]
pub struct Incoming {
    bytes: Vec<u8>,
    /// Bytes of `bytes` that were given away as lines.
    taken: usize,
    /// Bytes of `bytes` that hold no newline, counted from `taken`.
    searched: usize,
    /// The rest of a line that is too long is skipped.
    skipping: bool,
}

impl Incoming {
    /// Reads once; returns how many bytes came, 0 at the end.
    ///
    /// # Errors
    ///
    /// Whatever `source` fails with, `WouldBlock` included.
    pub fn fill(&mut self, source: &mut impl Read) -> io::Result<usize> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        let old = self.bytes.len();
        // Room for a longest line and its newline; `next_line` leaves no more than that unread.
        self.bytes.resize(MAX_LINE + 1, 0);
        let result = match self.bytes.get_mut(old..) {
            Some(room) => source.read(room),
            None => Ok(0),
        };
        let new = result.as_ref().map_or(0, |count| *count);
        self.bytes.truncate(old + new);
        result
    }

    /// The next line that is there.
    pub fn next_line(&mut self) -> Option<Line> {
        loop {
            let rest = self.bytes.get(self.taken..)?;
            let newline = rest
                .get(self.searched..)?
                .iter()
                .position(|byte| *byte == b'\n')
                .map(|at| at + self.searched);
            let Some(end) = newline else {
                return self.unfinished();
            };
            let line = rest.get(..end)?.to_vec();
            self.taken += end + 1;
            self.searched = 0;
            if !std::mem::take(&mut self.skipping) {
                return Some(Line::Whole(line));
            }
        }
    }

    /// What came after the last newline, at the end.
    pub fn last(&mut self) -> Option<Line> {
        let line = self.bytes.split_off(self.taken);
        *self = Self::default();
        (!line.is_empty()).then_some(Line::Whole(line))
    }

    fn unfinished(&mut self) -> Option<Line> {
        self.searched = self.bytes.len() - self.taken;
        if self.searched <= MAX_LINE && !self.skipping {
            return None;
        }
        self.taken = self.bytes.len();
        self.searched = 0;
        let known = std::mem::replace(&mut self.skipping, true);
        (!known).then_some(Line::TooLong)
    }
}

/// Bytes that a client has not read yet.
#[derive(Debug, Default)]
pub struct Outgoing(VecDeque<u8>);

impl Outgoing {
    /// Adds a line.
    pub fn add(&mut self, line: &str) {
        self.0.extend(line.as_bytes());
        self.0.push_back(b'\n');
    }

    /// Whether it is time to wait for the client.
    pub fn is_enough(&self) -> bool {
        self.0.len() >= ENOUGH
    }

    /// Whether the client has read everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes what `sink` takes.
    ///
    /// # Errors
    ///
    /// What `sink` fails with, except `WouldBlock`.
    pub fn flush(&mut self, sink: &mut impl Write) -> io::Result<()> {
        while !self.0.is_empty() {
            let (first, _) = self.0.as_slices();
            match sink.write(first) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.0.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(line: &str) -> Option<Line> {
        Some(Line::Whole(line.into()))
    }

    fn feed(incoming: &mut Incoming, mut bytes: &[u8]) {
        incoming.fill(&mut bytes).unwrap();
        assert!(bytes.is_empty());
    }

    #[test]
    fn lines_come_apart_and_together() {
        let mut incoming = Incoming::default();
        feed(&mut incoming, b"a\nbc\n\nd");
        assert_eq!(incoming.next_line(), whole("a"));
        assert_eq!(incoming.next_line(), whole("bc"));
        assert_eq!(incoming.next_line(), whole(""));
        assert_eq!(incoming.next_line(), None);
        feed(&mut incoming, b"e\nf");
        assert_eq!(incoming.next_line(), whole("de"));
        assert_eq!(incoming.next_line(), None);
        assert_eq!(incoming.last(), whole("f"));
        assert_eq!(incoming.last(), None);
    }

    /// The longest line passes; one byte more is too much, is said once, and does no harm to the
    /// line after it.
    #[test]
    fn a_line_has_a_limit() {
        let mut incoming = Incoming::default();
        let mut source = vec![b'x'; MAX_LINE];
        source.push(b'\n');
        feed(&mut incoming, &source);
        assert!(matches!(incoming.next_line(), Some(Line::Whole(line)) if line.len() == MAX_LINE));
        let mut source = vec![b'x'; 3 * MAX_LINE];
        source.extend(b"\nnext\n");
        let mut source = source.as_slice();
        let mut lines = Vec::new();
        while incoming.fill(&mut source).unwrap() > 0 {
            lines.extend(std::iter::from_fn(|| incoming.next_line()));
            assert!(incoming.bytes.capacity() <= 2 * MAX_LINE);
        }
        assert_eq!(lines, [Line::TooLong, Line::Whole(b"next".to_vec())]);
    }

    #[test]
    fn nothing_is_kept_of_a_line_that_is_skipped() {
        let mut incoming = Incoming::default();
        let mut source = io::repeat(b'x');
        incoming.fill(&mut source).unwrap();
        assert_eq!(incoming.next_line(), Some(Line::TooLong));
        for _ in 0..10 {
            incoming.fill(&mut source).unwrap();
            assert_eq!(incoming.next_line(), None);
        }
        assert_eq!(incoming.last(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// However the bytes are cut, the lines are the same.
        #[test]
        fn cuts_do_not_matter(text in "[ab\n]{0,40}", cuts in prop::collection::vec(1_usize..5, 40)) {
            let mut incoming = Incoming::default();
            let mut rest = text.as_bytes();
            let mut lines = Vec::new();
            for cut in cuts {
                let (mut now, later) = rest.split_at(cut.min(rest.len()));
                rest = later;
                incoming.fill(&mut now).unwrap();
                lines.extend(std::iter::from_fn(|| incoming.next_line()));
            }
            lines.extend(incoming.last());
            let expected: Vec<_> = text
                .split_inclusive('\n')
                .map(|line| Line::Whole(line.trim_end_matches('\n').into()))
                .collect();
            prop_assert_eq!(lines, expected);
        }
    }

    /// Takes three bytes, then none for a while.
    #[test]
    fn what_a_client_does_not_read_waits() {
        struct Slow(Vec<u8>, usize);
        impl Write for Slow {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let count = bytes.len().min(std::mem::take(&mut self.1));
                self.0.extend(&bytes[..count]);
                if count == 0 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(count)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut outgoing = Outgoing::default();
        outgoing.add("hello");
        let mut slow = Slow(Vec::new(), 3);
        outgoing.flush(&mut slow).unwrap();
        assert!(!outgoing.is_empty() && !outgoing.is_enough());
        slow.1 = 10;
        outgoing.flush(&mut slow).unwrap();
        assert!(outgoing.is_empty());
        assert_eq!(slow.0, b"hello\n");
    }
}
