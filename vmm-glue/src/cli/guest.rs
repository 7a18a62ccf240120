// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Options that several commands share: what a guest of the user's own consists of, and what a command in it is connected to.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::MachineArgs;
use crate::exit::usage;
use crate::options;
use crate::stages::Wanted;
use crate::stages::layer;
use crate::stages::programs::Need;
use crate::vm::config::Config;

/// A machine with what the user puts into it.
#[derive(Debug, Args)]
pub struct GuestArgs {
    #[command(flatten)]
    machine: MachineArgs,
    /// Show a folder of the host in the guest at /mnt/NAME, and start there; may be repeated. NAME is the folder's own unless given.
    #[arg(long, value_name = "[NAME=]DIR[:ro]")]
    share: Vec<OsString>,
    /// Add a Debian package to the guest's userland; may be repeated.
    #[arg(long, value_name = "PKG")]
    install: Vec<String>,
}

/// What a command in the guest is connected to.
#[derive(Debug, Args)]
pub struct StreamArgs {
    /// Set a variable for the command; without a value, to what it is here; may be repeated.
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Give the command a terminal in the guest, as the shell has one.
    #[arg(short, long)]
    pub terminal: bool,
    /// Read nothing from standard input: for a loop like `while read x; do cargo lab run -n -- …; done <list`.
    #[arg(short, long, conflicts_with = "terminal")]
    pub no_stdin: bool,
}

impl GuestArgs {
    /// The machine to start.
    pub fn config(&self) -> Result<Config> {
        let mut config = self.machine.config()?;
        config.shares = options::shares(&self.share)?;
        Ok(config)
    }

    /// What to set up for it.
    pub fn wanted(&self) -> Result<Wanted> {
        if let Some(bad) = self
            .install
            .iter()
            .find(|name| !layer::is_package_name(name))
        {
            return Err(usage(format!(
                "--install {bad}: not the name of a Debian package"
            )));
        }
        Ok(Wanted {
            install: self.install.clone(),
            driver: self.machine.driver()?,
            system: self.machine.system(),
            programs: Need::IfTheyBuild,
        })
    }

    /// How long the command may take.
    pub fn timeout(&self) -> Option<Duration> {
        self.machine.timeout()
    }
}

impl StreamArgs {
    /// Variables for the command.
    pub fn env(&self) -> Result<Vec<(String, String)>> {
        self.env.iter().map(|text| options::env(text)).collect()
    }
}
