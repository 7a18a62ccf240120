// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Listing 9.15: one read with the kernel's AIO, of a page, through O_DIRECT.

use std::time::Duration;

use anyhow::Result;
use nix::libc::O_DIRECT;

use super::Desk;
use super::clock::{millis, settle};
use super::show::{holds, say, text};
use crate::aio::{Context, Iocb};
use crate::fifo::Fifo;
use crate::system;
use crate::trace::now_micros;

/// As posix_memalign(4096, 4096) gives it.
#[repr(align(4096))]
struct Page([u8; 4096]);

pub(super) fn run(_: &Desk) -> Result<()> {
    let fifo = Fifo::open(O_DIRECT)?;
    say!(
        "open(\"{}\", O_RDWR | O_DIRECT) = {}",
        crate::fifo::PATH,
        fifo.fd()
    );
    let mut page = Box::new(Page([0; 4096]));
    let address = page.0.as_ptr() as usize;
    holds!(
        address.is_multiple_of(4096),
        "the buffer is at {address:#x}, a page's beginning"
    );
    let context = Context::new(128)?;
    let mut read = Iocb::read(&fifo, &mut page.0).data(1);
    let before = system::counter(0, "aio_by_interrupt")?;
    let start = now_micros()?;
    context.submit(&mut read)?;
    say!(
        "io_submit of a read of 4096 bytes: 1, after {}",
        millis(now_micros()? - start)
    );
    let none = context.events(0, 1, Duration::from_millis(50))?;
    holds!(
        none.is_empty(),
        "io_getevents with a timeout of 50 ms: no event, the FIFO is empty"
    );

    say!("$ echo asynchronous > {}", crate::fifo::PATH);
    system::run(
        "sh",
        &["-c", &format!("echo asynchronous > {}", crate::fifo::PATH)],
    )?;
    let event = context.event()?;
    holds!(
        event.res == 13 && event.data == 1,
        "io_getevents: one event, data {}, result {}",
        event.data,
        event.res
    );
    let bytes = page.0.get(..13).unwrap_or(&[]);
    holds!(bytes == b"asynchronous\n", "the buffer: {}", text(bytes));
    let read_counter = || system::counter(0, "aio_by_interrupt");
    let after = settle(read_counter, |after| *after > before)?;
    holds!(
        after == before + 1,
        "requests completed by an interrupt: {before} -> {after}"
    );
    Ok(())
}
