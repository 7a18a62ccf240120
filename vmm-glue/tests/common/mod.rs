// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Running the lab from tests.

use std::process::Command;

/// The lab's program.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fifo-lab"));
    command.args(args);
    command
}
