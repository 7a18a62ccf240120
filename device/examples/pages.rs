// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Man pages and completions of the daemon, made from its command line, for those who package it:
//! `cargo run -p vhost-device-fifo --example pages -- DIR`.
//!
//! DIR gets `vhost-device-fifo.1` and a page for each subcommand, and completions under the names by
//! which bash, zsh and fish look for them.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;
use vhost_device_fifo::cli::Cli;

const PROGRAM: &str = "vhost-device-fifo";

/// Writes all of it to `dir`, which is made.
pub fn write(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let command = Cli::command().bin_name(PROGRAM);
    clap_mangen::generate_to(command.clone(), dir)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command.clone(), PROGRAM, dir)?;
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a program says what went wrong")]
fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let (Some(dir), true) = (args.pop(), args.is_empty()) else {
        eprintln!("usage: pages DIR");
        return ExitCode::from(2);
    };
    match write(Path::new(&dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pages: {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}
