// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's side of FIFOs in a test: does with sockets and terminals what the test in the guest says.
//!
//! The orders come, and are answered, through a FIFO too, a line each:
//!
//! | order | what is done | answer |
//! |---|---|---|
//! | `connect NAME` | connects to a socket of a FIFO | `ok` |
//! | `listen NAME` | makes a socket, for a FIFO to connect to | `ok` |
//! | `accept` | waits for that connection, and closes the socket | `ok` |
//! | `open NAME` | opens a FIFO's terminal | `ok` |
//! | `send HEX` | writes these bytes | `ok` |
//! | `flood` | writes until there is no room | `ok COUNT` |
//! | `read N` | reads so many bytes | `ok HEX` |
//! | `contents NAME` | reads a file | `ok HEX` |
//! | `shutdown` | closes the sending direction | `ok` |
//! | `close` | closes what is open | `ok` |
//! | `answer` | nothing: the way to here and back is what it is for | `ok` |
//!
//! What fails is answered by `error WHY`.
//!
//! A guest is not trusted with the host: NAME is one plain name in the boot's own folder, and numbers of bytes have a limit.

use std::fmt::Write as _;
use std::fs;
use std::fs::File;
use std::io;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::scratch::Scratch;
use crate::vm::session::bounded_line;

/// Most bytes that one order can ask for.
const BYTES_MAX: usize = 4 << 20;
/// Longest order: `send` of that many bytes in hexadecimal.
const ORDER_MAX: usize = 2 * BYTES_MAX + 16;
/// Longer than anything that a test orders may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Where the bytes of a FIFO are, on the host.
#[derive(Debug)]
enum End {
    Socket(UnixStream),
    Terminal(File),
}

/// See the module.
#[derive(Debug)]
pub struct Peer {
    dir: Scratch,
    end: Option<End>,
    listener: Option<UnixListener>,
}

impl Peer {
    /// Takes orders at the socket `name` in `dir` until the machine is over.
    pub fn start(dir: Scratch, name: &str) -> Result<()> {
        let orders = UnixStream::connect(dir.path().join(name)).with_context(|| {
            format!("cannot connect to the FIFO that carries a test's orders, {name}")
        })?;
        let mut peer = Self {
            dir,
            end: None,
            listener: None,
        };
        std::thread::spawn(move || {
            // Its end is that of the machine.
            let _ = peer.serve(&orders);
        });
        Ok(())
    }

    fn serve(&mut self, orders: &UnixStream) -> io::Result<()> {
        let mut lines = BufReader::new(orders);
        while let Some(line) = bounded_line(&mut lines, ORDER_MAX)? {
            let answer = match self.obey(&String::from_utf8_lossy(&line)) {
                Ok(answer) => format!("ok {answer}\n"),
                Err(err) => format!("error {err:#}\n").replace('\n', " ") + "\n",
            };
            let mut orders = orders;
            orders.write_all(answer.as_bytes())?;
        }
        Ok(())
    }

    fn obey(&mut self, line: &str) -> Result<String> {
        let (order, what) = line.split_once(' ').unwrap_or((line, ""));
        let path = || self.path(what);
        match order {
            "connect" => self.end = Some(End::Socket(UnixStream::connect(path()?)?)),
            "listen" => {
                let path = path()?;
                fs::remove_file(&path).ok();
                self.listener = Some(UnixListener::bind(path)?);
            }
            "accept" => {
                let listener = self.listener.take().context("nothing listens")?;
                wait(listener.as_fd(), PollFlags::IN)?;
                self.end = Some(End::Socket(listener.accept()?.0));
            }
            "open" => {
                // Not to become the lab's own, whose hang-up would end it.
                let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
                let terminal = rustix::fs::open(path()?, flags, Mode::empty())?;
                self.end = Some(End::Terminal(File::from(terminal)));
            }
            "send" => self.end()?.send(&from_hex(what)?)?,
            "flood" => return Ok(self.end()?.flood()?.to_string()),
            "read" => return Ok(to_hex(&self.end()?.read(count(what)?)?)),
            "contents" => return Ok(to_hex(&contents(&path()?)?)),
            "shutdown" => match self.end()? {
                End::Socket(socket) => socket.shutdown(Shutdown::Write)?,
                End::Terminal(_) => anyhow::bail!("a terminal has no directions"),
            },
            "close" => self.end = None,
            "answer" => {}
            _ => anyhow::bail!("unknown order '{line}'"),
        }
        Ok(String::new())
    }

    /// A file of the boot's folder: never one elsewhere.
    fn path(&self, name: &str) -> Result<PathBuf> {
        let mut parts = Path::new(name).components();
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(plain)), None) if plain == name => {
                Ok(self.dir.path().join(plain))
            }
            _ => anyhow::bail!("'{name}' is not one plain name"),
        }
    }

    fn end(&mut self) -> Result<&mut End> {
        self.end.as_mut().context("nothing is open")
    }
}

