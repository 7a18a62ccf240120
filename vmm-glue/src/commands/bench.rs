// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo lab bench`: rounds of everything beside its peers, a table, and files with the rest.

use std::time::Instant;

use anyhow::Result;
use fifo_lab_agent::Command;
use indicatif::ProgressBar;

use super::trace;
use crate::bench::baseline::Baseline;
use crate::bench::changes::Changes;
use crate::bench::device;
use crate::bench::facts::Facts;
use crate::bench::facts::Host;
use crate::bench::files;
use crate::bench::goals::Verdict;
use crate::bench::idle;
use crate::bench::peers;
use crate::bench::plan;
use crate::bench::plan::Extent;
use crate::bench::plan::Trial;
use crate::bench::report::Report;
use crate::bench::report::Trace;
use crate::bench::results::Figures;
use crate::bench::results::Results;
use crate::bench::rig::Rig;
use crate::bench::rounds;
use crate::bench::stats::real;
use crate::bench::table;
use crate::bench::trips;
use crate::bench::units;
use crate::cancel;
use crate::cli::BenchArgs;
use crate::escape;
use crate::exit;
use crate::scratch;
use crate::scratch::Scratch;
use crate::stages;
use crate::stages::Wanted;
use crate::stages::device_bench;
use crate::stages::guest;
use crate::stages::installed::Installed;
use crate::stages::shop::Shop;
use crate::stages::vsock;
use crate::trace::page;
use crate::ui;
use crate::vm::config::Config;
use crate::vm::config::Paths;
use crate::vm::machine;
use crate::vm::qemu;

