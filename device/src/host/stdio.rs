// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Standard input and output as files that never wait.
//!
//! A flag of an open file is everybody's who has it open: a shell whose terminal did not wait any
//! more would be lost. So what has a name in /proc is opened a second time. It must not know FIFOs.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::FcntlArg;
use nix::fcntl::OFlag;
use nix::fcntl::fcntl;

/// Standard input, of which reads do not wait.
pub fn input() -> io::Result<File> {
    without_waiting(&io::stdin(), OpenOptions::new().read(true))
}

/// Standard output, of which writes do not wait.
pub fn output() -> io::Result<File> {
    without_waiting(&io::stdout(), OpenOptions::new().write(true))
}

fn without_waiting(stream: &(impl AsFd + AsRawFd), options: &mut OpenOptions) -> io::Result<File> {
    let copy = File::from(stream.as_fd().try_clone_to_owned()?);
    // A file of a disk never waits, and has a position that a second one would not share.
    if copy.metadata()?.is_file() {
        return Ok(copy);
    }
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let name = format!("/proc/self/fd/{}", stream.as_raw_fd());
    if let Ok(own) = options.custom_flags(flags.bits()).open(name) {
        return Ok(own);
    }
    // A socket, or something that is no longer this user's: whoever shares it must not mind.
    let flags = OFlag::from_bits_retain(fcntl(&copy, FcntlArg::F_GETFL)?);
    fcntl(&copy, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(copy)
}
