// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Exit statuses, and the error that carries one.
//!
//! Usage is 2 and failure before a guest is started 1. From the moment a machine is being started the lab's own failures are 125, so that a
//! script can tell them from the guest command's statuses, as `docker run` and `env` do. A signal that ended the lab is 128 + n.

use std::fmt;

/// The command line, or a file that it names, is wrong.
pub const USAGE: u8 = 2;
/// Something could not be set up.
pub const FAILURE: u8 = 1;
/// The virtual machine, not the command in it, failed: panic, hang, time limit.
pub const MACHINE: u8 = 125;

/// The user has left a command by the keys for that, as by Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// An error with an exit status of its own; any other error is a [`FAILURE`].
#[derive(Debug, Clone)]
pub struct Exit {
    /// The exit status.
    pub status: u8,
    /// What to tell the user; empty when everything has been said.
    pub message: String,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}

/// A mistake on the command line.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    Exit {
        status: USAGE,
        message: message.into(),
    }
    .into()
}

/// A failure of the machine.
pub fn machine(message: impl Into<String>) -> anyhow::Error {
    Exit {
        status: MACHINE,
        message: message.into(),
    }
    .into()
}

/// A failure of the machine, unless the error already has a status.
pub fn as_machine(err: anyhow::Error) -> anyhow::Error {
    if err.chain().any(<dyn std::error::Error>::is::<Exit>) {
        err
    } else {
        machine(format!("{err:#}"))
    }
}

/// The status for an error, and what to print.
pub fn of(err: &anyhow::Error) -> (u8, String) {
    match err.chain().find_map(|cause| cause.downcast_ref::<Exit>()) {
        Some(exit) if exit.message.is_empty() => (exit.status, String::new()),
        Some(exit) => (exit.status, format!("{err:#}")),
        None => (FAILURE, format!("{err:#}")),
    }
}
