// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cycles [UNBINDS [UNLOADS]]`: the driver comes and goes under load, 100 and 20 times where nothing is
//! said, and the kernel's memory is compared. Prints the figures; fails if something was left behind.

use std::env;
use std::io::{Write, stdout};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use globalfifo_guest_tests::cycles;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "cycles: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let numbers = env::args().skip(1).map(|text| {
        text.parse::<u64>()
            .with_context(|| format!("{text:?} is no number: cycles [UNBINDS [UNLOADS]]"))
    });
    let numbers = numbers.collect::<Result<Vec<_>>>()?;
    ensure!(numbers.len() <= 2, "usage: cycles [UNBINDS [UNLOADS]]");
    let unbinds = numbers.first().copied().unwrap_or(100);
    let unloads = numbers.get(1).copied().unwrap_or(20);
    let started = Instant::now();
    let report = cycles::run(unbinds, unloads, |cycle| {
        if cycle % 50 == 0 {
            let seconds = started.elapsed().as_secs();
            let _ = writeln!(stdout(), "{cycle} cycles in {seconds} s");
        }
    })?;
    write!(stdout(), "{report}")?;
    report.check()
}
