// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `bench TASK`: one measurement of `cargo lab bench`. TASK is JSON, and so are the lines it prints:
//! see globalfifo-bench-protocol.

use std::process::ExitCode;

use anyhow::{Context, Result};
use globalfifo_guest_tests::bench;

/// Beyond the time that a task is given, set-up may take this long; then SIGALRM ends the program.
const PATIENCE_SECONDS: u64 = 30;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let task = std::env::args().nth(1).context("usage: bench TASK")?;
    let task: globalfifo_bench_protocol::Task =
        serde_json::from_str(&task).with_context(|| format!("{task} is no task"))?;
    let limit = PATIENCE_SECONDS + task.millis / 1000;
    nix::unistd::alarm::set(u32::try_from(limit)?);
    bench::run(&task)
}
