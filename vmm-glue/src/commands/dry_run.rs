// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab run --dry-run`: the commands, none of them run.

use anyhow::Result;

use crate::stages::Wanted;
use crate::stages::plan;
use crate::stages::shop::Shop;
use crate::ui;
use crate::vm::accel;
use crate::vm::config::Config;
use crate::vm::devices;
use crate::vm::qemu;
use crate::vm::recording;
use crate::vm::rundir::RunDir;

/// Prints what would be started. Nothing is set up for it: what is missing is said, and its path is the one that it will have.
pub fn dry_run(config: &Config, wanted: &Wanted) -> Result<u8> {
    let shop = Shop::open_for(config.system.arch)?;
    let plan = plan::plan(&shop, wanted)?;
    if !plan.missing.is_empty() {
        ui::print(&format!(
            "# not set up yet, would be made first: {}",
            plan.missing.join(", ")
        ));
    }
    let run = RunDir::imagined(config.console.as_deref());
    let (devices, tags) = devices::all(config, &plan.paths, &run);
    for device in &devices {
        ui::print(&format!("{} &", device.spec.shell()));
    }
    ui::print(&recording::shell(&run));
    let known = plan.missing.is_empty() || config.qemu.is_some();
    let generic = if config.device && known {
        qemu::generic_device(config, &plan.paths)?
    } else {
        qemu::GENERIC_DEVICE
    };
    ui::print(
        &qemu::command(
            config,
            &plan.paths,
            &run,
            accel::choose(config.accel, config.system.arch)?,
            generic,
            &tags,
        )
        .shell(),
    );
    Ok(0)
}
