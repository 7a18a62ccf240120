// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! FIFOs that end at sockets, terminals and files on the host, where the lab does what these tests say
//! (vmm-glue/src/testing/peer.rs). Runs with the FIFOs of the suite "endpoints".

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use globalfifo_guest_tests::aio::{Context, Iocb};
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo, pattern};
use globalfifo_guest_tests::harness::{self, SOON, Test, eventually};
use globalfifo_guest_tests::signals::{self, POLL_HUP, POLL_IN};
use globalfifo_guest_tests::{check, check_eq, splitmix, system};
use nix::errno::Errno;
use nix::libc::{self, O_NONBLOCK};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const TESTS: &[Test] = &[
    // First, for it is the first peer that it is about.
    ("a_fifo_waits_for_its_first_peer", first_peer),
    ("hello_is_one_signal_and_five_bytes_and_back", hello),
    (
        "a_half_closed_peer_is_an_end_of_data_that_still_takes_writes",
        half_close,
    ),
    ("a_hang_up_drains_then_ends", hang_up),
    ("a_hang_up_ends_blocked_calls", hang_up_of_calls),
    ("a_hang_up_ends_waiting_requests", hang_up_of_requests),
    ("the_next_peer_ends_the_hang_up", next_peer),
    ("a_peer_that_floods_waits", flood),
    ("a_peer_that_stalls_stops_writes", stall),
    ("bytes_wait_for_the_next_peer", kept_bytes),
    ("a_fifo_that_connects_finds_its_peer_again", connect),
    ("a_terminal_is_a_raw_line_that_comes_and_goes", terminal),
    ("a_file_gets_what_is_written_and_its_input_ends", file),
    (
        "a_full_disk_is_eio_until_the_driver_is_bound_anew",
        full_disk,
    ),
    ("a_pattern_is_read_and_demanded", pattern_stream),
    ("nothing_breaks_the_protocol", no_errors),
];

const DATA: &str = "/dev/globalfifo0";
const CONNECTING: &str = "/dev/globalfifo1";
const TERMINAL: &str = "/dev/globalfifo2";
const FILE: &str = "/dev/globalfifo3";
const FULL: &str = "/dev/globalfifo4";
const PATTERN: &str = "/dev/globalfifo5";
const ORDERS: &str = "/dev/globalfifo6";
const FIFOS: usize = 7;

/// Long enough for what should not happen to have happened.
const QUIET: Duration = Duration::from_millis(300);

/// `POLLRDHUP`, which the nix crate does not know.
const POLLRDHUP: PollFlags = PollFlags::from_bits_retain(0x2000);

fn main() -> ExitCode {
    harness::main(TESTS)
}

/// The host's side, which obeys.
struct Peer {
    orders: File,
    answers: BufReader<File>,
}

impl Peer {
    /// A peer with nothing open.
    fn new() -> Result<Self> {
        let orders = File::options().read(true).write(true).open(ORDERS)?;
        let answers = BufReader::new(orders.try_clone()?);
        let mut peer = Self { orders, answers };
        peer.order("close")?;
        Ok(peer)
    }

    /// A peer that is connected to the first FIFO, which is empty.
    fn connected() -> Result<(Self, Fifo)> {
        let mut peer = Self::new()?;
        let fifo = Fifo::open_at(DATA, O_NONBLOCK)?;
        peer.order("connect data")?;
        no_hang_up(&fifo)?;
        fifo.clear()?;
        Ok((peer, fifo))
    }

    fn order(&mut self, order: &str) -> Result<String> {
        writeln!(self.orders, "{order}").context("ordering")?;
        // By an interrupt, which tells of all queues: a read alone may see the answer before, and what the
        // device has told earlier would be on its way still.
        let mut answers = [PollFd::new(
            self.answers.get_ref().as_fd(),
            PollFlags::POLLIN,
        )];
        poll(&mut answers, PollTimeout::NONE).context("waiting for the answer")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).context("the answer")?;
        match answer.trim_end().strip_prefix("ok") {
            Some(answer) => Ok(answer.trim_start().to_owned()),
            None => bail!("order '{order}': {answer}"),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.order(&format!("send {hex}")).map(drop)
    }

    fn read(&mut self, count: usize) -> Result<Vec<u8>> {
        from_hex(&self.order(&format!("read {count}"))?)
    }
}

fn from_hex(hex: &str) -> Result<Vec<u8>> {
    (0..hex.len())
        .step_by(2)
        .map(|at| {
            let byte = hex.get(at..at + 2).context("half a byte")?;
            Ok(u8::from_str_radix(byte, 16)?)
        })
        .collect()
}

