// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line of `cargo lab module`.

use std::path::PathBuf;

use clap::Args;

use crate::stages::Arch;
use crate::stages::KernelChoice;
use crate::stages::KernelParser;

/// `cargo lab module`.
///
/// PATH is a .c or .rs file, which comes with the headers that it includes from its own folder, or a folder with a Kbuild or a Makefile. A
/// copy of it is built, in a sandbox: no network, no file of this machine's. Messages name your own files. What older kernels took and this one does not
/// is explained under the compiler's message.
#[derive(Debug, Args)]
pub struct ModuleArgs {
    /// A .c or .rs file, or a folder with a Kbuild or a Makefile.
    pub path: PathBuf,
    /// Where the module goes: a file, or a folder. Without it, the current folder.
    #[arg(short, value_name = "KO")]
    pub output: Option<PathBuf>,
    /// The architecture that it is built for, this machine's unless given.
    #[arg(long, value_enum, default_value_t)]
    pub arch: Arch,
    /// The kernel that it is built for.
    #[arg(long, value_name = "KERNEL", value_parser = KernelParser, default_value = "stock")]
    pub kernel: KernelChoice,
    /// Write compile_commands.json (clangd) and, for Rust, rust-project.json (rust-analyzer) beside the source instead of a module.
    #[arg(long, conflicts_with = "output")]
    pub compile_commands: bool,
}
