// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Clocks and counters around a measurement.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use globalfifo_bench_protocol::{Line, Measured};
use hdrhistogram::Histogram;

use crate::system;

/// How long the lab gets to hear of a beginning or an end, so that telling it is not measured.
const HEARD: Duration = Duration::from_millis(10);
/// A tick of /proc/stat: USER_HZ is 100 on every machine with Debian's kernel.
const TICK: Duration = Duration::from_millis(10);

/// A measurement in progress.
#[derive(Debug)]
pub struct Meter {
    device: Option<String>,
    interrupts: u64,
    cpu: Duration,
    start: Instant,
}

impl Meter {
    /// Begins; with the path of a FIFO, the interrupts of its device are counted.
    pub fn begin(path: Option<&str>) -> Result<Self> {
        super::say(&Line::Begin)?;
        std::thread::sleep(HEARD);
        let device = path.map(device_of).transpose()?;
        Ok(Self {
            interrupts: interrupts(device.as_deref())?,
            device,
            cpu: busy()?,
            start: Instant::now(),
        })
    }

    /// How long it has been going on.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Ends. What was done is for the caller to fill in.
    pub fn end(self) -> Result<Measured> {
        let elapsed = self.elapsed();
        let busy = busy()?.saturating_sub(self.cpu);
        let interrupts = interrupts(self.device.as_deref())?.saturating_sub(self.interrupts);
        super::say(&Line::End)?;
        std::thread::sleep(HEARD);
        Ok(Measured {
            nanos: nanos(elapsed),
            guest_cpu_nanos: nanos(busy),
            interrupts,
            ..Measured::default()
        })
    }
}

/// Measures `run` with as many operations as take about `time`: it is rehearsed with few, then more.
pub fn rehearse(
    path: Option<&str>,
    time: Duration,
    mut run: impl FnMut(u64) -> Result<()>,
) -> Result<(u64, Measured)> {
    let mut count = 8;
    loop {
        let meter = Meter::begin(path)?;
        run(count)?;
        let measured = meter.end()?;
        let took = Duration::from_nanos(measured.nanos);
        if took * 2 >= time {
            return Ok((count, measured));
        }
        // Few operations tell little of how long many take: not too far at once.
        let factor = time.as_secs_f64() / took.as_secs_f64().max(1e-6);
        count = scale(count, factor.clamp(2.0, 30.0));
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a number of operations, roughly"
)]
fn scale(count: u64, factor: f64) -> u64 {
    (count as f64 * factor) as u64
}

/// Nanoseconds of single operations.
#[derive(Debug)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet; values are kept to a thousandth.
    pub fn new() -> Result<Self> {
        Ok(Self(Histogram::new(3).context("making a histogram")?))
    }

    /// Adds one.
    pub fn add(&mut self, latency: Duration) -> Result<()> {
        self.0.record(nanos(latency)).context("recording a latency")
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Puts them into a result.
    pub fn put(&self, measured: &mut Measured) {
        let seen = self.0.iter_recorded();
        measured.latencies = seen
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
            .collect();
    }
}

/// Bytes of all objects that the kernel's slab allocator has given out.
///
/// Objects rather than pages: what earlier measurements have freed leaves pages behind that would be
/// filled first.
pub fn slab() -> Result<u64> {
    let text = fs::read_to_string("/proc/slabinfo").context("reading /proc/slabinfo")?;
    Ok(in_use(&text))
}

/// The sum over lines `NAME ACTIVE TOTAL SIZE …`, after two of titles.
fn in_use(slabinfo: &str) -> u64 {
    let bytes = slabinfo.lines().skip(2).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let active = fields.next()?.parse::<u64>().ok()?;
        let size = fields.nth(1)?.parse::<u64>().ok()?;
        Some(active * size)
    });
    bytes.sum()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Time that CPUs were not idle since the boot.
fn busy() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    let fields = text.lines().next().context("/proc/stat is empty")?;
    // user nice system idle iowait irq softirq steal
    let ticks = (fields.split_whitespace().skip(1).take(8).enumerate())
        .filter(|(field, _)| ![3, 4].contains(field))
        .map(|(_, ticks)| ticks.parse::<u32>())
        .sum::<Result<u32, _>>()
        .context("/proc/stat is not what it was")?;
    Ok(TICK * ticks)
}

/// The virtio device of the FIFO at `path`.
pub fn device_of(path: &str) -> Result<String> {
    let node = Path::new(path).file_name().context("a FIFO has a name")?;
    let link = Path::new("/sys/class/globalfifo").join(node).join("device");
    let device = fs::read_link(&link).with_context(|| format!("reading {}", link.display()))?;
    let name = device.file_name().context("a device has a name")?;
    Ok(name.to_string_lossy().into_owned())
}

fn interrupts(device: Option<&str>) -> Result<u64> {
    device.map_or(Ok(0), |device| Ok(system::interrupts(device)?.0))
}

#[cfg(test)]
mod tests {
    use super::in_use;

    #[test]
    fn slabs_count_by_their_objects() {
        let text = "slabinfo - version: 2.1\n\
                    # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>\n\
                    kmalloc-64   10     64     64   64    1 : tunables    0    0    0\n\
                    filp          3     32    256   32    2 : tunables    0    0    0\n";
        assert_eq!(in_use(text), 10 * 64 + 3 * 256);
    }
}