/// Waits until poll tells of `events`; all that it tells then.
fn wait_for(fifo: &Fifo, events: PollFlags) -> Result<PollFlags> {
    let mut now = PollFlags::empty();
    eventually(&format!("{events:?}"), || {
        let asked = PollFlags::POLLIN | PollFlags::POLLOUT | POLLRDHUP;
        now = fifo.poll_for(asked, PollTimeout::ZERO)?;
        Ok(now.contains(events))
    })?;
    Ok(now)
}

fn no_hang_up(fifo: &Fifo) -> Result<()> {
    eventually("the hang-up is over", || {
        Ok(!fifo.events()?.intersects(PollFlags::POLLHUP | POLLRDHUP))
    })
}

fn first_peer() -> Result<()> {
    let mut peer = Peer::new()?;
    let fifo = Fifo::open_at(DATA, O_NONBLOCK)?;
    check_eq!(fifo.events()?, PollFlags::POLLOUT);
    check_eq!(fifo.read(1), Err(Errno::EAGAIN));
    check_eq!(fifo.write(b"stored"), Ok(6));
    peer.order("connect data")?;
    check_eq!(peer.read(6)?, b"stored");
    Ok(())
}

fn hello() -> Result<()> {
    let (mut peer, fifo) = Peer::connected()?;
    let signal = libc::SIGRTMIN() + 3;
    signals::block(signal)?;
    fifo.enable_signals(Some(signal))?;
    peer.send(b"hello")?;
    let got = signals::take(signal, SOON)?.context("no signal")?;
    check_eq!((got.code, got.fd), (POLL_IN, fifo.fd()));
    check_eq!(fifo.read(100), Ok(b"hello".to_vec()));
    check_eq!(signals::take(signal, QUIET)?, None);
    check_eq!(fifo.write(b"and back"), Ok(8));
    check_eq!(peer.read(8)?, b"and back");
    check_eq!(signals::take(signal, QUIET)?, None);
    peer.order("close")?;
    let got = signals::take(signal, SOON)?.context("no signal")?;
    check_eq!((got.code, got.fd), (POLL_HUP, fifo.fd()));
    Ok(())
}

/// What socat does: it has said all, and waits for an answer.
fn half_close() -> Result<()> {
    let (mut peer, fifo) = Peer::connected()?;
    let signal = libc::SIGRTMIN() + 3;
    signals::block(signal)?;
    peer.send(b"question")?;
    fifo.wait_level(8)?;
    fifo.enable_signals(Some(signal))?;
    peer.order("shutdown")?;
    let got = signals::take(signal, SOON)?.context("no signal")?;
    check_eq!((got.code, got.fd), (POLL_HUP, fifo.fd()));
    let events = wait_for(&fifo, PollFlags::POLLIN | POLLRDHUP)?;
    check!(!events.contains(PollFlags::POLLHUP));
    check!(events.contains(PollFlags::POLLOUT));
    check_eq!(fifo.read(100), Ok(b"question".to_vec()));
    check_eq!(fifo.read(100), Ok(Vec::new()));
    check_eq!(fifo.write(b"answer"), Ok(6));
    check_eq!(peer.read(6)?, b"answer");
    peer.order("close")?;
    wait_for(&fifo, PollFlags::POLLHUP)?;
    check_eq!(fifo.read(100), Ok(Vec::new()));
    check_eq!(fifo.write(b"x"), Err(Errno::EPIPE));
    Ok(())
}

fn hang_up() -> Result<()> {
    let (mut peer, fifo) = Peer::connected()?;
    let bytes = pattern(1, CAPACITY);
    peer.send(&bytes)?;
    peer.order("close")?;
    let events = wait_for(&fifo, PollFlags::POLLHUP | POLLRDHUP)?;
    check!(events.contains(PollFlags::POLLIN));
    fifo.wait_level(CAPACITY)?;
    check_eq!(fifo.read_exact(CAPACITY)?, bytes);
    check_eq!(fifo.read(100), Ok(Vec::new()));
    check_eq!(fifo.read(100), Ok(Vec::new()));
    check_eq!(fifo.write(b"x"), Err(Errno::EPIPE));
    Ok(())
}

