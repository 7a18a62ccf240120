// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device with several FIFOs of different capacity. Runs with
//! `--fifo loopback --fifo loopback,capacity=65536 --fifo loopback,capacity=1`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use globalfifo_guest_tests::fifo::{Fifo, pattern};
use globalfifo_guest_tests::harness::{self, Test, eventually};
use globalfifo_guest_tests::{check, check_eq, system};
use nix::errno::Errno;
use nix::libc::O_NONBLOCK;
use nix::poll::PollFlags;

const TESTS: &[Test] = &[
    ("each_fifo_has_its_own_capacity", capacities),
    ("fifos_do_not_touch_each_other", independent),
    ("a_fifo_of_one_byte_works", one_byte),
    (
        "the_end_of_a_stream_of_small_writes_arrives_by_itself",
        end_of_stream,
    ),
    (
        "small_writes_that_follow_each_other_share_messages",
        shared_messages,
    ),
    ("unread_bytes_of_all_survive_unbind", survive),
];

fn main() -> ExitCode {
    harness::main(TESTS)
}

fn open(index: usize) -> Result<Fifo> {
    let fifo = Fifo::open_at(&format!("/dev/globalfifo{index}"), O_NONBLOCK)?;
    fifo.clear()?;
    Ok(fifo)
}

fn capacities() -> Result<()> {
    for (index, capacity) in [4096, 65536, 1].into_iter().enumerate() {
        let fifo = open(index)?;
        check_eq!(fifo.fill()?, capacity);
        fifo.wait_level(capacity)?;
        check_eq!(fifo.drain()?.len(), capacity);
        let bytes = pattern(u64::try_from(index)?, capacity);
        check_eq!(
            fifo.write(&[bytes.clone(), vec![0; 10]].concat()),
            Ok(capacity)
        );
        fifo.wait_level(capacity)?;
        check_eq!(fifo.drain()?, bytes);
    }
    Ok(())
}

fn independent() -> Result<()> {
    let (first, second) = (open(0)?, open(1)?);
    check_eq!(first.fill()?, 4096);
    check_eq!(second.events()?, PollFlags::POLLOUT);
    check_eq!(second.read(1), Err(Errno::EAGAIN));
    second.write_all(b"second")?;
    second.wait_level(6)?;
    first.clear()?;
    check_eq!(second.read(100), Ok(b"second".to_vec()));
    Ok(())
}

fn one_byte() -> Result<()> {
    let fifo = open(2)?;
    for byte in 0..200 {
        check_eq!(fifo.write(&[byte, byte]), Ok(1));
        check_eq!(fifo.write(&[byte]), Err(Errno::EAGAIN));
        fifo.wait_level(1)?;
        check_eq!(fifo.read(2), Ok(vec![byte]));
    }
    Ok(())
}

/// Writes of a stream, in rounds that stop at different places; of these the last is not followed by anything.
const ROUNDS: usize = 64;
/// See [`ROUNDS`].
const SIZE: usize = 60;

fn stream_of_round(round: usize) -> Result<Vec<u8>> {
    Ok(pattern(u64::try_from(round)?, (700 + round * 5) * SIZE))
}

/// Wherever a stream of small writes stops, the last one arrives though nothing comes after it (not even a read), and not by
/// the driver's watchdog, which checks once a second.
fn end_of_stream() -> Result<()> {
    let fifo = open(1)?;
    let count = |name| system::counter(1, name);
    let left_behind = count("left_behind")?;
    let mut waited = Duration::ZERO;
    for round in 0..ROUNDS {
        let bytes = stream_of_round(round)?;
        let expected = count("rx_bytes")? + u64::try_from(bytes.len())?;
        for piece in bytes.chunks(SIZE) {
            check_eq!(fifo.write(piece), Ok(SIZE));
        }
        let written = Instant::now();
        eventually("all of it arrives", || Ok(count("rx_bytes")? == expected))?;
        waited += written.elapsed();
        check!(fifo.read_exact(bytes.len())? == bytes);
    }
    check_eq!(count("left_behind")?, left_behind);
    check!(waited < Duration::from_millis(100) * u32::try_from(ROUNDS)?);
    Ok(())
}

/// Small writes that follow each other go together. Counted over all rounds: the first writes take longer than a message
/// waits, where code is translated as it is first run.
fn shared_messages() -> Result<()> {
    system::needs_fast_edition()?;
    // A message is held for a fixed time.
    system::needs_usual_speed()?;
    let fifo = open(1)?;
    let messages = || system::counter(1, "tx_messages");
    let before = messages()?;
    let mut writes = 0;
    for round in 0..ROUNDS {
        let bytes = stream_of_round(round)?;
        for piece in bytes.chunks(SIZE) {
            check_eq!(fifo.write(piece), Ok(SIZE));
            writes += 1;
        }
        fifo.wait_level(bytes.len())?;
        check!(fifo.read_exact(bytes.len())? == bytes);
    }
    let share = (messages()? - before, writes);
    check_eq!((share, share.0 <= share.1 / 4), (share, true));
    Ok(())
}

fn survive() -> Result<()> {
    let all = [pattern(1, 4096), pattern(2, 65536), pattern(3, 1)];
    for (index, bytes) in all.iter().enumerate() {
        open(index)?.write_all(bytes)?;
    }
    let device = system::device_name()?;
    system::unbind(&device)?;
    system::bind(&device)?;
    for (index, bytes) in all.iter().enumerate() {
        let path = format!("/dev/globalfifo{index}");
        system::wait_for_file(&path, true)?;
        let fifo = Fifo::open_at(&path, O_NONBLOCK)?;
        fifo.wait_level(bytes.len())?;
        check_eq!(&fifo.drain()?, bytes);
    }
    Ok(())
}
