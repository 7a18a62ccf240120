// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The last step before a guest command: a session of its own, its terminal if it has one, then `exec`.
//!
//! A process of its own does this, so that nothing has to run between fork and exec.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::process::ExitCode;

/// First argument that selects this part of the program.
pub const SUBCOMMAND: &str = "exec";

/// `exec TTY PROGRAM ARG…`; TTY is `-` when the streams are already in place. Returns only on failure, with the status a shell would give.
pub fn exec(args: Vec<OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let (Some(tty), Some(program)) = (args.next(), args.next()) else {
        return ExitCode::from(127);
    };
    if let Err(err) = start_session(&tty) {
        eprintln!("lab: cannot give the command a session of its own: {err}");
        return ExitCode::from(126);
    }
    let err = Command::new(&program).args(args).exec();
    if err.kind() == io::ErrorKind::NotFound {
        eprintln!("lab: {}: not found in the guest", program.display());
        ExitCode::from(127)
    } else {
        eprintln!("lab: {}: {err}", program.display());
        ExitCode::from(126)
    }
}

fn start_session(tty: &OsString) -> io::Result<()> {
    rustix::process::setsid()?;
    if tty == "-" {
        return Ok(());
    }
    // The first terminal that a session's leader opens becomes its controlling terminal.
    let tty = File::options().read(true).write(true).open(tty)?;
    rustix::stdio::dup2_stdin(&tty)?;
    rustix::stdio::dup2_stdout(&tty)?;
    rustix::stdio::dup2_stderr(&tty)?;
    Ok(())
}