fn hang_up_of_calls() -> Result<()> {
    let (mut peer, fifo) = Peer::connected()?;
    let reader = thread::spawn(|| Ok(Fifo::open_at(DATA, 0)?.read(100)?));
    // More than all buffers between here and there.
    let writer = thread::spawn(|| -> Result<_> {
        let fifo = Fifo::open_at(DATA, 0)?;
        loop {
            if let Err(errno) = fifo.write(&[7; CAPACITY]) {
                return Ok(errno);
            }
        }
    });
    eventually("the writer has no room", || full(&fifo))?;
    peer.order("close")?;
    check_eq!(joined(reader)?, Vec::<u8>::new());
    check_eq!(joined(writer)?, Errno::EPIPE);
    fifo.clear()?;
    Ok(())
}

fn joined<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    match thread.join() {
        Ok(result) => result,
        Err(_) => bail!("a thread has panicked"),
    }
}

/// Whether there is no room, and stays none.
fn full(fifo: &Fifo) -> Result<bool> {
    let events = fifo.poll_for(PollFlags::POLLOUT, PollTimeout::from(100_u8))?;
    Ok(!events.contains(PollFlags::POLLOUT))
}

/// Writes until nothing moves any more; how much it took.
fn fill(fifo: &Fifo, peer: &mut Peer) -> Result<usize> {
    let mut count = 0;
    loop {
        match fifo.write(&[b'g'; 1024]) {
            Ok(written) => count += written,
            Err(Errno::EAGAIN) => {
                // An answer comes by the same loop that would have moved something meanwhile.
                for _ in 0..3 {
                    peer.order("answer")?;
                }
                if !fifo.events()?.contains(PollFlags::POLLOUT) {
                    return Ok(count);
                }
            }
            Err(errno) => return Err(errno).context("writing"),
        }
    }
}

fn hang_up_of_requests() -> Result<()> {
    let (mut peer, fifo) = Peer::connected()?;
    let blocking = Fifo::open_at(DATA, 0)?;
    fill(&fifo, &mut peer)?;
    let aio = Context::new(2)?;
    let mut buffer = [0; 100];
    let bytes = [7; 100];
    let mut read = Iocb::read(&blocking, &mut buffer).data(1);
    let mut write = Iocb::write(&blocking, &bytes).data(2);
    aio.submit(&mut read)?;
    aio.submit(&mut write)?;
    check!(aio.events(0, 2, QUIET)?.is_empty());
    peer.order("close")?;
    let results = aio.results(2)?;
    check_eq!(results.get(&1), Some(&0));
    check_eq!(results.get(&2), Some(&-i64::from(libc::EPIPE)));
    fifo.clear()?;
    Ok(())
}

fn next_peer() -> Result<()> {
    let (mut peer, fifo) = Peer::connected()?;
    for round in 0..20_u8 {
        peer.order("close")?;
        wait_for(&fifo, PollFlags::POLLHUP)?;
        peer.order("connect data")?;
        no_hang_up(&fifo)?;
        check_eq!(fifo.read(1), Err(Errno::EAGAIN));
        peer.send(&[round])?;
        wait_for(&fifo, PollFlags::POLLIN)?;
        check_eq!(fifo.read(9), Ok(vec![round]));
        fifo.write_all(&[round])?;
        check_eq!(peer.read(1)?, [round]);
    }
    Ok(())
}

fn flood() -> Result<()> {
    let (mut peer, fifo) = Peer::connected()?;
    let mut count: usize = peer.order("flood")?.parse()?;
    fifo.wait_level(CAPACITY)?;
    count += peer.order("flood")?.parse::<usize>()?;
    check!(count > CAPACITY);
    check_eq!(fifo.level()?, CAPACITY);
    // The other FIFOs go on meanwhile: the orders came through one of them.
    let blocking = Fifo::open_at(DATA, 0)?;
    check!(blocking.read_exact(count)?.iter().all(|byte| *byte == b'f'));
    check_eq!(fifo.read(1), Err(Errno::EAGAIN));
    Ok(())
}

fn stall() -> Result<()> {
    let (mut peer, fifo) = Peer::connected()?;
    let count = fill(&fifo, &mut peer)?;
    check!(count > CAPACITY);
    check_eq!(fifo.write(b"x"), Err(Errno::EAGAIN));
    let mut left = count;
    while left > 0 {
        let part = peer.read(left.min(CAPACITY))?;
        check!(part.iter().all(|byte| *byte == b'g'));
        left -= part.len();
    }
    wait_for(&fifo, PollFlags::POLLOUT)?;
    Ok(())
}

fn kept_bytes() -> Result<()> {
    let (mut peer, fifo) = Peer::connected()?;
    let count = fill(&fifo, &mut peer)?;
    peer.order("close")?;
    wait_for(&fifo, PollFlags::POLLHUP)?;
    peer.order("connect data")?;
    // What was in the first peer's buffer is gone with it; what was in the FIFO is not.
    check!(count >= CAPACITY);
    check_eq!(peer.read(CAPACITY)?, vec![b'g'; CAPACITY]);
    no_hang_up(&fifo)
}

