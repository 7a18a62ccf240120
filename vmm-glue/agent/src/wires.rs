// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a command's streams are connected to on the way to the host. It must not know what carries them.

use std::io;

/// An output stream of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output, or a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The streams of one command.
pub trait Wires: Send + Sync + 'static {
    /// Reads input; 0 is its end. What was read before has been taken by the command.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of these bytes of output.
    fn write(&self, to: Output, bytes: &[u8]) -> io::Result<()>;
}
