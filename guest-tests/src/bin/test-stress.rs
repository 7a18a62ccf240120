// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Everything at once, at random: `test-stress [SECONDS [SEED]]`, 10 seconds where nothing is said.
//!
//! What each thread does, in which order, follows from the seed, which is printed; how the threads
//! meet does not. Every byte that goes through says which one it is, so whatever is lost, doubled or
//! out of order is found:
//!
//! - one stream: each byte follows from its position; the reader must see exactly the bytes that
//!   writes said they took, however they were cut, cancelled, or cut off by unbind;
//! - records: 8 bytes with writer, number and checksum. The capacity is a number of records, all
//!   writes and all reads are, so records are never cut. Numbers are never used again: a write that
//!   took nothing leaves a hole that must stay one. Each reader sees each writer's numbers rise; all
//!   that was taken is read once, except what a clear can have discarded.

use std::collections::BTreeSet;
use std::env;
use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use globalfifo_guest_tests::dice::{Dice, mix};
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo, PATH};
use globalfifo_guest_tests::harness::{self, Test};
use globalfifo_guest_tests::ways::Ways;
use globalfifo_guest_tests::{check, check_eq, signals, system};
use nix::errno::Errno;
use nix::libc::O_NONBLOCK;
use nix::poll::{PollFlags, PollTimeout};

const TESTS: &[Test] = &[
    ("one_stream_every_way_with_cancels", one_stream),
    ("one_stream_with_unbind_and_bind", one_stream_rebound),
    ("many_streams_with_cancels_opens_and_closes", many_streams),
    ("many_streams_with_unbind_and_bind", many_streams_rebound),
    ("all_at_once_with_clears", all_at_once),
];

/// How long all tests take together where nothing is said.
const DEFAULT_SECONDS: u64 = 10;

/// How long a test may take beyond its share.
const SLACK: Duration = Duration::from_secs(60);

/// How long a test waits for threads that should be ending.
const END: Duration = Duration::from_secs(30);

/// How much longer than its share a test goes on if it has not done anything worthwhile: so many bytes,
/// or records.
const WORTHWHILE: Duration = Duration::from_secs(20);
const STREAM: u64 = 10_000;
const RECORDS: usize = 1000;

fn main() -> ExitCode {
    let mut numbers = env::args().skip(1).filter_map(|text| text.parse().ok());
    let seconds = numbers.next().unwrap_or(DEFAULT_SECONDS);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = numbers
        .next()
        .unwrap_or_else(|| now.map_or(1, |now| u64::from(now.subsec_nanos())));
    let filters: Vec<String> = env::args()
        .skip(1)
        .filter(|text| text.parse::<u64>().is_err())
        .collect();
    let _ = system::load_module();
    let limit = Duration::from_secs(seconds) + SLACK;
    let arguments = [seconds.to_string(), seed.to_string()];
    let title = format!("{seconds} seconds, seed {seed}: test-stress {seconds} {seed}");
    harness::main_with(TESTS, &filters, limit, &arguments, &title)
}

/// The dice of one of the threads, which each have a number.
fn thread_dice(thread: u64) -> Dice {
    Dice::new(seed(), thread)
}