impl End {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.write_all(bytes),
            Self::Terminal(terminal) => terminal.write_all(bytes),
        }
    }

    fn flood(&mut self) -> Result<usize> {
        let Self::Socket(socket) = self else {
            anyhow::bail!("only sockets can be flooded")
        };
        socket.set_nonblocking(true)?;
        let mut count = 0;
        let result = loop {
            match socket.write(&[b'f'; 4096]) {
                Ok(len) => count += len,
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => break Ok(count),
                Err(err) => break Err(err.into()),
            }
        };
        socket.set_nonblocking(false)?;
        result
    }

    fn read(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        let mut got = 0;
        while let Some(rest) = bytes.get_mut(got..).filter(|rest| !rest.is_empty()) {
            let len = match self {
                Self::Socket(socket) => {
                    wait(socket.as_fd(), PollFlags::IN)?;
                    socket.read(rest)?
                }
                Self::Terminal(terminal) => {
                    wait(terminal.as_fd(), PollFlags::IN)?;
                    terminal.read(rest)?
                }
            };
            anyhow::ensure!(len > 0, "it ended after {got} bytes");
            got += len;
        }
        Ok(bytes)
    }
}

/// How many bytes to read.
fn count(text: &str) -> Result<usize> {
    let count = text.parse().context("not a number of bytes")?;
    anyhow::ensure!(count <= BYTES_MAX, "more than {BYTES_MAX} bytes");
    Ok(count)
}

/// A whole file, which must be one: no link to elsewhere, nothing that blocks, nothing endless.
fn contents(path: &Path) -> Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    anyhow::ensure!(file.metadata()?.is_file(), "not a file");
    let mut bytes = Vec::new();
    file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    anyhow::ensure!(bytes.len() <= BYTES_MAX, "more than {BYTES_MAX} bytes");
    Ok(bytes)
}

fn wait(fd: BorrowedFd<'_>, events: PollFlags) -> Result<()> {
    let limit = Timespec::try_from(LIMIT)?;
    let ready = rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, events)], Some(&limit))?;
    anyhow::ensure!(ready > 0, "nothing came within {} s", LIMIT.as_secs());
    Ok(())
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Result<Vec<u8>> {
    let digits: Vec<u32> = text
        .chars()
        .map(|digit| digit.to_digit(16).context("not hexadecimal"))
        .collect::<Result<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    anyhow::ensure!(rest.is_empty(), "half a byte");
    pairs
        .iter()
        .map(|[high, low]| Ok(u8::try_from(high * 16 + low)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(peer: &mut Peer, orders: &[&str]) -> Vec<String> {
        orders
            .iter()
            .map(|order| {
                peer.obey(order)
                    .unwrap_or_else(|err| format!("error {err:#}"))
            })
            .collect()
    }

    fn peer(base: &Path) -> Peer {
        Peer {
            dir: Scratch::in_dir(base, crate::scratch::Kind::Test).unwrap(),
            end: None,
            listener: None,
        }
    }

    /// No system call is looked at: what would have been reached is still there, and nothing of it was answered.
    #[test]
    fn nothing_outside_the_folder_is_reached_and_nothing_endless_is_read() {
        let base = tempfile::tempdir().unwrap();
        let mut peer = peer(base.path());
        let outside = base.path().join("x");
        fs::write(&outside, "secret").unwrap();
        let link = peer.dir.path().join("link");
        std::os::unix::fs::symlink(&outside, &link).unwrap();
        let (socket, mut other) = UnixStream::pair().unwrap();
        peer.end = Some(End::Socket(socket));
        other.write_all(b"bytes").unwrap();
        let absolute = format!("contents {}", outside.display());
        for order in [
            "contents /etc/passwd",
            &absolute,
            "contents ../x",
            "contents link",
            "contents .",
            "contents ",
            "listen ../x",
            "listen ./x",
            "listen x/",
            "connect ../x",
            "open /dev/null",
            "read 99999999999",
            "read 18446744073709551616",
            "read -1",
        ] {
            let answer = ordered(&mut peer, &[order]);
            assert!(answer[0].starts_with("error "), "{order}: {answer:?}");
            assert!(!answer[0].contains("736563726574"), "{order}: {answer:?}");
        }
        assert_eq!(fs::read_to_string(&outside).unwrap(), "secret");
        assert_eq!(ordered(&mut peer, &["read 5"]), ["6279746573"]);
    }

    #[test]
    fn orders_are_obeyed() {
        let base = tempfile::tempdir().unwrap();
        let mut peer = peer(base.path());
        let dir = peer.dir.path().to_owned();
        let socket = dir.join("s");
        fs::write(dir.join("f"), "in it").unwrap();
        assert_eq!(ordered(&mut peer, &["listen s"]), [""]);
        let mut other = UnixStream::connect(&socket).unwrap();
        other.write_all(b"hello").unwrap();
        let orders = ["accept", "read 5", "send 6f6b", "contents f", "close"];
        assert_eq!(
            ordered(&mut peer, &orders),
            ["", "68656c6c6f", "", "696e206974", ""]
        );
        let mut answer = Vec::new();
        other.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"ok");
    }

    #[test]
    fn what_cannot_be_done_says_why() {
        let base = tempfile::tempdir().unwrap();
        let mut peer = peer(base.path());
        let orders = ["read 5", "send 6", "dance", "connect nowhere"];
        for answer in ordered(&mut peer, &orders) {
            assert!(answer.starts_with("error "), "{answer}");
        }
    }
}
