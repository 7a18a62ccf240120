// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The driver comes and goes under load, again and again, and must leave nothing behind: memory before
//! and after is compared, of the kernel by its own figures.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::libc::{self, O_ASYNC, O_NONBLOCK};
use nix::poll::{PollFlags, PollTimeout};

use crate::aio::{Context, Iocb};
use crate::fifo::{Fifo, PATH};
use crate::harness::{eventually, open_descriptors};
use crate::{signals, system};

/// Cycles before the first figures: what is made once is there then.
const WARM_UP: u64 = 3;

/// How much the kernel's unreclaimable slab memory may grow: noise, and a little a cycle. What a
/// device has is some 50 KiB, so one that stayed in each tenth cycle would show.
const NOISE_BYTES: u64 = 2 << 20;
const BYTES_A_CYCLE: u64 = 2048;

/// How many objects any one kmalloc cache may grow by: noise, and less than one for each cycle.
const NOISE_OBJECTS: u64 = 400;

/// Where the kernel says what it holds.
#[derive(Clone, Debug)]
pub struct Figures {
    /// `Slab` of /proc/meminfo, in bytes.
    slab: u64,
    /// `SUnreclaim` of /proc/meminfo, in bytes.
    unreclaimable: u64,
    /// `Percpu` of /proc/meminfo, in bytes.
    percpu: u64,
    /// Objects in use of each kmalloc cache, and their size.
    caches: BTreeMap<String, (u64, u64)>,
    /// Open files of the whole machine, if the kernel tells.
    files: Option<u64>,
    /// Descriptors of this process.
    descriptors: usize,
}

impl Figures {
    /// Those of now, once what is to be freed later has been.
    pub fn settled() -> Result<Self> {
        // Grace periods and delayed work; reclaimable caches would hide what grows.
        for _ in 0..3 {
            system::drop_caches()?;
            // Has every cache give back what CPUs hold for later.
            thread::sleep(Duration::from_millis(700));
        }
        let meminfo = fs::read_to_string("/proc/meminfo")?;
        let kib = |name: &str| -> Result<u64> {
            let line = meminfo.lines().find(|line| line.starts_with(name));
            let word = line.and_then(|line| line.split_whitespace().nth(1));
            Ok(word.with_context(|| format!("no {name}"))?.parse::<u64>()? << 10)
        };
        let files = fs::read_to_string("/proc/sys/fs/file-nr").ok();
        Ok(Self {
            slab: kib("Slab:")?,
            unreclaimable: kib("SUnreclaim:")?,
            percpu: kib("Percpu:")?,
            caches: caches(&fs::read_to_string("/proc/slabinfo")?),
            files: files.and_then(|files| files.split_whitespace().next()?.parse().ok()),
            descriptors: open_descriptors()?.len(),
        })
    }
}

impl Figures {
    /// Compares with those of `cycles` cycles later.
    ///
    /// # Errors
    ///
    /// Something was left behind.
    pub fn grown_to(&self, after: &Self, cycles: u64) -> Result<()> {
        let limit = self.unreclaimable + NOISE_BYTES + BYTES_A_CYCLE * cycles;
        if after.unreclaimable > limit {
            bail!("unreclaimable slab memory grew to more than {limit} bytes");
        }
        for (name, (now, _)) in &after.caches {
            let limit = self.caches.get(name).map_or(0, |cache| cache.0);
            let limit = limit + NOISE_OBJECTS + cycles / 2;
            if *now > limit {
                bail!("{name} grew to more than {limit} objects");
            }
        }
        if after.descriptors > self.descriptors {
            bail!("descriptors of this process are left");
        }
        Ok(())
    }
}

/// `kmalloc-1k  824  832  1024  16  4 : …`
fn caches(slabinfo: &str) -> BTreeMap<String, (u64, u64)> {
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        let active = words.next()?.parse().ok()?;
        let size = words.nth(1)?.parse().ok()?;
        Some((name.to_owned(), (active, size)))
    };
    let lines = slabinfo.lines().filter(|line| line.starts_with("kmalloc-"));
    lines.filter_map(parse).collect()
}