/// The arguments that [`main`] gives each test.
fn argument(index: usize) -> u64 {
    let text = env::args().nth(index);
    text.and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn seed() -> u64 {
    argument(2)
}

/// A test's share of the time.
fn share() -> Duration {
    Duration::from_secs(argument(1)) / u32::try_from(TESTS.len()).unwrap_or(1)
}

/// What the threads of a test share.
#[derive(Debug, Default)]
struct Stage {
    /// No more is to be written, and nothing more to be disturbed.
    over: AtomicBool,
    /// Nothing more is to be read.
    drained: AtomicBool,
    /// Bytes of a stream that were written, or of records that were read.
    moved: AtomicU64,
    clears: AtomicUsize,
    rebinds: AtomicUsize,
    cancelled: AtomicUsize,
    interrupted: AtomicUsize,
}

impl Stage {
    fn new() -> Result<Arc<Self>> {
        // A disturber asks for signals, which nobody is to die of.
        signals::block_sigio()?;
        drop(Fifo::open_empty(0)?);
        Ok(Arc::new(Self::default()))
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn is_drained(&self) -> bool {
        self.drained.load(Ordering::SeqCst)
    }

    /// Lets the threads go on for this test's share of the time, and until they have done `enough` for
    /// the test to be one: how soon that is depends on the machine, and on what goes wrong with the device.
    fn play(&self, enough: impl Fn() -> bool) {
        let started = Instant::now();
        let most = share() + harness::limit(WORTHWHILE);
        while !self.is_over() {
            let elapsed = started.elapsed();
            if elapsed > most || (elapsed > share() && enough()) {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.over.store(true, Ordering::SeqCst);
    }

    fn has_moved(&self, bytes: u64) -> bool {
        self.moved.load(Ordering::SeqCst) > bytes
    }

    fn has_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst) > 0
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, counter) in [
            ("clears", &self.clears),
            ("rebinds", &self.rebinds),
            ("cancelled", &self.cancelled),
            ("interrupted", &self.interrupted),
        ] {
            write!(f, " {name}={}", counter.load(Ordering::SeqCst))?;
        }
        Ok(())
    }
}

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::SeqCst);
}

/// Opens the FIFO, as often as it takes while the device comes and goes; `None` when `enough`.
fn open(flags: i32, enough: impl Fn() -> bool) -> Result<Option<Fifo>> {
    let deadline = Instant::now() + harness::limit(END);
    loop {
        match Fifo::open(flags) {
            Ok(fifo) => return Ok(Some(fifo)),
            Err(_) if enough() => return Ok(None),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => thread::yield_now(),
        }
    }
}

/// What became of an attempt: something, nothing, or nothing for good with this file.
enum Attempt<T> {
    Done(T),
    Again,
    Reopen,
}

fn attempt<T>(stage: &Stage, outcome: Result<T, Errno>) -> Result<Attempt<T>> {
    match outcome {
        Ok(done) => Ok(Attempt::Done(done)),
        Err(Errno::ECANCELED) => {
            count(&stage.cancelled);
            Ok(Attempt::Again)
        }
        // So io_uring calls a cancelled request that a worker had in hand: it gives one to a request
        // that was woken 128 times for what others then took (APOLL_MAX_RETRY).
        Err(Errno::EINTR) => {
            count(&stage.interrupted);
            Ok(Attempt::Again)
        }
        Err(Errno::EAGAIN) => {
            thread::yield_now();
            Ok(Attempt::Again)
        }
        Err(Errno::ENODEV) => Ok(Attempt::Reopen),
        Err(error) => bail!("unexpected: {error}"),
    }
}

/// Opens files anew, also for no reason.
struct File {
    fifo: Option<Fifo>,
}

impl File {
    fn get(&mut self, dice: &mut Dice, enough: impl Fn() -> bool) -> Result<Option<&Fifo>> {
        if dice.roll(32) == 0 {
            self.fifo = None;
        }
        if self.fifo.is_none() {
            self.fifo = open(0, enough)?;
        }
        Ok(self.fifo.as_ref())
    }
}

fn join<T>(handles: Vec<JoinHandle<Result<T>>>) -> Result<Vec<T>> {
    handles
        .into_iter()
        .map(|handle| match handle.join() {
            Ok(result) => result,
            Err(_) => bail!("a thread panicked"),
        })
        .collect()
}

/// Takes the device away and gives it back, now and then.
fn rebind(stage: &Stage, thread: u64) -> Result<()> {
    let mut dice = thread_dice(thread);
    while !stage.is_over() {
        thread::sleep(Duration::from_millis(20 + dice.roll(150)));
        let device = system::device_name()?;
        system::unbind(&device)?;
        system::bind(&device)?;
        system::wait_for_file(PATH, true)?;
        count(&stage.rebinds);
    }
    Ok(())
}

/// Empties the FIFO, now and then.
fn clear(stage: &Stage, thread: u64) -> Result<()> {
    let mut dice = thread_dice(thread);
    while !stage.is_over() {
        thread::sleep(Duration::from_micros(dice.roll(20_000)));
        let Some(fifo) = open(O_NONBLOCK, || stage.is_over())? else {
            return Ok(());
        };
        // Before, so that none is overlooked: one that fails may have happened too.
        count(&stage.clears);
        attempt(stage, fifo.clear())?;
    }
    Ok(())
}

