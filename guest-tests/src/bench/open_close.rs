// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Open and close of a FIFO on which another process has reads waiting.
//!
//! The file that is opened and closed has no request of its own. A driver that walks all requests of
//! a FIFO on close, or on open, takes longer for each read of the strangers.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use globalfifo_bench_protocol::{Line, Measured, Task, Work};

use super::meter::{Latencies, Meter};
use crate::aio::{Context, Iocb};
use crate::fifo::Fifo;

/// Pairs of open and close that are not counted: first times are slow.
const WARM_UP: u64 = 20;

/// Opens and closes, again and again, while `strangers` reads of another process wait.
pub fn measure(path: &str, strangers: usize, time: Duration) -> Result<Measured> {
    Fifo::open_at(path, 0)?.clear()?;
    let others = (strangers > 0)
        .then(|| Strangers::start(path, strangers, time))
        .transpose()?;
    let mut latencies = Latencies::new()?;
    let mut turns = 0;
    let meter = Meter::begin(Some(path))?;
    while meter.elapsed() < time || turns <= WARM_UP {
        let started = Instant::now();
        drop(Fifo::open_at(path, 0)?);
        let took = started.elapsed();
        turns += 1;
        if turns > WARM_UP {
            latencies.add(took)?;
        }
    }
    let mut measured = meter.end()?;
    measured.operations = latencies.count();
    latencies.put(&mut measured);
    others.map_or(Ok(()), Strangers::end)?;
    Ok(measured)
}

/// The work of the other process: reads that wait until its standard input ends.
pub fn wait_as_stranger(path: &str, count: usize) -> Result<()> {
    let fifo = Fifo::open_at(path, 0)?;
    let mut rooms = vec![[0; 1]; count];
    let mut requests: Vec<Iocb> = rooms
        .iter_mut()
        .map(|room| Iocb::read(&fifo, room))
        .collect();
    // Destroyed before the buffers are freed: last made, first dropped.
    let context = Context::new(u32::try_from(count)?)?;
    let mut submitted = 0;
    while let Some(rest) = requests
        .get_mut(submitted..)
        .filter(|rest| !rest.is_empty())
    {
        submitted += context.submit_all(rest).context("io_submit")?;
    }
    super::say(&Line::Ready)?;
    io::stdin()
        .read_to_end(&mut Vec::new())
        .context("waiting for the end of standard input")?;
    // A read that ended would have made the figure one of fewer strangers.
    let ended = context.events(0, 1, Duration::ZERO)?;
    if let Some(event) = ended.first() {
        bail!("a read ended early with {}", event.res);
    }
    Ok(())
}

/// The other process. Dropping it ends it.
#[derive(Debug)]
struct Strangers(Child);

impl Strangers {
    /// Returns as soon as all reads wait.
    fn start(path: &str, count: usize, time: Duration) -> Result<Self> {
        let task = Task {
            work: Work::Strangers {
                path: path.to_owned(),
                count,
            },
            millis: u64::try_from(time.as_millis())?,
        };
        let child = Command::new(std::env::current_exe()?)
            .arg(serde_json::to_string(&task)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the other process")?;
        let mut this = Self(child);
        let mut line = String::new();
        let output = this
            .0
            .stdout
            .take()
            .context("no pipe from the other process")?;
        BufReader::new(output).read_line(&mut line)?;
        ensure!(
            serde_json::from_str(&line).ok() == Some(Line::Ready),
            "the other process did not get {count} reads submitted"
        );
        Ok(this)
    }

    /// Ends its standard input, and waits until it has exited: its reads are gone then.
    fn end(mut self) -> Result<()> {
        drop(self.0.stdin.take());
        let status = self.0.wait()?;
        ensure!(status.success(), "the other process: {status}");
        Ok(())
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        // After `end` there is no process any more, and both calls only say so.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
