// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Copying between a command's streams and the wires to the host, byte for byte.

use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use rustix::event::PollFd;
use rustix::event::PollFlags;

use fifo_lab_agent::frame::CHUNK;

use crate::wires::Output;
use crate::wires::Wires;

/// Copies a command's output to the host and returns how many bytes went. Ends at the end of file, or once `ended` is readable (the command has
/// exited) and what was written until then has been copied: a daemon left behind with the stream open does not hold the lab up.
pub fn out(from: File, wires: &impl Wires, to: Output, ended: &OwnedFd) -> u64 {
    let mut from = from;
    let mut sent = 0;
    let mut buffer = vec![0; CHUNK];
    while readable(&from, ended) {
        // A terminal whose last user has gone reads as EIO.
        let Ok(count @ 1..) = from.read(&mut buffer) else {
            break;
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        if wires.write(to, bytes).is_err() {
            break;
        }
        sent += count as u64;
    }
    sent
}

/// Waits for input; false when there is none and the command has ended.
fn readable(from: &File, ended: &OwnedFd) -> bool {
    loop {
        let mut fds = [
            PollFd::new(from, PollFlags::IN),
            PollFd::new(ended, PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
            Ok(_) => return fds.first().is_some_and(|fd| !fd.revents().is_empty()),
        }
    }
}

/// Copies what the host sends to a command's input until the host ends it or the command stops reading; dropping `to` tells the command.
pub fn input(wires: &impl Wires, to: OwnedFd) {
    let mut to = File::from(to);
    let mut buffer = vec![0; CHUNK];
    while let Ok(count @ 1..) = wires.read(&mut buffer) {
        let bytes = buffer.get(..count).unwrap_or_default();
        if to.write_all(bytes).is_err() {
            break;
        }
    }
}

/// As [`input`] for a terminal: at the host's end of file it types the end-of-file character.
pub fn terminal_input(wires: &impl Wires, master: &OwnedFd) {
    let Ok(to) = master.as_fd().try_clone_to_owned() else {
        return;
    };
    let Ok(last) = to.try_clone() else { return };
    input(wires, to);
    let key = fifo_lab_agent::end_of_file(last.as_fd());
    let _ = File::from(last).write_all(&[key]);
}
