// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The measurements of `cargo lab bench`, as they are made in the guest.
//!
//! Each does one [`Work`] and says what it cost. What is compared with what, how often, and what
//! becomes of the figures is the lab's business; nothing here knows the host but its peers.

mod depth;
mod facts;
mod meter;
mod notify;
mod open_close;
mod place;
mod streams;
mod waiters;

use std::time::Duration;

use anyhow::{Context, Result};
use globalfifo_bench_protocol::{Line, Measured, Task, Work};

use meter::Meter;

/// Does a task and prints its result.
pub fn run(task: &Task) -> Result<()> {
    let time = Duration::from_millis(task.millis);
    let measured = match &task.work {
        Work::Machine => return say(&Line::Machine(facts::machine()?)),
        Work::RoundTrip { way, size } => streams::round_trip(way, *size, time)?,
        Work::Send { way, size } => streams::send(way, *size, time)?,
        Work::Receive { way, size } => streams::receive(way, *size, time)?,
        Work::Discard { path, size } => streams::discard(path, *size, time)?,
        Work::Generate { path, size } => streams::generate(path, *size, time)?,
        Work::Loopback { way, size } => streams::loopback(way, *size, time)?,
        Work::Notify { path, by } => notify::notify(path, *by, time)?,
        Work::Depth {
            path,
            by,
            direction,
            depth,
        } => depth::depth(path, *by, *direction, *depth, time)?,
        Work::Waiters { paths, by, count } => waiters::waiters(paths, *by, *count, time)?,
        Work::OpenClose { path, strangers } => open_close::measure(path, *strangers, time)?,
        Work::Strangers { path, count } => return open_close::wait_as_stranger(path, *count),
        Work::Idle => idle(time)?,
    };
    say(&Line::Measured(measured))
}

fn idle(time: Duration) -> Result<Measured> {
    let meter = Meter::begin(None)?;
    std::thread::sleep(time);
    meter.end()
}

/// One line on standard output, at once.
#[expect(clippy::print_stdout, reason = "the result of the program")]
fn say(line: &Line) -> Result<()> {
    // Standard output is flushed at the end of each line.
    println!(
        "{}",
        serde_json::to_string(line).context("writing a result")?
    );
    Ok(())
}