/// Measures, shows, writes. A goal that is missed is a failure; one that is undecided is told.
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
    let baseline = baseline(args, &trials)?;
    machine::check(&config)?;
    let shop = Shop::open()?;
    let ready = stages::set_up(&shop, &Wanted::programs_on(config.system))?;
    let mut results = Results::default();
    let vsock = peer(&shop, &trials, &mut results)?;
    let paths = Paths::new(&ready);
    let mut facts = Facts {
        qemu: qemu::version(&config, &paths)?,
        capacity: config.capacity.clone().unwrap_or_default(),
        vsock: vsock.as_ref().map(|_| vsock::VERSION.to_owned()),
        host: Host::look(),
        ..Facts::default()
    };
    let program = vsock.as_ref().map(Installed::program);
    let measured = measure(&trials, &extent, &mut results, &mut facts, || {
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
    facts.host.note_load();
    let mut report = Report::new(facts, results, alone, idle);
    report.changes =
        baseline.map(|earlier| Changes::since(&earlier, &report.facts, &report.results));
    if args.trace {
        // What has been measured is not lost with them.
        report.traces = traces(args, &paths).unwrap_or_else(|err| {
            ui::warn(&format!("--trace: {err:#}"));
            Vec::new()
        });
    }
    finish(&report, args)
}

/// Round trips over a FIFO whose peer is an echo on this host, traced: the median one and the worst one.
fn traces(args: &BenchArgs, paths: &Paths) -> Result<Vec<Trace>> {
    let sockets = Scratch::for_sockets(scratch::Kind::Bench)?;
    let socket = sockets.path().join("host");
    peers::listen("FIFO", &socket)?;
    let config = Config {
        fifos: vec![format!(
            "unix={},connect",
            escape::fifo_spec(&socket).to_string_lossy()
        )],
        ..args.config()?
    };
    // Its lines are figures of a machine that is being traced: nobody wants them.
    let words = [
        "sh".to_owned(),
        "-c".to_owned(),
        "exec \"$@\" >/dev/null".to_owned(),
        "bench".to_owned(),
        format!("/{}/bin/bench", guest::HOME),
        serde_json::to_string(&plan::traced())?,
    ];
    let command = Command {
        argv: words.to_vec(),
        cwd: "/root".to_owned(),
        ..Command::default()
    };
    let (status, report) = trace::traced(config, paths, command, None)?;
    let size = u64::try_from(plan::TRACED)?;
    let cuts = report.and_then(|report| trips::cut(&report, size));
    let (0, Some(cuts)) = (status, cuts) else {
        ui::warn("--trace: the guest has made no round trip that could be traced");
        return Ok(Vec::new());
    };
    let names = ["median", "worst"].into_iter();
    Ok(names
        .zip(&cuts)
        .map(|(which, cut)| Trace {
            which,
            file: format!("round-trip-{which}.html"),
            page: page::page(&cut.report),
            nanos: cut.nanos,
            of: cut.of,
        })
        .collect())
}

/// The earlier run to compare with, read before anything is booted: where it cannot be, minutes are saved.
fn baseline(args: &BenchArgs, trials: &[Trial]) -> Result<Option<Baseline>> {
    let Some(dir) = &args.baseline else {
        return Ok(None);
    };
    let baseline = Baseline::read(dir)?;
    if !baseline.has_any_of(trials) {
        return Err(exit::usage(format!(
            "--baseline {}: it has none of the measurements that are to be made",
            dir.display()
        )));
    }
    Ok(Some(baseline))
}

/// The vsock peer, if it is wanted and can be had.
fn peer(shop: &Shop, trials: &[Trial], results: &mut Results) -> Result<Option<Installed>> {
    if !trials.iter().any(Trial::uses_vsock) {
        return Ok(None);
    }
    match vsock::obtain(shop) {
        Ok(vsock) => Ok(Some(vsock)),
        Err(err) => {
            cancel::check()?;
            let what = "vhost-device-vsock cannot be built";
            let why = exit::of(&err).1;
            ui::warn(&format!(
                "{what}: {}",
                why.lines().next().unwrap_or_default()
            ));
            // The reason may name paths of this machine, which are nobody else's business.
            results.trouble(plan::VSOCK, what);
            Ok(None)
        }
    }
}

fn measure(
    trials: &[Trial],
    extent: &Extent,
    results: &mut Results,
    facts: &mut Facts,
    boot: impl FnOnce() -> Result<Rig>,
) -> Result<()> {
    let mut rig = boot()?;
    facts.accelerator = rig.accelerator().to_owned();
    facts.guest = rig.facts()?;
    let mut guest = Guest {
        rig,
        end: Instant::now().checked_add(extent.bounds.time),
        bar: ProgressBar::hidden(),
    };
    let ran = rounds::run(trials, extent.bounds, results, &mut guest);
    guest.bar.finish_and_clear();
    facts.note_rounds(ran?);
    Ok(())
}

/// A guest that measures, and says so.
struct Guest {
    rig: Rig,
    /// No end if it is beyond what a clock can show.
    end: Option<Instant>,
    bar: ProgressBar,
}

impl rounds::Host for Guest {
    fn measure(&mut self, trial: &Trial) -> Result<Result<Figures, String>> {
        self.bar.set_message(trial.name());
        let measured = self.rig.measure(&trial.task)?;
        if let Err(why) = &measured {
            ui::warn(&format!("{}: {why}", trial.name()));
        }
        self.bar.inc(1);
        Ok(measured)
    }

    fn begin(&mut self, round: usize, count: usize) {
        self.bar.finish_and_clear();
        let what = if round > rounds::BLOCK {
            format!("measuring what is undecided, round {round}")
        } else {
            format!("measuring, round {round}")
        };
        if !ui::has_bars() {
            ui::say(&format!("{what}: {count} measurements"));
        }
        self.bar = ui::counter(&what, u64::try_from(count).unwrap_or(u64::MAX));
    }

    fn in_time(&self) -> bool {
        self.end.is_none_or(|end| Instant::now() < end)
    }
}

fn finish(report: &Report, args: &BenchArgs) -> Result<u8> {
    files::write(report, &args.out)?;
    ui::print(&table::render(report));
    for trace in &report.traces {
        ui::print(&format!(
            "written: {}, the {} round trip of {} that were traced, {}",
            args.out.join(&trace.file).display(),
            trace.which,
            trace.of,
            units::time(real(trace.nanos))
        ));
    }
    ui::print(&format!(
        "written: bench.json, bench.csv and bench.html in {}",
        args.out.display()
    ));
    let undecided = report.count(Verdict::Undecided);
    if undecided > 0 {
        ui::warn(&format!(
            "{undecided} goals are undecided: more rounds (--rounds N, --max-minutes N) and a machine with nothing else to do make intervals narrower"
        ));
    }
    Ok(status(report))
}

/// Only a missed goal is a failure: an interval that holds the limit shows nothing.
fn status(report: &Report) -> u8 {
    if report.count(Verdict::Missed) > 0 {
        exit::FAILURE
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use globalfifo_bench_protocol::Measured;

    use super::*;
    use crate::bench::plan::GLOBALFIFO;
    use crate::bench::plan::Group;
    use crate::bench::plan::SERIAL;
    use crate::bench::results::sample_rounds;

    #[test]
    fn only_a_missed_goal_makes_the_status_a_failure() {
        let of = |rounds: usize, nanos: u64| {
            let measured = |nanos| Measured {
                latencies: vec![(nanos, 1000)],
                ..Measured::default()
            };
            let figures = [
                (Group::RoundTrip, 64, GLOBALFIFO, measured(nanos)),
                (Group::RoundTrip, 64, SERIAL, measured(1000)),
            ];
            let results = sample_rounds(rounds, &figures);
            status(&Report::new(Facts::default(), results, None, None))
        };
        assert_eq!(of(5, 500), 0);
        assert_eq!(of(5, 900), exit::FAILURE);
        // Undecided, and not measured at all.
        assert_eq!(of(4, 900), 0);
        assert_eq!(of(0, 900), 0);
    }
}
