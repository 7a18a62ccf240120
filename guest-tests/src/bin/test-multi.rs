//! A device with several FIFOs of different capacity. Runs with
//! `--fifo loopback --fifo loopback,capacity=65536 --fifo loopback,capacity=1`.

use std::process::ExitCode;

use anyhow::Result;
use globalfifo_guest_tests::fifo::{Fifo, pattern};
use globalfifo_guest_tests::harness::{self, Test};
use globalfifo_guest_tests::{check_eq, system};
use nix::errno::Errno;
use nix::libc::O_NONBLOCK;
use nix::poll::PollFlags;

const TESTS: &[Test] = &[
    ("each_fifo_has_its_own_capacity", capacities),
    ("fifos_do_not_touch_each_other", independent),
    ("a_fifo_of_one_byte_works", one_byte),
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
