// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab trace`: a command as `run` has it, with a timeline of guest and host.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use fifo_lab_agent::Command;

use super::run;
use crate::cli::TraceArgs;
use crate::cli::TraceFormat;
use crate::exit;
use crate::exit::usage;
use crate::files;
use crate::scratch;
use crate::scratch::Scratch;
use crate::stages;
use crate::stages::Arch;
use crate::stages::guest;
use crate::stages::programs::Need;
use crate::stages::shop::Shop;
use crate::trace::page;
use crate::trace::perfetto;
use crate::trace::report::Report;
use crate::trace::run::Recorder;
use crate::trace::run::SHARE;
use crate::trace::run::assemble;
use crate::trace::svg::Picture;
use crate::tty;
use crate::ui;
use crate::ui::Step;
use crate::vm::config::Config;
use crate::vm::config::Paths;
use crate::vm::config::Share;
use crate::vm::machine;

/// What the guest's program says when it cannot trace; then the command was not run.
const CANNOT: u8 = 125;

/// Boots, traces, writes; the status is the guest command's.
pub fn trace(args: &TraceArgs) -> Result<u8> {
    args.check()?;
    let config = args.guest.config()?;
    args.streams.env()?;
    check(&config)?;
    let mut wanted = args.guest.wanted()?;
    // The guest's part is one of them.
    wanted.programs = Need::All;
    machine::check(&config)?;
    let shop = Shop::open_for(config.system.arch)?;
    let ready = stages::set_up(&shop, &wanted)?;
    let paths = Paths::new(&ready);
    let command = run::guest_command(&args.streams, &args.command, &config.cwd(), &paths.trees())?;
    let (status, report) = traced(config, &paths, command, args.guest.timeout())?;
    let Some(report) = report else {
        return Ok(status);
    };
    if args.output.is_empty() {
        ui::tell(&report.text());
        return Ok(status);
    }
    for output in &args.output {
        write(&report, &output.path, output.format)?;
    }
    ui::tell(report.quality().trim_end());
    Ok(status)
}

/// Whether there is anything to trace.
fn check(config: &Config) -> Result<()> {
    if config.device {
        return Ok(());
    }
    Err(usage(
        "--fifo none: there is no device to trace, leave it out".to_owned(),
    ))
}

/// A program of the project's as a page at `path`; its status.
pub fn as_page(
    config: Config,
    paths: &Paths,
    command: Command,
    timeout: Option<Duration>,
    path: &Path,
) -> Result<u8> {
    check(&config)?;
    let (status, report) = traced(config, paths, command, timeout)?;
    if let Some(report) = report {
        write(&report, path, TraceFormat::Html)?;
        ui::tell(report.quality().trim_end());
    }
    Ok(status)
}

/// Boots and traces; the status is the command's. There is no report if the guest cannot trace, which it has said.
pub fn traced(
    mut config: Config,
    paths: &Paths,
    mut command: Command,
    timeout: Option<Duration>,
) -> Result<(u8, Option<Report>)> {
    let left = Scratch::new(scratch::Kind::Trace)?;
    config.shares.push(Share {
        dir: left.path().to_owned(),
        name: SHARE.to_owned(),
        read_only: false,
    });
    if config.system.arch == Arch::Arm64 {
        // The guest's part reads the device's registers beside the driver.
        config.append.push("iomem=relaxed".to_owned());
    }
    let words = std::mem::take(&mut command.argv);
    command.argv = vec![
        format!("/{}/bin/tracer", guest::HOME),
        format!("/mnt/{SHARE}"),
    ];
    command.argv.extend(words.iter().cloned());
    command.env.extend(config.system.environment());

    let mut machine = machine::boot(&config, paths)?;
    machine.tell_ptys();
    let control = machine.run.control(config.control.as_deref());
    let recorder = Recorder::begin(&machine, &control)?;
    let result = run::attend(&mut machine, &command, timeout).map_err(exit::as_machine);
    tty::restore();
    let status = result?;
    let recorded = recorder.end()?;
    machine.tell_complaints();
    drop(machine);

    let step = Step::new("putting the timeline together".to_owned());
    let report = assemble(left.path(), recorded, &words);
    let has_run = left.path().join("meta.json").exists();
    if report.is_err() && status == CANNOT && !has_run {
        return Ok((status, None));
    }
    let report = report.with_context(|| left_by_guest(left.path()))?;
    step.done();
    Ok((status, Some(report)))
}

/// What the guest's part of a trace is, for a message about what is wrong with it.
fn left_by_guest(folder: &Path) -> String {
    let trace = "cannot read the guest's part of the trace";
    match folder.parent() {
        Some(base) if files::is_full(folder) => format!(
            "{trace}: no space is left in {}, free some or set TMPDIR",
            base.display()
        ),
        _ => trace.to_owned(),
    }
}

fn write(report: &Report, path: &Path, format: TraceFormat) -> Result<()> {
    let bytes = match format {
        TraceFormat::Html => page::page(report).into_bytes(),
        TraceFormat::Json => report.json()?,
        TraceFormat::Perfetto => perfetto::file(report),
        TraceFormat::Svg => Picture::longest(report).svg().into_bytes(),
    };
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    ui::say(&format!("written: {}", path.display()));
    Ok(())
}
