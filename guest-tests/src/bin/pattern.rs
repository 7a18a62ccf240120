// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The other side of a `pattern` FIFO: makes its stream, or checks that standard input is it.
//!
//! `pattern SEED COUNT [POSITION] > /dev/globalfifo` writes COUNT bytes of the stream of SEED, from POSITION on;
//! `pattern --check SEED COUNT [POSITION] < /dev/globalfifo` reads as many and compares them.

use std::env;
use std::io::{BufWriter, Read, Write, stdin, stdout};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use globalfifo_guest_tests::splitmix;

const USAGE: &str = "usage: pattern [--check] SEED COUNT [POSITION]";

fn main() -> ExitCode {
    let mut words: Vec<String> = env::args().skip(1).collect();
    let check = words.first().is_some_and(|word| word == "--check");
    if check {
        words.remove(0);
    }
    let numbers: Result<Vec<u64>, _> = words.iter().map(|word| word.parse()).collect();
    let (seed, count, position) = match numbers.as_deref() {
        Ok(&[seed, count]) => (seed, count, 0),
        Ok(&[seed, count, position]) => (seed, count, position),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let result = if check {
        compare(seed, count, position)
    } else {
        make(seed, count, position)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pattern: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn make(seed: u64, count: u64, position: u64) -> Result<()> {
    let mut out = BufWriter::with_capacity(65_536, stdout().lock());
    for byte in splitmix::bytes(seed, position, usize::try_from(count)?) {
        out.write_all(&[byte]).context("writing")?;
    }
    out.flush().context("writing")
}

fn compare(seed: u64, count: u64, position: u64) -> Result<()> {
    let mut expected = (position..).zip(splitmix::bytes(seed, position, usize::try_from(count)?));
    let mut left = usize::try_from(count)?;
    let mut part = vec![0; 65_536];
    while left > 0 {
        let most = left.min(part.len());
        let got = stdin()
            .read(part.get_mut(..most).unwrap_or(&mut []))
            .context("reading")?;
        if got == 0 {
            bail!("it ends {left} bytes early");
        }
        left -= got;
        for found in part.iter().take(got) {
            let Some((at, wanted)) = expected.next() else {
                break;
            };
            if *found != wanted {
                bail!("byte {at} is {found:#04x} and should be {wanted:#04x}");
            }
        }
    }
    Ok(())
}
