// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Programs of docs/languages.md in languages that the guest has: they check themselves, and end with PASS.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use globalfifo_guest_tests::check_eq;
use globalfifo_guest_tests::fifo::Fifo;
use globalfifo_guest_tests::harness::{self, Test};

const TESTS: &[Test] = &[("the_python_program_waits_polls_and_is_signalled", python)];

/// The program, as it is shown.
const PYTHON: &str = include_str!("../../languages/fifo.py");

fn main() -> ExitCode {
    harness::main(TESTS)
}

fn python() -> Result<()> {
    drop(Fifo::open_empty(0)?);
    let path = "/root/fifo.py";
    std::fs::write(path, PYTHON)?;
    let output = Command::new("python3")
        .arg(path)
        .output()
        .context("python3")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    check_eq!(
        (said.lines().last(), complaint.as_ref()),
        (Some("PASS"), "")
    );
    check_eq!(output.status.code(), Some(0));
    Ok(())
}
