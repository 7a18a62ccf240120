// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every way to read and to write a FIFO, behind one call each, so that a test can go through them.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, SpliceFFlags, splice};
use nix::libc::{self, iovec};
use nix::unistd::pipe2;

use crate::aio::{Context, Iocb, PREADV, PWRITEV};
use crate::fifo::Fifo;
use crate::harness::SOON;
use crate::uring::{self, Ring};

/// A way to read and to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `read(2)`, `write(2)`.
    Call,
    /// `readv(2)`, `writev(2)`.
    Vector,
    /// `preadv2(2)`, `pwritev2(2)` with `RWF_NOWAIT`: never waits.
    Nowait,
    /// Native AIO, cancelled when it takes too long.
    Aio,
    /// The same with vectors.
    AioVector,
    /// io_uring, cancelled when it takes too long.
    Uring,
    /// The same with vectors.
    UringVector,
    /// `splice(2)`, through a pipe.
    Splice,
}

/// All of them.
pub const WAYS: [Way; 8] = [
    Way::Call,
    Way::Vector,
    Way::Nowait,
    Way::Aio,
    Way::AioVector,
    Way::Uring,
    Way::UringVector,
    Way::Splice,
];

/// What the ways need.
#[derive(Debug)]
pub struct Ways {
    context: Context,
    ring: Ring,
    pipe: (OwnedFd, OwnedFd),
}

impl Ways {
    /// A context, a ring and a pipe.
    pub fn new() -> Result<Self> {
        Ok(Self {
            context: Context::new(8)?,
            ring: Ring::new()?,
            pipe: pipe2(OFlag::O_CLOEXEC).context("pipe2")?,
        })
    }

    /// One read of up to `length` bytes. What can be cancelled is after `patience`: ECANCELED.
    ///
    /// # Errors
    ///
    /// The outer ones are the test's own troubles, the inner ones what the read said.
    pub fn read(
        &mut self,
        way: Way,
        fifo: &Fifo,
        length: usize,
        patience: Duration,
    ) -> Result<Result<Vec<u8>, Errno>> {
        let mut bytes = vec![0; length];
        let parts = cut(&mut bytes);
        let got = match way {
            Way::Call => return Ok(fifo.read(length)),
            // SAFETY: The vectors are valid.
            Way::Vector => called(unsafe { libc::readv(fifo.fd(), parts.as_ptr(), 3) }),
            Way::Nowait => {
                let flags = libc::RWF_NOWAIT;
                // SAFETY: The vectors are valid.
                called(unsafe { libc::preadv2(fifo.fd(), parts.as_ptr(), 3, -1, flags) })
            }
            Way::Aio => self.aio(Iocb::read(fifo, &mut bytes), patience)?,
            Way::AioVector => {
                let vectors = Iocb::new(fifo, PREADV, parts.as_ptr() as u64, 3);
                self.aio(vectors, patience)?
            }
            Way::Uring => self.uring(uring::read(fifo, &mut bytes), patience)?,
            Way::UringVector => self.uring(uring::readv(fifo, &parts), patience)?,
            Way::Splice => {
                let got = splice(
                    fifo,
                    None,
                    &self.pipe.1,
                    None,
                    length,
                    SpliceFFlags::empty(),
                );
                if let Ok(count) = got {
                    self.take_from_pipe(&mut bytes, count)?;
                }
                got
            }
        };
        Ok(got.map(|count| {
            bytes.truncate(count);
            bytes
        }))
    }

    /// One write. What can be cancelled is after `patience`: ECANCELED.
    ///
    /// # Errors
    ///
    /// As for [`Ways::read`].
    pub fn write(
        &mut self,
        way: Way,
        fifo: &Fifo,
        bytes: &[u8],
        patience: Duration,
    ) -> Result<Result<usize, Errno>> {
        let mut bytes = bytes.to_vec();
        let parts = cut(&mut bytes);
        Ok(match way {
            Way::Call => fifo.write(&bytes),
            // SAFETY: The vectors are valid.
            Way::Vector => called(unsafe { libc::writev(fifo.fd(), parts.as_ptr(), 3) }),
            Way::Nowait => {
                let flags = libc::RWF_NOWAIT;
                // SAFETY: The vectors are valid.
                called(unsafe { libc::pwritev2(fifo.fd(), parts.as_ptr(), 3, -1, flags) })
            }
            Way::Aio => self.aio(Iocb::write(fifo, &bytes), patience)?,
            Way::AioVector => {
                let vectors = Iocb::new(fifo, PWRITEV, parts.as_ptr() as u64, 3);
                self.aio(vectors, patience)?
            }
            Way::Uring => self.uring(uring::write(fifo, &bytes), patience)?,
            Way::UringVector => self.uring(uring::writev(fifo, &parts), patience)?,
            Way::Splice => {
                let filled = nix::unistd::write(&self.pipe.1, &bytes)?;
                let flags = SpliceFFlags::empty();
                let sent = splice(&self.pipe.0, None, fifo, None, filled, flags);
                // What was not taken is still in the pipe.
                let left = filled - sent.unwrap_or(0);
                self.take_from_pipe(&mut bytes, left)?;
                sent
            }
        })
    }

    fn take_from_pipe(&self, room: &mut [u8], count: usize) -> Result<()> {
        let mut taken = 0;
        while taken < count {
            let rest = room.get_mut(taken..count).context("too much in the pipe")?;
            taken += nix::unistd::read(&self.pipe.0, rest)?;
        }
        Ok(())
    }

    fn aio(&self, mut iocb: Iocb, patience: Duration) -> Result<Result<usize, Errno>> {
        if let Err(error) = self.context.submit(&mut iocb) {
            return Ok(Err(error));
        }
        let mut events = self.context.events(1, 1, patience)?;
        if events.is_empty() {
            match self.context.cancel(&mut iocb) {
                // EINVAL: it was done just now.
                Err(Errno::EINPROGRESS | Errno::EINVAL) => {}
                other => bail!("io_cancel: {other:?}"),
            }
            events = self.context.events(1, 1, SOON)?;
        }
        let event = events.first().context("a request was never completed")?;
        Ok(uring::outcome(i32::try_from(event.res)?))
    }

    fn uring(
        &mut self,
        entry: io_uring::squeue::Entry,
        patience: Duration,
    ) -> Result<Result<usize, Errno>> {
        self.ring.submit(entry, 1)?;
        if let Some(done) = self.ring.wait(patience)? {
            return Ok(uring::outcome(done.res));
        }
        self.ring.cancel(1, 2)?;
        let results = self.ring.results(2)?;
        let res = results.get(&1).context("a request was never completed")?;
        Ok(uring::outcome(*res))
    }
}

fn called(result: isize) -> Result<usize, Errno> {
    Errno::result(result).map(isize::cast_unsigned)
}

/// In three, the middle one empty.
fn cut(bytes: &mut [u8]) -> [iovec; 3] {
    let (first, last) = bytes.split_at_mut(bytes.len() / 3);
    [first, &mut [], last].map(|part| iovec {
        iov_base: part.as_mut_ptr().cast(),
        iov_len: part.len(),
    })
}
