// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line of `cargo lab bench`.

use std::num::NonZeroU8;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::machine::qemu_is_there;
use super::minutes;
use crate::bench::plan::Extent;
use crate::options;
use crate::stages::Edition;
use crate::stages::System;
use crate::vm::config::AccelChoice;
use crate::vm::config::Config;

/// `cargo lab bench`.
///
/// Everything is measured in the same boot, peers in turn, in five rounds; ratios are of the same round. A goal is met or missed if the 95 %
/// confidence interval of its median ratio is on one side of the limit. Goals that are undecided get more rounds, in blocks of five, until
/// they are decided or a bound is reached. The status is 1 if a goal is missed, and 0 if none is: an undecided goal is told, and no failure.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Only what the goals need: two minutes, up to five if goals are undecided.
    #[arg(long)]
    quick: bool,
    /// Measure only what has this in its name, like round-trip/64/ or /vsock; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    pub only: Vec<String>,
    /// Most rounds to decide a goal with; fewer than 5 decide none. [default: 20]
    #[arg(long, value_name = "N")]
    rounds: Option<NonZeroU8>,
    /// Measure rounds for so many minutes at most; 0.5 is half of one. [default: 30, quick: 5]
    #[arg(long, value_name = "N", value_parser = minutes)]
    max_minutes: Option<Duration>,
    /// Say what is faster or slower than in an earlier run: the folder of its bench.json.
    #[arg(long, value_name = "DIR")]
    pub baseline: Option<PathBuf>,
    /// Trace round trips of 64 bytes as well, in a boot of their own, and link the median one and the worst one from bench.html.
    #[arg(long)]
    pub trace: bool,
    /// Where bench.json, bench.csv and bench.html are written.
    #[arg(long, value_name = "DIR", default_value = "bench-results")]
    pub out: PathBuf,
    /// Bytes that the compared FIFOs hold; K and M are understood.
    #[arg(long, value_name = "BYTES", default_value = "1M", value_parser = options::capacity)]
    capacity: String,
    /// CPUs of the guest.
    #[arg(long, value_name = "N", default_value = "1")]
    smp: NonZeroU8,
    /// How the guest's CPUs are made.
    #[arg(long, value_enum, default_value = "auto")]
    accel: AccelChoice,
    /// Which edition of the driver is measured.
    #[arg(long, value_enum, default_value = "fast")]
    driver_edition: Edition,
    /// A QEMU of this machine instead of the lab's own.
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
}

impl BenchArgs {
    /// The machine in which everything is compared.
    pub fn config(&self) -> Result<Config> {
        qemu_is_there(self.qemu.as_deref())?;
        Ok(Config {
            smp: self.smp.get(),
            accel: self.accel,
            system: System {
                edition: self.driver_edition,
                ..System::default()
            },
            capacity: Some(self.capacity.clone()),
            qemu: self.qemu.clone(),
            ..Config::default()
        })
    }

    /// The machine that does nothing: as `cargo lab run` makes it.
    pub fn idle_config(&self) -> Result<Config> {
        Ok(Config {
            capacity: None,
            ..self.config()?
        })
    }

    /// How much is measured.
    pub fn extent(&self) -> Extent {
        let mut extent = if self.quick {
            Extent::QUICK
        } else {
            Extent::FULL
        };
        if let Some(rounds) = self.rounds {
            extent.bounds.most = rounds.get().into();
        }
        if let Some(time) = self.max_minutes {
            extent.bounds.time = time;
        }
        extent
    }
}
