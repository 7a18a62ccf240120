// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab soak`: everything at once for some minutes, and an account of it.
//!
//! Three parties, each with dice of its own from one seed: the guest's program `soak` (all kinds of I/O with cancels, clears, unbinding,
//! unloading), the host's end of a FIFO ([`traffic`]), and somebody who has things go wrong ([`faults`]) through the daemon's control
//! socket. Only faults that a driver can get over are among them, so nothing may be lost; [`account`] says whether it was.
//! This module must not know what the guest's program does: it reads its lines.

pub mod account;
pub mod faults;
pub mod traffic;

use std::path::Path;

use crate::escape;

/// A FIFO for `--fifo` at this path.
pub fn fifo_at(path: &Path) -> String {
    let path = escape::fifo_spec(path);
    format!("unix={},capacity=16K", path.to_string_lossy())
}
