// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's part of `cargo lab soak`: `soak SECONDS SEED`.
//!
//! FIFO 0 is a loopback, for test-stress, one run of it after another. FIFO 1 ends at the host, which
//! sends a stream that follows from the seed and checks the one that it gets; both streams go on through
//! all unbinds, and through the module's removals between two runs. Whenever the module is out, what the
//! kernel has in use is measured: then nothing of the driver may be left.
//!
//! What the host has to know goes to standard output, a line each: a word, then `name=value` pairs.

use std::fs;
use std::io::{BufRead, BufReader, Write, stdout};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use globalfifo_guest_tests::dice::Dice;
use globalfifo_guest_tests::fifo::Fifo;
use globalfifo_guest_tests::usage::{Usage, meminfo};
use globalfifo_guest_tests::ways::{Way, Ways};
use globalfifo_guest_tests::{harness, signals, splitmix, system};
use nix::errno::Errno;

/// The FIFO whose other end is the host.
const HOST_FIFO: &str = "/dev/globalfifo1";

/// What test-stress gets at a time; all its tests have to do something worthwhile in it.
const ROUND: Duration = Duration::from_secs(20);
const SHORTEST_ROUND: Duration = Duration::from_secs(10);

/// How often the module is taken out and put back after each round.
const RELOADS: u64 = 5;

/// How long a device may be away.
const AWAY: Duration = Duration::from_secs(30);

/// How often the host is told.
const TELL: Duration = Duration::from_secs(1);

/// Nothing that goes on takes longer to move a byte: a lost interrupt costs seconds.
const STUCK: Duration = Duration::from_secs(60);

/// How much bigger the kernel's memory may be at the end, in KiB: it has other things to do too.
const SLACK_KIB: u64 = 1024;

/// The part of the machine's memory by which it may be bigger still on a kernel with kmemleak. That
/// comes with KASAN, which keeps as much of what was freed to see whether somebody still uses it; what
/// is really lost is for kmemleak to find.
const QUARANTINE: u64 = 32;

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|text| text.parse().ok())
        .collect();
    let &[seconds, seed] = numbers.as_slice() else {
        eprintln!("usage: soak SECONDS SEED");
        return ExitCode::from(2);
    };
    match soak(Duration::from_secs(seconds), seed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("failed {error:#}").replace('\n', "; "));
            ExitCode::FAILURE
        }
    }
}

