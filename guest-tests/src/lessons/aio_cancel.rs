// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! aio_cancel's three answers, and the kernel's io_cancel beside it.

use anyhow::Result;
use nix::errno::Errno;
use nix::libc::{ECANCELED, SYS_read};

use super::Desk;
use super::show::{holds, say, text};
use super::source;
use crate::aio::{Context, Iocb};
use crate::fifo::Fifo;
use crate::harness::eventually;
use crate::posix_aio::{self, Control};

/// Whether a thread of this process but the first sleeps in `call`.
fn thread_sleeps_in(call: i64) -> Result<bool> {
    for entry in std::fs::read_dir("/proc/self/task")? {
        let tid: i32 = entry?.file_name().to_string_lossy().parse()?;
        if u32::try_from(tid)? != std::process::id() && crate::system::sleeps_in(tid, call)? {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn run(_: &Desk) -> Result<()> {
    let fifo = Fifo::open(0)?;
    let (mut first, mut second) = (Control::reader(&fifo, 8), Control::reader(&fifo, 8));
    first.read()?;
    second.read()?;
    eventually("a thread asleep in read", || thread_sleeps_in(SYS_read))?;
    say!(
        "two aio_reads of one file: a thread of the library sleeps in the first, the second is queued"
    );
    let (answer, state) = (second.cancel()?, second.state());
    holds!(
        answer == posix_aio::CANCELED && state == Err(Errno::ECANCELED),
        "the second: AIO_CANCELED ({answer}), aio_error {state:?}"
    );
    let (answer, state) = (first.cancel()?, first.state());
    holds!(
        answer == posix_aio::NOT_CANCELED && state == Err(Errno::EINPROGRESS),
        "the first: AIO_NOTCANCELED ({answer}), aio_error {state:?}"
    );
    Fifo::open(0)?.write_all(b"data")?;
    let count = first.wait();
    let answer = first.cancel()?;
    holds!(
        answer == posix_aio::ALL_DONE && count == Ok(4),
        "the first after a write: AIO_ALLDONE ({answer}), aio_return {count:?}"
    );

    say!("");
    source::CANCEL.show("the AIO core calls this for io_cancel and at exit")?;
    source::CANCEL_REQUEST
        .show("marks the request as done; the server completes it later, outside AIO's lock")?;
    let context = Context::new(4)?;
    let mut room = [0u8; 8];
    let mut read = Iocb::read(&fifo, &mut room).data(42);
    context.submit(&mut read)?;
    let answer = context.cancel(&mut read);
    holds!(
        answer == Err(Errno::EINPROGRESS),
        "io_cancel of a read that waits in the driver: {answer:?}, the event is to come"
    );
    let event = context.event()?;
    holds!(
        event.res == -i64::from(ECANCELED) && event.data == 42,
        "its event: data {}, result {} (-ECANCELED)",
        event.data,
        event.res
    );
    fifo.write_all(b"whole")?;
    let bytes = fifo.read_exact(5)?;
    holds!(
        bytes == b"whole",
        "what is written next is all there: {}",
        text(&bytes)
    );
    Ok(())
}
