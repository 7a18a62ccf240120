// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Children of the lab, and what keeps them from outliving it.
//!
//! The lab never forks and runs code in between. It starts *itself* with a [`Spec`], and that fresh, single-threaded process arranges its own
//! death with its parent, its process group and its namespaces, then executes the program.

mod environment;
mod inner;
mod logged;
pub mod raw;
mod running;
mod spec;

pub use self::inner::SUBCOMMAND;
pub use self::inner::main;
pub use self::logged::Captured;
pub use self::logged::Logged;
pub use self::logged::capture;
pub use self::logged::capture_watched;
pub use self::logged::output;
pub use self::running::Running;
pub use self::running::killed;
pub use self::running::shell_status;
pub use self::spec::Bind;
pub use self::spec::Environment;
pub use self::spec::Overlay;
pub use self::spec::Place;
pub use self::spec::Spec;
pub use self::spec::View;

use std::os::fd::AsFd;

use anyhow::Context;
use anyhow::Result;
use rustix::io::FdFlags;

/// Every child started from here on has this open, too.
pub fn inherit(fd: impl AsFd) -> Result<()> {
    rustix::io::fcntl_setfd(fd, FdFlags::empty()).context("cannot pass a descriptor on to children")
}