fn tell(line: &str) {
    let mut out = stdout().lock();
    // Nobody to tell when the reader is gone; the exit status still says it.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// What has happened so far.
#[derive(Debug, Default)]
struct Tally {
    rounds: AtomicU64,
    /// Bytes of the host's stream that were read, of ours that were taken.
    read: AtomicU64,
    written: AtomicU64,
    /// Through the loopback, as test-stress says.
    stressed: AtomicU64,
    rebinds: AtomicU64,
    reloads: AtomicU64,
    clears: AtomicU64,
    cancelled: AtomicU64,
}

impl Tally {
    fn line(&self) -> String {
        let counters = [
            ("rounds", &self.rounds),
            ("read", &self.read),
            ("written", &self.written),
            ("stressed", &self.stressed),
            ("rebinds", &self.rebinds),
            ("reloads", &self.reloads),
            ("clears", &self.clears),
            ("cancelled", &self.cancelled),
        ];
        counters
            .map(|(name, counter)| format!(" {name}={}", counter.load(Ordering::SeqCst)))
            .concat()
    }

    /// Adds what a test said of itself: `# name=value …`.
    fn add(&self, said: &str) {
        for (name, value) in said.split(' ').filter_map(|pair| pair.split_once('=')) {
            let counter = match name {
                "bytes" => &self.stressed,
                "rebinds" => &self.rebinds,
                "clears" => &self.clears,
                "cancelled" => &self.cancelled,
                _ => continue,
            };
            counter.fetch_add(value.parse().unwrap_or(0), Ordering::SeqCst);
        }
    }
}

fn soak(time: Duration, seed: u64) -> Result<()> {
    let end = Instant::now() + time;
    signals::block_sigio()?;
    let tally = Arc::new(Tally::default());
    let teller = Teller::start(&tally);
    let mut streams = Streams::new(seed, &tally);
    let mut first = None;
    let last = loop {
        let round = tally.rounds.load(Ordering::SeqCst);
        let left = end.saturating_duration_since(Instant::now());
        streams.start();
        let stressed = stress(left.clamp(SHORTEST_ROUND, ROUND), seed + round, &tally);
        let ended = left <= ROUND;
        // What went wrong in a stream comes first: the rest may follow from it.
        streams.stop(ended)?;
        stressed?;
        let used = reload(&tally)?;
        first.get_or_insert(used);
        tally.rounds.fetch_add(1, Ordering::SeqCst);
        if ended {
            break used;
        }
    };
    teller.stop();
    let leaks = memory_leaks()?;
    let first = first.unwrap_or(last);
    tell(&format!(
        "done{} slab_before={} slab_after={} pages_before={} pages_after={} fds_before={} fds_after={} leaks={}",
        tally.line(),
        first.slab,
        last.slab,
        first.pages,
        last.pages,
        first.descriptors,
        last.descriptors,
        leaks.map_or_else(|| "unknown".to_owned(), |leaks| leaks.to_string()),
    ));
    let slack = match leaks {
        Some(_) => {
            SLACK_KIB + meminfo(&fs::read_to_string("/proc/meminfo")?, "MemTotal") / QUARANTINE
        }
        None => SLACK_KIB,
    };
    let grown = |before: u64, after: u64| after > before + slack;
    if grown(first.slab, last.slab) || grown(first.pages, last.pages) {
        bail!("the kernel has more memory in use than after the first round");
    }
    if last.descriptors > first.descriptors {
        bail!("descriptors were left open");
    }
    if leaks.is_some_and(|leaks| leaks > 0) {
        bail!("kmemleak has found something: see /sys/kernel/debug/kmemleak");
    }
    Ok(())
}

/// Tells the host how far it is, every second; ends it all when nothing moves any more.
struct Teller {
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Teller {
    fn start(tally: &Arc<Tally>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (tally, ended) = (Arc::clone(tally), Arc::clone(&over));
        let thread = thread::spawn(move || {
            let stuck = harness::limit(STUCK);
            let mut last = (String::new(), Instant::now());
            while !ended.load(Ordering::SeqCst) {
                let line = tally.line();
                tell(&format!("progress{line}"));
                if line != last.0 {
                    last = (line, Instant::now());
                } else if last.1.elapsed() > stuck {
                    give_up(stuck);
                }
                thread::park_timeout(TELL);
            }
        });
        Self { over, thread }
    }

    fn stop(self) {
        self.over.store(true, Ordering::SeqCst);
        self.thread.thread().unpark();
        let _ = self.thread.join();
    }
}

/// Nothing moves: says where every thread is that has to do with it, and ends.
fn give_up(after: Duration) -> ! {
    tell(&format!(
        "failed nothing has moved for {} s",
        after.as_secs()
    ));
    for line in stuck_threads() {
        tell(&format!("stuck {line}"));
    }
    std::process::exit(1)
}

/// Where the threads of this program and of its tests are in the kernel, a line for each frame.
fn stuck_threads() -> Vec<String> {
    let mut lines = Vec::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let threads = processes
        .filter_map(|process| fs::read_dir(process.path().join("task")).ok())
        .flat_map(Iterator::flatten);
    for thread in threads {
        let read = |name| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        let (name, stack) = (read("comm"), read("stack"));
        let ours = ["soak", "test-stress", "kworker", "rmmod", "modprobe"];
        if !ours.iter().any(|ours| name.starts_with(ours)) || !stack.contains("globalfifo") {
            continue;
        }
        lines.push(format!("{} {}", thread.path().display(), name.trim()));
        lines.extend(stack.lines().map(|frame| format!("  {frame}")));
    }
    lines
}

/// One run of test-stress.
fn stress(time: Duration, seed: u64, tally: &Tally) -> Result<()> {
    let program = std::env::current_exe()?.with_file_name("test-stress");
    let mut child = Command::new(&program)
        .args([time.as_secs().to_string(), seed.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    let said = child.stdout.take().context("no pipe")?;
    // KTAP has the reasons of a failure before its line.
    let mut reasons = Vec::new();
    let mut failed = Vec::new();
    for line in BufReader::new(said).lines() {
        let line = line?;
        if let Some(words) = line.strip_prefix("# ") {
            tally.add(words);
            reasons.push(words.to_owned());
        } else if let Some(test) = line.strip_prefix("not ok ") {
            failed.push(format!("{test}: {}", reasons.join("; ")));
            reasons.clear();
        } else {
            reasons.clear();
        }
    }
    let status = child.wait()?;
    if !failed.is_empty() {
        bail!("test-stress, seed {seed}: {}", failed.join("; "));
    }
    if !status.success() {
        bail!("test-stress, seed {seed}: {status}");
    }
    Ok(())
}

/// Takes the module out and puts it back, a few times. Gives what is in use while it is out.
fn reload(tally: &Tally) -> Result<Usage> {
    let mut used = None;
    for _ in 0..RELOADS {
        // udev may have the node open for a moment.
        harness::eventually("the module is no more in use", || {
            Ok(system::unload_module().is_ok())
        })?;
        if used.is_none() {
            used = Some(Usage::settled()?);
        }
        system::load_module()?;
        system::wait_for_file(HOST_FIFO, true)?;
        tally.reloads.fetch_add(1, Ordering::SeqCst);
    }
    used.context("nothing was measured")
}

// --- The streams to and from the host. ---

/// The two streams of FIFO 1, and where they stand.
struct Streams {
    seed: u64,
    tally: Arc<Tally>,
    over: Arc<AtomicBool>,
    /// The host will send nothing more: read until the end.
    last: Arc<AtomicBool>,
    round: u64,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Streams {
    fn new(seed: u64, tally: &Arc<Tally>) -> Self {
        Self {
            seed,
            tally: Arc::clone(tally),
            over: Arc::default(),
            last: Arc::default(),
            round: 0,
            threads: Vec::new(),
        }
    }

    fn start(&mut self) {
        self.over.store(false, Ordering::SeqCst);
        self.round += 1;
        for (number, run) in [
            (1, read_stream as fn(&Worker) -> Result<()>),
            (2, write_stream),
        ] {
            let worker = Worker {
                dice: Dice::new(self.seed, 1000 * number + self.round),
                // The host has the same two: see vmm-glue/src/soak/traffic.rs.
                seed: self.seed ^ number,
                tally: Arc::clone(&self.tally),
                over: Arc::clone(&self.over),
                last: Arc::clone(&self.last),
            };
            self.threads.push(thread::spawn(move || run(&worker)));
        }
    }

    fn stop(&mut self, last: bool) -> Result<()> {
        self.last.store(last, Ordering::SeqCst);
        self.over.store(true, Ordering::SeqCst);
        if last {
            tell("draining");
        }
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(result) => result?,
                Err(_) => bail!("a thread panicked"),
            }
        }
        Ok(())
    }
}

struct Worker {
    dice: Dice,
    seed: u64,
    tally: Arc<Tally>,
    over: Arc<AtomicBool>,
    last: Arc<AtomicBool>,
}

impl Worker {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

/// The host's FIFO, opened anew whenever it takes that.
struct Open(Option<Fifo>);

impl Open {
    fn get(&mut self) -> Result<&Fifo> {
        let deadline = Instant::now() + harness::limit(AWAY);
        while self.0.is_none() {
            match Fifo::open_at(HOST_FIFO, 0) {
                Ok(fifo) => self.0 = Some(fifo),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
        self.0.as_ref().context("not open")
    }

    /// What an attempt came to; `None` if that was nothing.
    fn outcome<T>(&mut self, outcome: Result<T, Errno>) -> Result<Option<T>> {
        match outcome {
            Ok(done) => return Ok(Some(done)),
            Err(Errno::ECANCELED | Errno::EINTR) => {}
            Err(Errno::EAGAIN) => thread::yield_now(),
            Err(Errno::ENODEV) => self.0 = None,
            Err(error) => bail!("{HOST_FIFO}: {error}"),
        }
        Ok(None)
    }
}

/// Mostly small, now and then more than the FIFO holds.
fn length(dice: &mut Dice) -> usize {
    let most = if dice.roll(4) == 0 { 40_000 } else { 300 };
    1 + dice.size(most)
}

/// Reads the host's stream until this round is over; in the last one, until its end.
fn read_stream(worker: &Worker) -> Result<()> {
    let mut dice = worker.dice.clone();
    let mut ways = Ways::new()?;
    let mut open = Open(None);
    loop {
        let last = worker.is_over() && worker.last.load(Ordering::SeqCst);
        if worker.is_over() && !last {
            return Ok(());
        }
        let length = length(&mut dice);
        let (way, patience) = (dice.way(), dice.patience());
        let outcome = ways.read(way, open.get()?, length, patience)?;
        let Some(bytes) = open.outcome(outcome)? else {
            continue;
        };
        if bytes.is_empty() {
            if worker.is_over() {
                return Ok(());
            }
            bail!("{HOST_FIFO} came to its end before its time, by {way:?}");
        }
        check_stream(worker, &bytes, way)?;
    }
}

fn check_stream(worker: &Worker, bytes: &[u8], way: Way) -> Result<()> {
    let start = worker.tally.read.load(Ordering::SeqCst);
    let expected = splitmix::bytes(worker.seed, start, bytes.len());
    for (position, (byte, expected)) in (start..).zip(bytes.iter().zip(expected)) {
        if *byte != expected {
            bail!("byte {position} from the host is wrong, read by {way:?}");
        }
    }
    let count = bytes.len() as u64;
    worker.tally.read.fetch_add(count, Ordering::SeqCst);
    Ok(())
}

/// Writes the guest's stream until this round is over.
fn write_stream(worker: &Worker) -> Result<()> {
    let mut dice = worker.dice.clone();
    let mut ways = Ways::new()?;
    let mut open = Open(None);
    while !worker.is_over() {
        let start = worker.tally.written.load(Ordering::SeqCst);
        let length = length(&mut dice);
        let bytes: Vec<u8> = splitmix::bytes(worker.seed, start, length).collect();
        let (way, patience) = (dice.way(), dice.patience());
        let outcome = ways.write(way, open.get()?, &bytes, patience)?;
        if let Some(count) = open.outcome(outcome)? {
            worker
                .tally
                .written
                .fetch_add(count as u64, Ordering::SeqCst);
        }
    }
    Ok(())
}

// --- What is in use. ---

/// How many leaks kmemleak knows of; `None` where the kernel has none.
fn memory_leaks() -> Result<Option<usize>> {
    const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";
    if !fs::exists(KMEMLEAK)? {
        return Ok(None);
    }
    // It reports what two scans have found, and nothing that is younger than five seconds.
    for _ in 0..2 {
        thread::sleep(Duration::from_secs(6));
        system::write(KMEMLEAK, "scan")?;
    }
    let report = fs::read_to_string(KMEMLEAK)?;
    for line in report.lines().take(200) {
        eprintln!("{line}");
    }
    Ok(Some(report.matches("unreferenced object").count()))
}
