// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A VMM and a driver for a device that runs: `echo SOCKET NUM_FIFOS FIFO` writes to a FIFO that gives back what it
//! gets, reads it, resets the device, and does it again.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program says what it found"
)]

use std::path::Path;
use std::process::ExitCode;

use fifo_testdriver::Driver;
use fifo_testdriver::FEATURES;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let numbers = args.get(1).zip(args.get(2));
    let numbers =
        numbers.and_then(|(count, fifo)| count.parse::<u16>().ok().zip(fifo.parse().ok()));
    let (Some(socket), Some((count, fifo))) =
        (args.first(), numbers.filter(|(count, fifo)| fifo < count))
    else {
        eprintln!("usage: echo SOCKET NUM_FIFOS FIFO");
        return ExitCode::from(2);
    };
    let mut driver = Driver::connect(Path::new(socket), count, FEATURES);
    driver.start(&[]);
    driver.init();
    driver.check_serves(fifo);
    driver.reset();
    driver.check_serves(fifo);
    println!("FIFO {fifo} of {socket} serves, and again after a reset");
    ExitCode::SUCCESS
}
