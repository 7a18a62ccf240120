// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab demo`: the guest's own demonstration program, from nothing to its exit status.

use anyhow::Result;
use fifo_lab_agent::Command;
use fifo_lab_agent::Stdin;

use super::run;
use super::trace;
use crate::cli::DemoArgs;
use crate::stages;
use crate::stages::guest;
use crate::stages::shop::Shop;
use crate::vm::config::Paths;
use crate::vm::machine;

/// Sets up, boots, shows, ends.
pub fn demo(args: &DemoArgs) -> Result<u8> {
    let config = args.config()?;
    let wanted = args.wanted()?;
    machine::check(&config)?;
    let shop = Shop::open_for(config.system.arch)?;
    let ready = stages::set_up(&shop, &wanted)?;
    let command = Command {
        argv: vec![format!("/{}/bin/demo", guest::HOME)],
        cwd: "/root".to_owned(),
        stdin: Stdin::Null,
        ..Command::default()
    };
    let paths = Paths::new(&ready);
    match &args.html {
        Some(page) => trace::as_page(config, &paths, command, args.timeout(), page),
        None => run::in_guest(&config, &paths, &command, args.timeout()),
    }
}
