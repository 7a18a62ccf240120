// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line of `cargo lab new`.

use std::path::PathBuf;

use clap::Args;
use clap::ValueEnum;

/// `cargo lab new`.
///
/// Makes the folder PATH with a driver that compiles, loads, and does nothing yet. What is missing is marked TODO(RULE), by the rule of
/// `cargo lab grade` that asks for it; `cargo lab grade PATH --next` names the first one. The folder's name becomes the module's.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// Folder to make: letters, digits, `_` and `-`, a letter first.
    #[arg(default_value = "my_fifo")]
    pub path: PathBuf,
    /// What it is written in.
    #[arg(long, value_enum, default_value = "c")]
    pub lang: Lang,
    /// Where the FIFO is.
    #[arg(long, value_enum, default_value = "memory")]
    pub kind: Kind,
}

/// Languages of a skeleton.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Lang {
    /// C.
    C,
    /// Rust, on the abstractions of guest-driver/kapi.
    Rust,
}

/// Kinds of drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// In the driver's own memory, as the chapter has it.
    Memory,
    /// In the virtio-fifo device, behind an interrupt.
    #[value(alias = "irq")]
    Device,
}