fn connect() -> Result<()> {
    let mut peer = Peer::new()?;
    let fifo = Fifo::open_at(CONNECTING, O_NONBLOCK)?;
    check_eq!(fifo.events()?, PollFlags::POLLOUT);
    for round in 0..3_u8 {
        peer.order("listen theirs")?;
        peer.order("accept")?;
        no_hang_up(&fifo)?;
        fifo.write_all(&[round; 10])?;
        check_eq!(peer.read(10)?, [round; 10]);
        peer.send(&[round])?;
        wait_for(&fifo, PollFlags::POLLIN)?;
        check_eq!(fifo.read(9), Ok(vec![round]));
        peer.order("close")?;
        wait_for(&fifo, PollFlags::POLLHUP)?;
        check_eq!(fifo.read(9), Ok(Vec::new()));
    }
    Ok(())
}

fn terminal() -> Result<()> {
    let mut peer = Peer::new()?;
    let fifo = Fifo::open_at(TERMINAL, O_NONBLOCK)?;
    check_eq!(fifo.events()?, PollFlags::POLLOUT);
    let every: Vec<u8> = (0..=255).collect();
    fifo.write_all(&every)?;
    for _ in 0..3 {
        peer.order("open tty")?;
        check_eq!(peer.read(256)?, every);
        no_hang_up(&fifo)?;
        peer.send(&every)?;
        fifo.wait_level(256)?;
        check_eq!(fifo.read(1000), Ok(every.clone()));
        peer.send(b"last words")?;
        peer.order("close")?;
        wait_for(&fifo, PollFlags::POLLHUP)?;
        fifo.wait_level(10)?;
        check_eq!(fifo.read(100), Ok(b"last words".to_vec()));
        check_eq!(fifo.read(100), Ok(Vec::new()));
        check_eq!(fifo.write(b"x"), Err(Errno::EPIPE));
        peer.order("open tty")?;
        no_hang_up(&fifo)?;
        fifo.write_all(&every)?;
    }
    Ok(())
}

fn file() -> Result<()> {
    let mut peer = Peer::new()?;
    let fifo = Fifo::open_at(FILE, 0)?;
    let events = wait_for(&fifo, PollFlags::POLLIN | POLLRDHUP)?;
    check!(!events.contains(PollFlags::POLLHUP));
    check_eq!(fifo.read(100), Ok(Vec::new()));
    let bytes = pattern(3, 3 * CAPACITY);
    fifo.write_all(&bytes)?;
    eventually("all is in the file", || {
        Ok(peer.order("contents log")?.len() >= 2 * bytes.len())
    })?;
    check_eq!(from_hex(&peer.order("contents log")?)?, bytes);
    Ok(())
}

fn full_disk() -> Result<()> {
    let device = system::device_name()?;
    for _ in 0..2 {
        let fifo = Fifo::open_at(FULL, O_NONBLOCK)?;
        // Accepted by the device, which keeps it.
        let _ = fifo.write(b"precious");
        wait_for(&fifo, PollFlags::POLLERR)?;
        check_eq!(fifo.read(1), Err(Errno::EIO));
        check_eq!(fifo.write(b"x"), Err(Errno::EIO));
        drop(fifo);
        system::unbind(&device)?;
        system::bind(&device)?;
        system::wait_for_file(FULL, true)?;
    }
    // It was to blame alone.
    fs::metadata(ORDERS)?;
    Peer::new()?;
    Ok(())
}

fn pattern_stream() -> Result<()> {
    let fifo = Fifo::open_at(PATTERN, 0)?;
    let expected: Vec<u8> = splitmix::bytes(7, 0, 10 * CAPACITY).collect();
    check_eq!(fifo.read_exact(expected.len())?, expected);
    fifo.write_all(&expected)?;
    check_eq!(fifo.events()? & PollFlags::POLLERR, PollFlags::empty());
    fifo.write_all(b"wrong")?;
    wait_for(&fifo, PollFlags::POLLERR)?;
    check_eq!(fifo.write(b"x"), Err(Errno::EIO));
    Ok(())
}

/// The driver found nothing wrong but the errors that it was told of.
fn no_errors() -> Result<()> {
    for index in 0..FIFOS {
        let errors = system::counter(index, "protocol_errors")?;
        check!(errors == 0 || matches!(index, 4 | 5));
    }
    Ok(())
}