/// What became of it.
#[derive(Debug)]
pub struct Report {
    unbinds: u64,
    unloads: u64,
    /// Calls and requests that the load made.
    calls: u64,
    before: Figures,
    after: Figures,
    /// What kmemleak found, if the kernel has it.
    leaks: Option<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = (&self.before, &self.after);
        writeln!(
            f,
            "{} times unbind and bind, {} times rmmod and modprobe, under {} calls and requests",
            self.unbinds, self.unloads, self.calls
        )?;
        let mut line = |name: &str, before: u64, after: u64| {
            let growth = i128::from(after) - i128::from(before);
            writeln!(f, "{name:<24}{before:>12}{after:>12}{growth:>+10}")
        };
        line("Slab, bytes", before.slab, after.slab)?;
        line(
            "SUnreclaim, bytes",
            before.unreclaimable,
            after.unreclaimable,
        )?;
        line("Percpu, bytes", before.percpu, after.percpu)?;
        if let (Some(before), Some(after)) = (before.files, after.files) {
            line("open files", before, after)?;
        }
        let descriptors = (before.descriptors as u64, after.descriptors as u64);
        line("own descriptors", descriptors.0, descriptors.1)?;
        for (name, (now, _)) in &after.caches {
            let then = before.caches.get(name).map_or(0, |cache| cache.0);
            if then != *now {
                line(&format!("{name}, objects"), then, *now)?;
            }
        }
        match &self.leaks {
            Some(leaks) => {
                let count = leaks.matches("unreferenced object").count();
                writeln!(f, "kmemleak: {count} unreferenced objects")
            }
            None => writeln!(f, "kmemleak: not in this kernel"),
        }
    }
}

impl Report {
    /// Fails if something was left behind.
    pub fn check(&self) -> Result<()> {
        let cycles = self.unbinds + self.unloads;
        if let Err(grown) = self.before.grown_to(&self.after, cycles) {
            bail!("{grown}\n{self}");
        }
        match &self.leaks {
            Some(leaks) if leaks.contains("unreferenced object") => bail!("{leaks}\n{self}"),
            _ => Ok(()),
        }
    }
}

/// Unbinds and binds the device `unbinds` times, and unloads and loads the module `unloads` times,
/// while threads read, write, wait, and submit requests. `progress` hears of each cycle.
pub fn run(unbinds: u64, unloads: u64, mut progress: impl FnMut(u64)) -> Result<Report> {
    signals::block_sigio()?;
    drop(Fifo::open_empty(0)?);
    let device = system::device_name()?;
    for _ in 0..WARM_UP {
        let load = Load::start();
        rebind(&device)?;
        reload(&device)?;
        load.end()?;
    }
    let before = Figures::settled()?;
    let load = Load::start();
    for cycle in 0..unbinds {
        load.moves()?;
        rebind(&device)?;
        progress(cycle + 1);
    }
    for cycle in 0..unloads {
        load.moves()?;
        reload(&device)?;
        progress(unbinds + cycle + 1);
    }
    let calls = load.end()?;
    drop(Fifo::open_empty(0)?);
    Ok(Report {
        unbinds,
        unloads,
        calls,
        before,
        after: Figures::settled()?,
        leaks: kmemleak()?,
    })
}

fn there() -> Result<()> {
    system::wait_for_file(PATH, true)
}

fn rebind(device: &str) -> Result<()> {
    system::unbind(device)?;
    system::bind(device)?;
    there()
}

/// Files keep the module: take the device away first, so that the load lets go of them.
fn reload(device: &str) -> Result<()> {
    system::unbind(device)?;
    eventually("the module can be unloaded", || {
        Ok(system::unload_module().is_ok())
    })?;
    system::load_module()?;
    there()
}

/// What kmemleak finds: it reports what it did not see twice.
fn kmemleak() -> Result<Option<String>> {
    const FILE: &str = "/sys/kernel/debug/kmemleak";
    if !Path::new(FILE).exists() {
        return Ok(None);
    }
    for _ in 0..2 {
        // Objects count once they are some seconds old.
        thread::sleep(Duration::from_secs(6));
        system::write(FILE, "scan")?;
    }
    Ok(Some(fs::read_to_string(FILE)?))
}

