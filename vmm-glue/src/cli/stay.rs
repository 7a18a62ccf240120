// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Arguments of the commands for a machine that stays.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::GuestArgs;
use super::StreamArgs;
use crate::exit::usage;
use crate::stay::registry;
use crate::vm::config::Config;

/// `cargo lab up`.
///
/// The machine stays when the command has ended: `cargo lab exec` runs commands in it, `cargo lab down` ends it, and it ends by itself when
/// nobody has used it for the time of --idle.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// What it is called.
    #[arg(default_value = registry::USUAL, value_parser = registry::name)]
    pub name: String,
    /// End it when no command has run for this long, like 30m or 2h.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = idle)]
    pub idle: Duration,
    #[command(flatten)]
    pub guest: GuestArgs,
}

/// `cargo lab exec`.
///
/// The command's status is the lab's, as with `run`; 125 means that the machine is not there or failed. Ctrl-C goes to the command alone; a
/// second one ends the lab and with it the command.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// The machine.
    #[arg(default_value = registry::USUAL, value_parser = registry::name)]
    pub name: String,
    #[command(flatten)]
    pub streams: StreamArgs,
    /// The command and its arguments, as they are; without it, a shell.
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// `cargo lab down`.
#[derive(Debug, Args)]
pub struct DownArgs {
    /// The machine.
    #[arg(default_value = registry::USUAL, value_parser = registry::name, conflicts_with = "all")]
    pub name: String,
    /// All machines.
    #[arg(long)]
    pub all: bool,
}

/// `cargo lab console`.
#[derive(Debug, Args)]
pub struct ConsoleArgs {
    /// The machine.
    #[arg(default_value = registry::USUAL, value_parser = registry::name)]
    pub name: String,
    /// Go on with what the kernel says until the machine ends.
    #[arg(short, long)]
    pub follow: bool,
}

impl UpArgs {
    /// The machine to start.
    pub fn config(&self) -> Result<Config> {
        if self.guest.timeout().is_some() {
            return Err(usage(
                "--timeout is for one command: a machine that stays has --idle",
            ));
        }
        let mut config = self.guest.config()?;
        config.stays = Some(self.idle);
        Ok(config)
    }
}

fn idle(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(365 * 24 * 3600);
    humantime::parse_duration(text)
        .ok()
        .filter(|time| (Duration::from_secs(1)..=longest).contains(time))
        .ok_or_else(|| "give a time from 1s to 365d, like 90s, 30m or 2h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_time_has_a_unit_and_is_at_least_a_second() {
        assert_eq!(idle("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(idle("1h 30m").unwrap(), Duration::from_secs(5400));
        for bad in ["", "5", "0s", "10ms", "2y", "-1h"] {
            assert!(idle(bad).is_err(), "{bad}");
        }
    }
}
