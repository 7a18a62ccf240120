// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab test`: everything that can fail, in the order of what it costs.

use anyhow::Result;

use crate::cancel;
use crate::cli::TestArgs;
use crate::exit;
use crate::grading::graded;
use crate::options;
use crate::stages;
use crate::stages::Edition;
use crate::stages::KernelChoice;
use crate::stages::Ready;
use crate::stages::System;
use crate::stages::Wanted;
use crate::stages::programs;
use crate::stages::shop::Shop;
use crate::testing::guest;
use crate::testing::guest::Selection;
use crate::testing::host;
use crate::testing::kernels;
use crate::testing::kernels::Archs;
use crate::testing::kernels::Kernels;
use crate::testing::libtest::Program;
use crate::testing::module;
use crate::testing::partition;
use crate::testing::partition::Partition;
use crate::testing::partition::Times;
use crate::testing::report::Filter;
use crate::testing::report::Outcome;
use crate::testing::report::Results;
use crate::testing::report::Verdict;
use crate::vm::config::AccelChoice;

/// Runs what the filter wants; 0 if something ran and nothing failed.
pub fn test(args: &TestArgs) -> Result<u8> {
    let repository = stages::repository()?;
    let units = partition::units(&repository)?;
    let mut filter = Filter::new(args.filter.clone());
    let mut own = units.clone();
    if let Some(fraction) = args.partition {
        let times = match &args.times {
            Some(path) => Times::read(path, &units)?,
            None => Times::default(),
        };
        let part = Partition::new(fraction, units, &times);
        own = part.own().to_vec();
        filter = filter.in_partition(part);
    }
    own.retain(|unit| filter.may_want_unit(unit));
    if let Some(junit) = &args.junit {
        options::has_folder("--junit", junit)?;
    }
    let systems = kernels::systems(args.arch, args.kernel, args.driver_edition);
    let is_usual = systems.len() == 1 && systems.iter().all(|system| system.is_usual());
    if !is_usual && !filter.may_want_below("guest/") {
        return Err(exit::usage(format!(
            "with --arch, --kernel or --driver-edition only tests below guest/ are run, and {} is none of them; a name that `all` of them has printed goes without the system in front",
            filter.text().unwrap_or_default()
        )));
    }
    if !is_usual {
        own.retain(|unit| unit.starts_with(Selection::Whole.place()));
    }
    let mut results = Results::new(args.list);
    let one_of_each = (&args.arch, &args.kernel);
    let ran = match (one_of_each, systems.as_slice()) {
        ((Archs::One(_), Kernels::One(_)), [system]) => {
            all(args.accel, *system, &filter, &mut results)
        }
        _ => {
            own.clear();
            on_each(args.accel, &systems, &filter, &mut results)
        }
    };
    if let Some(path) = &args.junit {
        results.write_junit(path)?;
    }
    if let Err(err) = ran {
        if cancel::signal().is_some() && !args.list {
            results.interrupted(&own);
        }
        return Err(err);
    }
    Ok(u8::from(!args.list && !results.finish()))
}

/// Everything, in its order.
fn all(accel: AccelChoice, system: System, filter: &Filter, results: &mut Results) -> Result<()> {
    system.check().map_err(exit::usage)?;
    let shop = Shop::open_for(system.arch)?;
    let programs = if system.is_usual() {
        on_host(&shop, filter, results)?
    } else {
        Vec::new()
    };
    in_guest(&shop, accel, system, filter, results)?;
    if !system.is_usual() {
        return Ok(());
    }
    if filter.may_want_below("lab/") {
        results.doing("running the lab's own tests that boot machines");
        host::boot_tests(&programs, filter, results)?;
    }
    if filter.may_want_below(graded::PLACE) {
        graded::run(&shop, accel, filter, results)?;
    }
    for (part, system) in second_runs() {
        if wants_part(filter, part) {
            run_part(&shop, accel, (system, part), filter, results)?;
        }
    }
    Ok(())
}

