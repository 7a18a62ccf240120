// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab` below fuzz/: cargo looks for the package `fifo-lab` in the workspace of the folder that it is called from, and this folder has
//! one of its own. Starts the lab itself. It must not know what the lab can do.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let err = Command::new(cargo)
        .args(["run", "--quiet", "--release", "--package", "fifo-lab"])
        .args([
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"),
            "--",
        ])
        .args(std::env::args_os().skip(1))
        .exec();
    eprintln!("lab: cannot start cargo: {err}");
    ExitCode::FAILURE
}
