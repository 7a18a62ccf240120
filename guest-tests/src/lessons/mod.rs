// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The lessons of the chapter on asynchronous notification and asynchronous I/O: what its tables,
//! listings and figures are about, as programs that run on `/dev/globalfifo` and check themselves.
//!
//! A lesson is a function that prints what happens, with real values, and returns an error when it is
//! not what the chapter leads one to expect. [`show`] is how they print, [`source`] how they quote the
//! driver, [`figure`] and [`sequence`] how they draw, [`pages`] how a run becomes a page of the documentation. Nothing here knows how lessons are chosen or run
//! one after another: that is the program `lesson`.

mod aio_cancel;
mod aio_read;
mod aio_suspend;
mod clock;
mod fasync_template;
mod figure;
mod figure_calls;
mod figure_overlap;
mod figure_ways;
mod globalfifo_fasync;
mod kernel_operations;
mod libaio_calls;
mod libaio_read;
mod lio_listio;
mod monitor;
pub mod pages;
mod process;
mod sequence;
mod show;
mod signal_handlers;
mod signal_table;
mod source;
mod stacks;
mod terminal_sigio;
mod zero;

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::fifo::{Fifo, PATH};

/// One lesson.
#[derive(Debug)]
pub struct Lesson {
    /// What it is called on the command line.
    pub id: &'static str,
    /// The section of the chapter that it belongs to.
    pub number: &'static str,
    /// What it is about.
    pub title: &'static str,
    /// What to watch for.
    watch: &'static str,
    run: fn(&Desk) -> Result<()>,
}

/// What a lesson is given.
#[derive(Debug)]
pub struct Desk {
    /// Where figures must be written; if nothing is said, in the current directory if that is possible.
    pub svg: Option<PathBuf>,
}

impl Lesson {
    /// Runs it in this process, with the first FIFO empty before and after it.
    ///
    /// # Errors
    ///
    /// What the lesson did not find as it should be.
    pub fn run(&self, desk: &Desk) -> Result<()> {
        show::line(format_args!("=== {}: {}", self.id, self.title))?;
        for text in self.watch.lines() {
            show::line(format_args!("    {text}"))?;
        }
        show::line(format_args!(""))?;
        empty()?;
        let outcome = (self.run)(desk);
        let emptied = empty();
        outcome.and(emptied)
    }
}

fn empty() -> Result<()> {
    let fifo = Fifo::open(0)?;
    fifo.clear().context("emptying the FIFO")?;
    anyhow::ensure!(fifo.level()? == 0, "{PATH} is not empty after FIFO_CLEAR");
    Ok(())
}