/// The guests' tests on one system after another, and a table of them.
fn on_each(
    accel: AccelChoice,
    systems: &[System],
    filter: &Filter,
    results: &mut Results,
) -> Result<()> {
    let ran = systems.iter().try_for_each(|system| {
        let shop = Shop::open_for(system.arch)?;
        let selection = (*system, Selection::Whole);
        results.on(system.label());
        run_part(&shop, accel, selection, filter, results)
    });
    results.print_table();
    ran
}

fn on_host(shop: &Shop, filter: &Filter, results: &mut Results) -> Result<Vec<Program>> {
    if filter.may_want_below("host/") {
        host::checks(&shop.repository, filter, results)?;
    }
    if !filter.may_want_below("host/") && !filter.may_want_below("lab/") {
        return Ok(Vec::new());
    }
    // A run without host/ needs the lab's own tests, no others.
    let packages: &[&str] = if filter.may_want_below("host/") {
        &["--workspace"]
    } else {
        &["--package", env!("CARGO_PKG_NAME")]
    };
    let programs = host::build(&shop.repository, packages, results)?;
    if filter.may_want_below("host/") {
        host::run(&shop.repository, &programs, filter, results)?;
        if host::has_doc_tests(&shop.repository) {
            host::doc_tests(&shop.repository, filter, results)?;
        }
    }
    Ok(programs)
}

/// Parts of the suites that a run of everything has once more on another system, in the order of what they cost.
fn second_runs() -> Vec<(Selection, System)> {
    let usual = System::default();
    let on = |kernel| System { kernel, ..usual };
    let oldest = KernelChoice::parse("7.2").ok().map(on);
    let others = [
        oldest.map(|system| (Selection::Oldest, system)),
        Some((Selection::RealTime, on(KernelChoice::Rt))),
        Some((Selection::Checked, on(KernelChoice::Debug))),
    ];
    let teaching = System {
        edition: Edition::Teaching,
        ..usual
    };
    std::iter::once((Selection::Teaching, teaching))
        .chain(others.into_iter().flatten())
        .collect()
}

/// Tests that run once more repeat others: a run of everything has them, or a filter that begins with their place. Those below checked/ take
/// a kernel that has to be compiled, and run by such a filter alone.
fn wants_part(filter: &Filter, part: Selection) -> bool {
    match filter.text() {
        None => part != Selection::Checked && filter.may_want_below(part.place()),
        Some(text) => text.starts_with(part.place()),
    }
}

fn run_part(
    shop: &Shop,
    accel: AccelChoice,
    selection: (System, Selection),
    filter: &Filter,
    results: &mut Results,
) -> Result<()> {
    match set_up(shop, selection, results)? {
        Some(ready) => guest::run(shop, &ready, accel, selection, filter, results),
        None => Ok(()),
    }
}

/// What needs the tree.
fn in_guest(
    shop: &Shop,
    accel: AccelChoice,
    system: System,
    filter: &Filter,
    results: &mut Results,
) -> Result<()> {
    if !filter.may_want_below("guest/") && !filter.may_want_below("module/") {
        return Ok(());
    }
    let selection = (system, Selection::Whole);
    let Some(ready) = set_up(shop, selection, results)? else {
        return Ok(());
    };
    if system.is_usual() && filter.may_want_below("module/") {
        module::checks(shop, &ready, filter, results)?;
    }
    if filter.may_want_below("guest/") {
        guest::run(shop, &ready, accel, selection, filter, results)?;
    }
    Ok(())
}

/// Sets up what runs in machines. That it cannot be set up is a failed test: the rest is still worth knowing.
fn set_up(
    shop: &Shop,
    (system, selection): (System, Selection),
    results: &mut Results,
) -> Result<Option<Ready>> {
    let wanted = Wanted::programs_on(system);
    let made = stages::set_up(shop, &wanted);
    // This machine asks the programs for their tests' names.
    let made = made.and_then(|ready| programs::that_run_here(shop).map(|_| ready));
    match made {
        Ok(ready) => Ok(Some(ready)),
        Err(err) => {
            cancel::check()?;
            let why = exit::of(&err).1;
            results.add(Outcome {
                name: format!("{}set-up", selection.place()),
                time: std::time::Duration::ZERO,
                verdict: Verdict::Failed(why),
            });
            Ok(None)
        }
    }
}