/// Opens, looks, listens and closes.
fn disturb(stage: &Stage, thread: u64) -> Result<()> {
    let mut dice = thread_dice(thread);
    while !stage.is_over() {
        let Some(fifo) = open(O_NONBLOCK, || stage.is_over())? else {
            return Ok(());
        };
        let gone = match dice.roll(5) {
            0 => fifo.enable_signals(None).is_err(),
            1 => fifo
                .poll_for(PollFlags::POLLIN, PollTimeout::from(5u8))?
                .contains(PollFlags::POLLHUP),
            2 => fifo.level().is_err(),
            3 => nix::unistd::fsync(&fifo).is_err(),
            _ => false,
        };
        if !gone {
            thread::sleep(Duration::from_micros(dice.roll(2000)));
        }
    }
    Ok(())
}

// --- One stream of bytes. ---

/// The byte at a position of the stream.
fn byte_at(position: u64) -> u8 {
    let [.., byte] = mix(seed() ^ position).to_le_bytes();
    byte
}

fn write_stream(stage: &Stage, thread: u64) -> Result<u64> {
    let mut dice = thread_dice(thread);
    let mut ways = Ways::new()?;
    let mut file = File { fifo: None };
    let mut position = 0;
    while !stage.is_over() {
        let Some(fifo) = file.get(&mut dice, || stage.is_over())? else {
            break;
        };
        let sides = if dice.roll(4) == 0 { 3 * CAPACITY } else { 200 };
        let length = dice.size(sides) + 1;
        let bytes: Vec<u8> = (position..).take(length).map(byte_at).collect();
        let outcome = ways.write(dice.way(), fifo, &bytes, dice.patience())?;
        match attempt(stage, outcome)? {
            Attempt::Done(count) => {
                check!(0 < count && count <= length);
                position += count as u64;
                stage.moved.store(position, Ordering::SeqCst);
            }
            Attempt::Again => {}
            Attempt::Reopen => file.fifo = None,
        }
    }
    Ok(position)
}

/// Reads until `total` bytes have come; what follows is only there to wake it up.
fn read_stream(stage: &Stage, thread: u64, total: &AtomicU64) -> Result<()> {
    let mut dice = thread_dice(thread);
    let mut ways = Ways::new()?;
    let mut file = File { fifo: None };
    let mut position = 0;
    while position < total.load(Ordering::SeqCst) {
        let Some(fifo) = file.get(&mut dice, || false)? else {
            break;
        };
        let length = dice.size(2 * CAPACITY) + 1;
        let way = dice.way();
        let outcome = ways.read(way, fifo, length, dice.patience())?;
        match attempt(stage, outcome)? {
            Attempt::Done(bytes) => {
                check!(!bytes.is_empty() && bytes.len() <= length);
                for byte in bytes {
                    if position < total.load(Ordering::SeqCst) && byte != byte_at(position) {
                        bail!("byte {position} is wrong, read by {way:?}");
                    }
                    position += 1;
                }
            }
            Attempt::Again => {}
            Attempt::Reopen => file.fifo = None,
        }
    }
    Ok(())
}

