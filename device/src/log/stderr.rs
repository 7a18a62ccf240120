// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Standard error for lines that never wait and never fail.
//!
//! A reader that does not read must not stop the event loop or a thread that holds a FIFO's lock. A line for which there
//! is no room is dropped and counted. This file must not know what the lines say.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;
use std::sync::PoisonError;

use nix::fcntl::OFlag;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;

/// Bytes that one `write(2)` is given: PIPE_BUF. A pipe that polls as writable takes them at once.
const PIECE: usize = 4096;

/// See the module.
#[derive(Debug)]
pub struct Lines {
    file: File,
    lost: Mutex<Lost>,
}

/// What did not fit since the last line that did.
#[derive(Debug, Default)]
struct Lost {
    lines: u64,
    /// The last line that was written lacks its end.
    cut: bool,
}

impl Lines {
    /// Standard error.
    ///
    /// # Errors
    ///
    /// When the descriptor cannot be duplicated.
    pub fn stderr() -> io::Result<Self> {
        let copy = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        Ok(Self::new(reopen(&copy).unwrap_or(copy)))
    }

    fn new(file: File) -> Self {
        Self {
            file,
            lost: Mutex::default(),
        }
    }

    /// Writes one line, its end included, or counts it.
    pub fn put(&self, line: &[u8]) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if lost.lines > 0 {
            let start = if lost.cut { "\n" } else { "" };
            let note = format!(
                "{start}({} lines left out: standard error was full)\n",
                lost.lines
            );
            if self.write(note.as_bytes()) < note.len() {
                // The note itself may be cut now: it stands alone, and is repeated.
                lost.lines += 1;
                return;
            }
            *lost = Lost::default();
        }
        let written = self.write(line);
        if written < line.len() {
            *lost = Lost {
                lines: 1,
                cut: written > 0,
            };
        }
    }

    /// Writes what fits now; how many bytes that is.
    fn write(&self, line: &[u8]) -> usize {
        let mut written = 0;
        for piece in line.chunks(PIECE) {
            let len = if self.has_room() {
                (&self.file).write(piece).unwrap_or(0)
            } else {
                0
            };
            written += len;
            if len < piece.len() {
                break;
            }
        }
        written
    }

    fn has_room(&self) -> bool {
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        let polled = poll(&mut fds, PollTimeout::ZERO);
        let [fd] = fds;
        let events = fd.revents().unwrap_or(PollFlags::empty());
        polled.is_ok() && events.contains(PollFlags::POLLOUT)
    }
}

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A pipe or a terminal, opened a second time so that writes do not wait: the flag of the first belongs to all who have it
/// open. A terminal that polls as writable may have room for a part of a line only. `None` for what cannot be opened by its
/// name, as a socket: a poll says of that whether a piece fits.
fn reopen(file: &File) -> Option<File> {
    let kind = file.metadata().ok()?.file_type();
    if !kind.is_fifo() && !kind.is_char_device() {
        return None;
    }
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    OpenOptions::new()
        .write(true)
        .custom_flags(flags.bits())
        .open("/proc/self/fd/2")
        .ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use rstest::rstest;

    use super::*;

    /// A pipe whose writes wait, or do not.
    fn pipe(waits: bool) -> (File, Lines) {
        let flags = if waits {
            OFlag::empty()
        } else {
            OFlag::O_NONBLOCK
        };
        let (reader, writer) = nix::unistd::pipe2(flags).unwrap();
        let file = |fd: OwnedFd| File::from(fd);
        (file(reader), Lines::new(file(writer)))
    }

    fn read(reader: &mut File, len: usize) -> String {
        let mut bytes = vec![0; len];
        reader.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[rstest]
    fn lines_that_do_not_fit_are_counted_before_the_next_that_does(
        #[values(true, false)] waits: bool,
    ) {
        let (mut reader, lines) = pipe(waits);
        let line = [&[b'.'; 99][..], b"\n"].concat();
        for _ in 0..2000 {
            lines.put(&line);
        }
        let kept = usize::try_from(2000 - lines.lost.lock().unwrap().lines).unwrap();
        assert!((1..2000).contains(&kept), "{kept}");
        read(&mut reader, kept * 100);
        lines.put(b"next\n");
        let expected = format!(
            "({} lines left out: standard error was full)\nnext\n",
            2000 - kept
        );
        assert_eq!(read(&mut reader, expected.len()), expected);
    }

    /// A line of many pieces goes through a pipe that has room, and is cut in one that has not.
    #[rstest]
    fn a_line_that_is_cut_does_not_take_the_next_one_with_it(#[values(true, false)] waits: bool) {
        let (mut reader, lines) = pipe(waits);
        let long = [&[b'.'; 40_000][..], b"\n"].concat();
        lines.put(&long);
        assert_eq!(read(&mut reader, 40_001).as_bytes(), long);
        lines.put(&[b'.'; 100_000]);
        assert!(lines.lost.lock().unwrap().cut);
        read(&mut reader, 65_536);
        lines.put(b"next\n");
        let expected = "\n(1 lines left out: standard error was full)\nnext\n";
        assert_eq!(read(&mut reader, expected.len()), expected);
    }

    /// What systemd gives a service: a socket, whose writes wait.
    #[test]
    fn lines_that_a_socket_does_not_take_are_counted() {
        let (reader, writer) = UnixStream::pair().unwrap();
        let lines = Lines::new(File::from(OwnedFd::from(writer)));
        for _ in 0..20_000 {
            lines.put(&[&[b'.'; 99][..], b"\n"].concat());
        }
        assert!(lines.lost.lock().unwrap().lines > 0);
        drop(reader);
    }

    #[test]
    fn a_line_without_a_reader_is_no_failure() {
        let (reader, lines) = pipe(true);
        drop(reader);
        lines.put(b"line\n");
        assert_eq!(lines.lost.lock().unwrap().lines, 1);
    }
}
