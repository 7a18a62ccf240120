// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's part of `cargo lab scale`: `scale FIFOS REQUESTS`. Loads the driver for FIFOS FIFOs of all devices together, and has REQUESTS
//! reads of native AIO wait on each of them.
//!
//! What the host has to know goes to standard output: `NAME VALUE` a line.

use std::io::{Write as _, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use globalfifo_guest_tests::aio::{Context, Iocb};
use globalfifo_guest_tests::fifo::Fifo;
use globalfifo_guest_tests::system;
use globalfifo_guest_tests::usage::Usage;

/// Measurements of a time; their median is printed.
const TIMES: usize = 101;

fn main() -> ExitCode {
    match scale() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<(usize, usize)> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [fifos, requests] = words.as_slice() else {
        bail!("usage: scale FIFOS REQUESTS");
    };
    let (fifos, requests) = (fifos.parse()?, requests.parse()?);
    if fifos == 0 {
        bail!("there must be a FIFO");
    }
    Ok((fifos, requests))
}

fn tell(name: &str, value: impl std::fmt::Display) -> Result<()> {
    writeln!(stdout(), "{name} {value}").context("telling the host")
}

/// KiB that the kernel has more than before.
fn more(before: &Usage, after: &Usage) -> i64 {
    let sum = |usage: &Usage| i64::try_from(usage.slab + usage.pages).unwrap_or(i64::MAX);
    sum(after) - sum(before)
}

fn node(index: usize) -> String {
    format!("/dev/globalfifo{index}")
}

/// The median, in microseconds.
fn median(mut times: Vec<Duration>) -> Result<u128> {
    times.sort_unstable();
    let middle = times.get(times.len() / 2).context("no times")?;
    Ok(middle.as_micros())
}

fn scale() -> Result<()> {
    let (fifos, requests) = arguments()?;
    let last = node(fifos - 1);
    if std::path::Path::new("/sys/module/globalfifo").exists() {
        system::unload_module()?;
    }
    let before = Usage::settled()?;
    let began = Instant::now();
    system::load_module()?;
    system::wait_for_file(&last, true)?;
    tell("bind_us", began.elapsed().as_micros())?;
    let bound = Usage::settled()?;
    tell("bound_kib", more(&before, &bound))?;
    tell("first_us", round_trip(&node(0))?)?;
    tell("last_us", round_trip(&last)?)?;
    if requests > 0 {
        wait_in_all(fifos, requests)?;
    }
    Ok(())
}

/// A byte through a loop, there and back.
fn round_trip(path: &str) -> Result<u128> {
    let fifo = Fifo::open_at(path, 0)?;
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let began = Instant::now();
        fifo.write_all(b"x")?;
        fifo.read_exact(1)?;
        times.push(began.elapsed());
    }
    median(times)
}

fn wait_in_all(fifos: usize, requests: usize) -> Result<()> {
    let before = Usage::settled()?;
    let files = (0..fifos).map(|index| Fifo::open_at(&node(index), 0));
    let files = files.collect::<Result<Vec<_>>>()?;
    let contexts = (0..fifos).map(|_| Context::new(u32::try_from(requests)?));
    let contexts = contexts.collect::<Result<Vec<_>>>()?;
    let mut room = [0_u8; 1];
    let began = Instant::now();
    for (file, context) in files.iter().zip(&contexts) {
        for _ in 0..requests {
            context.submit(&mut Iocb::read(file, &mut room))?;
        }
    }
    let all = u128::try_from(fifos * requests)?;
    tell("submit_ns", began.elapsed().as_nanos() / all)?;
    let waiting = Usage::settled()?;
    let bytes = more(&before, &waiting) * 1024;
    tell("request_bytes", bytes / i64::try_from(all)?)?;

    // One that comes is for the oldest request of its FIFO; a new one takes its place.
    let (file, context) = files.iter().zip(&contexts).next_back().context("no FIFO")?;
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let began = Instant::now();
        file.write_all(b"x")?;
        let event = context.event()?;
        times.push(began.elapsed());
        if event.res != 1 {
            bail!("a read gave {}", event.res);
        }
        context.submit(&mut Iocb::read(file, &mut room))?;
    }
    tell("complete_us", median(times)?)?;
    let began = Instant::now();
    drop(contexts);
    tell("end_ns", began.elapsed().as_nanos() / all)?;
    Ok(())
}