/// Threads that use the FIFO in every way, whenever it is there.
#[derive(Debug)]
struct Load {
    over: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let calls = Arc::new(AtomicU64::new(0));
        let works: [fn(&Fifo, &AtomicU64, &AtomicBool); 5] =
            [writing, reading, polling, requesting, signalled];
        let threads = works
            .into_iter()
            .map(|work| {
                let (over, calls) = (over.clone(), calls.clone());
                thread::spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        match Fifo::open(O_NONBLOCK) {
                            Ok(fifo) => work(&fifo, &calls, &over),
                            Err(_) => thread::sleep(Duration::from_millis(1)),
                        }
                    }
                })
            })
            .collect();
        Self {
            over,
            calls,
            threads,
        }
    }

    /// Waits until it has got somewhere.
    fn moves(&self) -> Result<()> {
        let calls = self.calls.load(Ordering::Relaxed);
        eventually("the load goes on", || {
            Ok(self.calls.load(Ordering::Relaxed) > calls + 20)
        })
    }

    fn end(self) -> Result<u64> {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().ok().context("a thread panicked")?;
        }
        Ok(self.calls.load(Ordering::Relaxed))
    }
}

/// Until the device goes or all is over.
fn again(calls: &AtomicU64, over: &AtomicBool, mut call: impl FnMut() -> Result<(), Errno>) {
    while !over.load(Ordering::Relaxed) {
        match call() {
            Ok(()) | Err(Errno::EAGAIN) => calls.fetch_add(1, Ordering::Relaxed),
            Err(_) => return,
        };
    }
}

fn writing(fifo: &Fifo, calls: &AtomicU64, over: &AtomicBool) {
    let bytes = [1; 700];
    again(calls, over, || fifo.write(&bytes).map(drop));
}

fn reading(fifo: &Fifo, calls: &AtomicU64, over: &AtomicBool) {
    again(calls, over, || fifo.read(1000).map(drop));
}

fn polling(fifo: &Fifo, calls: &AtomicU64, over: &AtomicBool) {
    again(calls, over, || {
        match fifo.poll_for(PollFlags::POLLIN, PollTimeout::from(20u16)) {
            Ok(events) if events.contains(PollFlags::POLLHUP) => Err(Errno::ENODEV),
            _ => fifo.read(10).map(drop),
        }
    });
}

/// Requests, some of which wait, are cancelled, or are ended by the device's going.
fn requesting(fifo: &Fifo, calls: &AtomicU64, over: &AtomicBool) {
    let Ok(blocking) = Fifo::open(0) else {
        return;
    };
    // Outlive the context, which waits for the requests that use them.
    let (mut room, bytes) = ([0; 500], [2; 500]);
    let Ok(context) = Context::new(4) else {
        return;
    };
    let mut requests = [Iocb::read(&blocking, &mut room), Iocb::write(fifo, &bytes)];
    again(calls, over, || {
        for request in &mut requests {
            context.submit(request)?;
        }
        // Errors come as events too.
        let mut done = context
            .events(requests.len(), requests.len(), Duration::from_millis(5))
            .unwrap_or_default();
        if done.len() < requests.len() {
            for request in &mut requests {
                let _ = context.cancel(request);
            }
        }
        while done.len() < requests.len() {
            let event = context.event().map_err(|_| Errno::EIO)?;
            done.push(event);
        }
        let gone = -i64::from(libc::ENODEV);
        if done.iter().any(|event| event.res == gone) {
            return Err(Errno::ENODEV);
        }
        Ok(())
    });
}

fn signalled(fifo: &Fifo, calls: &AtomicU64, over: &AtomicBool) {
    if fifo.enable_signals(None).is_err() {
        return;
    }
    let mut on = true;
    again(calls, over, || {
        on = !on;
        let _ = fifo.set_flags(O_ASYNC, on);
        thread::sleep(Duration::from_micros(300));
        fifo.write(b"x").map(drop)
    });
}