/// All lessons, in the chapter's order.
pub const LESSONS: &[Lesson] = &[
    Lesson {
        id: "figure-9.1",
        number: "9.1",
        title: "Blocking, poll and SIGIO on one time axis",
        watch: "Three programs wait for the same two writes. The first sleeps, the second asks again and\n\
                again, the third works and is interrupted. Watch who gets work of its own done, and how\n\
                soon after a write each has the data.",
        run: figure_ways::run,
    },
    Lesson {
        id: "table-9.1",
        number: "9.2.1",
        title: "Every signal's number",
        watch: "Each signal is raised and caught, and then raised in a child process that does not catch\n\
                it. The table is what the kernel did. SIGIO is the one that a driver sends.",
        run: signal_table::run,
    },
    Lesson {
        id: "listing-9.1",
        number: "9.2.2",
        title: "SIGINT and SIGTERM caught by signal()",
        watch: "Three processes are signalled: the two that have a handler end in their own way, the one\n\
                that has none is ended by the kernel.",
        run: signal_handlers::run,
    },
    Lesson {
        id: "listing-9.2",
        number: "9.2.2",
        title: "SIGIO for what is typed at a terminal",
        watch: "A process sets O_ASYNC on its standard input, a terminal. Keys alone do not signal it: a\n\
                terminal that hands over lines has nothing to read before Enter.",
        run: terminal_sigio::run,
    },
    Lesson {
        id: "figure-9.2",
        number: "9.2.3",
        title: "Who calls whom: application, kernel, driver, device",
        watch: "One process asks for SIGIO, writes, is signalled, reads and closes, while the kernel traces\n\
                its system calls, the driver's functions, the interrupt and the signal.",
        run: figure_calls::run,
    },
    Lesson {
        id: "listing-9.3",
        number: "9.2.3",
        title: "fasync template: the list in the device's structure",
        watch: "The driver needs a place to note who wants to be signalled. Ours has one list for each mode\n\
                of opening: a reader is signalled for data only, a writer for space only.",
        run: fasync_template::structure,
    },
    Lesson {
        id: "listing-9.4",
        number: "9.2.3",
        title: "fasync template: the fasync file operation",
        watch: "fcntl(F_SETFL) with O_ASYNC calls the driver's fasync, which adds the file to the list, and\n\
                without O_ASYNC takes it out. The driver's counter of signals shows both.",
        run: fasync_template::operation,
    },
    Lesson {
        id: "listing-9.5",
        number: "9.2.3",
        title: "fasync template: kill_fasync when there is something",
        watch: "Three writes, three interrupts, three calls of kill_fasync, three signals: the signal comes\n\
                from the interrupt, not from the process that writes.",
        run: fasync_template::notification,
    },
    Lesson {
        id: "listing-9.6",
        number: "9.2.3",
        title: "fasync template: off the list at the last close",
        watch: "Of two descriptors of one open file the first close changes nothing, the last one takes the\n\
                file off the list.",
        run: fasync_template::close,
    },
    Lesson {
        id: "listing-9.7",
        number: "9.3.1",
        title: "globalfifo: its structure, and what poll waits on",
        watch: "The whole structure of a FIFO: its state behind one lock, and a notifier with one wait queue\n\
                for sleepers and polls. A poll sleeps; the interrupt wakes it.",
        run: globalfifo_fasync::structure,
    },
    Lesson {
        id: "listing-9.8",
        number: "9.3.1",
        title: "globalfifo: fasync, for a file that reads and writes",
        watch: "A file opened for both directions is on one list, and gets both bands. Its own read does not\n\
                signal it, unless that read made space in a full FIFO.",
        run: globalfifo_fasync::operation,
    },
    Lesson {
        id: "listing-9.9",
        number: "9.3.1",
        title: "globalfifo: from write to interrupt to signal",
        watch: "A write signals readers also when the FIFO was not empty; FIFO_CLEAR of a full FIFO signals\n\
                and wakes writers.",
        run: globalfifo_fasync::write_path,
    },
    Lesson {
        id: "listing-9.10",
        number: "9.3.1",
        title: "globalfifo: release, also when the process is killed",
        watch: "A process with O_ASYNC set is killed. The kernel closes its file, and nothing of it stays on\n\
                the driver's lists.",
        run: globalfifo_fasync::release,
    },
    Lesson {
        id: "listing-9.11",
        number: "9.3.2",
        title: "The monitor: echo into the FIFO, read the signal's number",
        watch: "A program that never reads says each time that it was signalled. Each echo is one line of it.",
        run: monitor::run,
    },
    Lesson {
        id: "figure-9.3",
        number: "9.4.1",
        title: "Computation and I/O, one after the other and overlapped",
        watch: "Four blocks are fetched from a slow source, and each is computed on. First with read(), then\n\
                with asynchronous requests that are under way while the block before is computed on.",
        run: figure_overlap::run,
    },
    Lesson {
        id: "listing-9.12",
        number: "9.4.1",
        title: "aio_read, and asking while it is EINPROGRESS",
        watch: "aio_read returns at once. aio_error says EINPROGRESS until the data has come; then, and only\n\
                once, aio_return gives the count.",
        run: aio_read::run,
    },
    Lesson {
        id: "listing-9.13",
        number: "9.4.1",
        title: "aio_suspend: sleeping until a request is done",
        watch: "aio_suspend gives up after its timeout with EAGAIN, and returns 0 as soon as one request of\n\
                its list is done.",
        run: aio_suspend::run,
    },
    Lesson {
        id: "aio_cancel",
        number: "9.4.1",
        title: "aio_cancel: its three answers, and io_cancel's",
        watch: "The C library can cancel only what no thread of it has begun. The kernel's own AIO can cancel\n\
                what waits in the driver.",
        run: aio_cancel::run,
    },
    Lesson {
        id: "listing-9.14",
        number: "9.4.1",
        title: "lio_listio: many requests in one call",
        watch: "LIO_WAIT returns when all are done, LIO_NOWAIT at once, with a signal when all are done.\n\
                Null pointers and LIO_NOP in the list are skipped.",
        run: lio_listio::run,
    },
    Lesson {
        id: "listing-9.15",
        number: "9.4.2",
        title: "The kernel's AIO: one aligned read through O_DIRECT",
        watch: "io_submit returns while the FIFO is empty. The event comes after an echo, from the interrupt.",
        run: libaio_read::run,
    },
    Lesson {
        id: "libaio-calls",
        number: "9.4.2",
        title: "io_setup, io_submit, io_getevents, io_cancel, io_destroy",
        watch: "Each call with what it returned. A request's data field comes back in its event: that is all\n\
                there is to io_set_callback.",
        run: libaio_calls::run,
    },
    Lesson {
        id: "kernel-9.4.3",
        number: "9.4.3",
        title: "aio_read, aio_write, aio_fsync then; read_iter, write_iter, fsync now",
        watch: "The three operations that the chapter knows are gone. What the driver has instead serves\n\
                calls and asynchronous requests alike; its counters tell which ones waited.",
        run: kernel_operations::run,
    },
    Lesson {
        id: "listing-9.16",
        number: "9.4.3",
        title: "A zero device: asynchronous reads into vectors",
        watch: "Buffers full of 0xff, of odd sizes, are filled with zeros by asynchronous vectored reads.",
        run: zero::run,
    },
];