/// Writes `filler` until `ended`: whoever is blocked in a call wakes up, and sees that it is over.
fn wake_until(filler: &[u8], mut ended: impl FnMut() -> bool) -> Result<()> {
    let fifo = Fifo::open(O_NONBLOCK)?;
    let deadline = Instant::now() + harness::limit(END);
    while !ended() {
        if Instant::now() > deadline {
            bail!("a thread is still waiting for what it should have had");
        }
        let _ = fifo.write(filler);
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn run_stream(rebinding: bool) -> Result<()> {
    let stage = Stage::new()?;
    let total = Arc::new(AtomicU64::new(u64::MAX));
    let writer = spawn(&stage, 1, write_stream);
    let reader = {
        let (stage, total) = (stage.clone(), total.clone());
        thread::spawn(move || read_stream(&stage, 2, &total))
    };
    let mut others = vec![spawn(&stage, 3, disturb)];
    if rebinding {
        others.push(spawn(&stage, 4, rebind));
    }
    stage.play(|| {
        let rebound = !rebinding || stage.rebinds.load(Ordering::SeqCst) > 0;
        stage.has_moved(STREAM) && stage.has_cancelled() && rebound
    });
    join(others)?;
    let Some(written) = join(vec![writer])?.pop() else {
        bail!("no writer");
    };
    // Those that are read already are not more than this: they were checked against the stream.
    total.store(written, Ordering::SeqCst);
    eprintln!("# bytes={written}{stage}");
    wake_until(b"wake up", || reader.is_finished())?;
    join(vec![reader])?;
    // Some must have been, or the test was none.
    check!(written > STREAM);
    check!(stage.has_cancelled());
    check!(!rebinding || stage.rebinds.load(Ordering::SeqCst) > 0);
    check_eq!(system::counter(0, "protocol_errors")?, 0);
    Ok(())
}

fn one_stream() -> Result<()> {
    run_stream(false)
}

fn one_stream_rebound() -> Result<()> {
    run_stream(true)
}

// --- Records of many writers. ---

/// Headers on the wire are made of 64-bit fields and buffers are powers of two, so that data comes in
/// pieces that are multiples of this, if it goes in such pieces.
const RECORD: usize = 8;

/// The «writer» of records that only wake others up.
const NOBODY: u8 = u8::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Record {
    writer: u8,
    number: u32,
}

impl Record {
    /// Number, writer, and a checksum of both.
    fn to_bytes(self) -> [u8; RECORD] {
        let both = u64::from(self.writer) << 32 | u64::from(self.number);
        (mix(seed() ^ mix(both)) << 40 | both).to_le_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (number, rest) = bytes.split_first_chunk().context("too short")?;
        let record = Self {
            writer: *rest.first().context("too short")?,
            number: u32::from_le_bytes(*number),
        };
        if bytes != record.to_bytes() {
            bail!("a damaged record: {bytes:02x?}");
        }
        Ok(record)
    }
}

/// Gives what was taken, in order.
fn write_records(stage: &Stage, thread: u64) -> Result<Vec<Record>> {
    let mut dice = thread_dice(thread);
    let mut ways = Ways::new()?;
    let mut file = File { fifo: None };
    let mut taken = Vec::new();
    let writer = u8::try_from(thread)?;
    let mut next = 0u32;
    while !stage.is_over() {
        let Some(fifo) = file.get(&mut dice, || stage.is_over())? else {
            break;
        };
        let sides = if dice.roll(8) == 0 { 600 } else { 16 };
        let records: Vec<Record> = (next..)
            .take(dice.size(sides) + 1)
            .map(|number| Record { writer, number })
            .collect();
        next += u32::try_from(records.len())?;
        let bytes: Vec<u8> = records
            .iter()
            .flat_map(|record| record.to_bytes())
            .collect();
        let outcome = ways.write(dice.way(), fifo, &bytes, dice.patience())?;
        match attempt(stage, outcome)? {
            Attempt::Done(count) => {
                check_eq!(count % RECORD, 0);
                taken.extend(records.iter().take(count / RECORD));
            }
            Attempt::Again => {}
            Attempt::Reopen => file.fifo = None,
        }
    }
    Ok(taken)
}

fn parse(bytes: &[u8], into: &mut Vec<Record>) -> Result<()> {
    check_eq!(bytes.len() % RECORD, 0);
    for record in bytes.chunks(RECORD) {
        let record = Record::from_bytes(record)?;
        if record.writer != NOBODY {
            into.push(record);
        }
    }
    Ok(())
}

/// Gives what was read, in order.
fn read_records(stage: &Stage, thread: u64) -> Result<Vec<Record>> {
    let mut dice = thread_dice(thread);
    let mut ways = Ways::new()?;
    let mut file = File { fifo: None };
    let mut read = Vec::new();
    while !stage.is_drained() {
        let Some(fifo) = file.get(&mut dice, || stage.is_drained())? else {
            break;
        };
        let length = RECORD * (dice.size(600) + 1);
        let outcome = ways.read(dice.way(), fifo, length, dice.patience())?;
        match attempt(stage, outcome)? {
            Attempt::Done(bytes) => {
                check!(!bytes.is_empty() && bytes.len() <= length);
                stage.moved.fetch_add(bytes.len() as u64, Ordering::SeqCst);
                parse(&bytes, &mut read)?;
            }
            Attempt::Again => {}
            Attempt::Reopen => file.fifo = None,
        }
    }
    Ok(read)
}

/// Whether each writer's numbers rise.
fn in_order(records: &[Record]) -> Result<()> {
    let mut last = std::collections::BTreeMap::new();
    for record in records {
        if last
            .insert(record.writer, record.number)
            .is_some_and(|before| before >= record.number)
        {
            bail!("{record:?} came after a later one, or twice");
        }
    }
    Ok(())
}

/// What was taken against what was read, and what clears can have discarded.
fn compare(taken: &[Vec<Record>], read: &[Vec<Record>], clears: usize) -> Result<()> {
    let mut seen = BTreeSet::new();
    for records in read {
        in_order(records)?;
        for record in records {
            if !seen.insert(*record) {
                bail!("{record:?} was read twice");
            }
        }
    }
    let mut lost = 0;
    for records in taken {
        let mut gaps = 0;
        let mut missing = false;
        for record in records {
            let found = seen.remove(record);
            gaps += usize::from(!found && !missing);
            lost += usize::from(!found);
            missing = !found;
        }
        // A clear discards what waits to be sent, and then what has arrived.
        if gaps > 2 * clears {
            bail!("{gaps} gaps by {clears} clears");
        }
    }
    if let Some(record) = seen.first() {
        bail!(
            "{} were read that no write had taken: {record:?}",
            seen.len()
        );
    }
    if lost * RECORD > 2 * CAPACITY * clears {
        bail!("{lost} lost by {clears} clears, which is more than they can");
    }
    Ok(())
}

fn spawn<T: Send + 'static>(
    stage: &Arc<Stage>,
    thread: u64,
    work: fn(&Stage, u64) -> Result<T>,
) -> JoinHandle<Result<T>> {
    let stage = stage.clone();
    thread::spawn(move || {
        let result = work(&stage, thread);
        if result.is_err() {
            // The others need not go on, and those that would wait for it must not.
            stage.over.store(true, Ordering::SeqCst);
        }
        result
    })
}

fn run_records(disturbers: &[fn(&Stage, u64) -> Result<()>]) -> Result<()> {
    let stage = Stage::new()?;
    let writers: Vec<_> = (10..14).map(|n| spawn(&stage, n, write_records)).collect();
    let readers: Vec<_> = (20..23).map(|n| spawn(&stage, n, read_records)).collect();
    let others: Vec<_> = (30..)
        .zip(disturbers)
        .map(|(n, work)| spawn(&stage, n, *work))
        .collect();
    stage.play(|| stage.has_moved((RECORDS * RECORD) as u64) && stage.has_cancelled());
    let others = join(others);
    let taken = join(writers);
    stage.drained.store(true, Ordering::SeqCst);
    let filler = Record {
        writer: NOBODY,
        number: 0,
    };
    wake_until(&filler.to_bytes(), || {
        readers.iter().all(JoinHandle::is_finished)
    })?;
    let mut read = join(readers)?;
    let (taken, _) = (taken?, others?);
    // What nobody came to.
    let fifo = Fifo::open(O_NONBLOCK)?;
    nix::unistd::fsync(&fifo)?;
    let mut rest = Vec::new();
    loop {
        let quiet = PollTimeout::from(500u16);
        if fifo.poll_for(PollFlags::POLLIN, quiet)?.is_empty() {
            break;
        }
        parse(&fifo.drain()?, &mut rest)?;
    }
    read.push(rest);
    let clears = stage.clears.load(Ordering::SeqCst);
    let records: usize = read.iter().map(Vec::len).sum();
    eprintln!("# bytes={}{stage}", records * RECORD);
    compare(&taken, &read, clears)?;
    // Some of everything must have been, or the test was none.
    check!(records > RECORDS);
    check!(stage.has_cancelled());
    check_eq!(system::counter(0, "protocol_errors")?, 0);
    Ok(())
}

fn many_streams() -> Result<()> {
    run_records(&[disturb, disturb])
}

fn many_streams_rebound() -> Result<()> {
    run_records(&[disturb, rebind])
}

fn all_at_once() -> Result<()> {
    run_records(&[disturb, rebind, clear, clear])
}
