//! `cargo lab bench`: rounds of everything beside its peers, a table, and files with the rest.

use std::path::Path;

use anyhow::Result;

use crate::bench::device;
use crate::bench::files;
use crate::bench::idle;
use crate::bench::plan;
use crate::bench::plan::Trial;
use crate::bench::report::Facts;
use crate::bench::report::Report;
use crate::bench::results::Results;
use crate::bench::rig::Rig;
use crate::bench::table;
use crate::cancel;
use crate::cli::BenchArgs;
use crate::exit;
use crate::stages;
use crate::stages::Wanted;
use crate::stages::device_bench;
use crate::stages::shop::Shop;
use crate::stages::vsock;
use crate::stages::vsock::Vsock;
use crate::ui;
use crate::vm::config::Paths;
use crate::vm::machine;
use crate::vm::qemu;

/// Measures, shows, writes. A goal that is missed is a finding, not a failure.
pub fn bench(args: &BenchArgs) -> Result<u8> {
    let config = args.config()?;
    let extent = args.extent();
    let trials = plan::trials(&extent, &args.only);
    if trials.is_empty() {
        return Err(exit::usage(format!(
            "--only {}: nothing that is measured has that in its name, like round-trip/64/pipe",
            args.only.join(" --only ")
        )));
    }
    machine::check(&config)?;
    let shop = Shop::open()?;
    let ready = stages::set_up(&shop, &Wanted::programs_on(config.system))?;
    let mut results = Results::default();
    let vsock = peer(&shop, &trials, &mut results)?;
    let paths = Paths::new(&ready);
    let mut facts = Facts {
        qemu: qemu::version(&config, &paths)?,
        rounds: extent.rounds,
        capacity: config.capacity.clone().unwrap_or_default(),
        vsock: vsock.as_ref().map(|_| vsock::VERSION.to_owned()),
        ..Facts::of_host()
    };
    let program = vsock.as_ref().map(Vsock::program);
    let measured = rounds(&trials, extent.rounds, &mut results, &mut facts, || {
        Rig::with_peers(&config, &paths, program.as_deref())
    });
    measured.map_err(exit::as_machine)?;
    // With a pattern, only what was asked for.
    let whole = args.only.is_empty();
    let asked = whole || args.only.iter().any(|part| part == "idle");
    let idle = match extent.idle.filter(|_| asked) {
        Some((millis, times)) => Some(idle::compare(&args.idle_config()?, &paths, millis, times)?),
        None => None,
    };
    let alone = if whole {
        let bench = device_bench::obtain(&shop)?;
        Some(device::measure(&bench.program())?)
    } else {
        None
    };
    let report = Report::new(facts, results, alone, idle);
    finish(&report, &args.out)
}

/// The vsock peer, if it is wanted and can be had.
fn peer(shop: &Shop, trials: &[Trial], results: &mut Results) -> Result<Option<Vsock>> {
    if !trials.iter().any(Trial::uses_vsock) {
        return Ok(None);
    }
    match vsock::obtain(shop) {
        Ok(vsock) => Ok(Some(vsock)),
        Err(err) => {
            cancel::check()?;
            let why = format!("vhost-device-vsock cannot be built: {}", exit::of(&err).1);
            let first = why.lines().next().unwrap_or_default();
            ui::warn(first);
            results.trouble(plan::VSOCK, first);
            Ok(None)
        }
    }
}

fn rounds(
    trials: &[Trial],
    rounds: usize,
    results: &mut Results,
    facts: &mut Facts,
    boot: impl FnOnce() -> Result<Rig>,
) -> Result<()> {
    let mut rig = boot()?;
    facts.accelerator = rig.accelerator().to_owned();
    facts.guest = rig.facts()?;
    let total = u64::try_from(trials.len() * rounds)?;
    let bar = ui::counter("measuring", total);
    for round in 1..=rounds {
        if !ui::has_bars() {
            ui::say(&format!("measuring, round {round} of {rounds}"));
        }
        for trial in in_turn(trials, round) {
            bar.set_message(trial.name());
            // What did not work once would take its time limit again.
            let known_bad = results.troubles().contains_key(&trial.way)
                || results.troubles().contains_key(&trial.name());
            let figures = if known_bad {
                None
            } else {
                match rig.measure(&trial.task)? {
                    Ok(figures) => Some(figures),
                    Err(why) => {
                        ui::warn(&format!("{}: {why}", trial.name()));
                        results.trouble(&trial.name(), &why);
                        None
                    }
                }
            };
            results.add(trial, figures);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Every other round is backwards: what comes first in one comes last in the next, so that neither a change of the
/// machine's speed nor what a measurement leaves behind favours one of two that are compared.
fn in_turn(trials: &[Trial], round: usize) -> Box<dyn Iterator<Item = &Trial> + '_> {
    if round % 2 == 1 {
        Box::new(trials.iter())
    } else {
        Box::new(trials.iter().rev())
    }
}

fn finish(report: &Report, out: &Path) -> Result<u8> {
    files::write(report, out)?;
    ui::print(&table::render(report));
    ui::print(&format!(
        "written: bench.json, bench.csv and bench.html in {}",
        out.display()
    ));
    Ok(0)
}
