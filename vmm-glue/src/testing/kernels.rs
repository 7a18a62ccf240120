// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `--kernel` and `--arch` of `cargo lab test`: one of each, or all that the driver is tested on; the table of suite × system.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;

use super::report::Outcome;
use super::report::Verdict;
use crate::stages::Arch;
use crate::stages::Edition;
use crate::stages::KernelChoice;
use crate::stages::KernelParser;
use crate::stages::System;

/// The word for all of them.
const ALL: &str = "all";
/// Those, in the order of what they cost.
const TESTED: [&str; 4] = ["stock", "7.2", "rt", "debug"];

/// What `--arch` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archs {
    /// This one.
    One(Arch),
    /// All that the lab knows, this machine's first.
    All,
}

impl Default for Archs {
    fn default() -> Self {
        Self::One(Arch::host())
    }
}

impl Archs {
    /// The architectures, one after another.
    pub fn each(self) -> Vec<Arch> {
        match self {
            Self::One(arch) => vec![arch],
            Self::All => {
                let mut all = Arch::value_variants().to_vec();
                all.sort_by_key(|arch| arch.is_foreign());
                all
            }
        }
    }
}

impl std::fmt::Display for Archs {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::One(arch) => arch.fmt(to),
            Self::All => to.write_str(ALL),
        }
    }
}

/// Reads it for clap.
pub fn archs_parser() -> impl TypedValueParser<Value = Archs> {
    let names = Arch::value_variants()
        .iter()
        .filter_map(Arch::to_possible_value)
        .chain([PossibleValue::new(ALL).help("One after another; a table at the end")]);
    PossibleValuesParser::new(names.collect::<Vec<_>>())
        .map(|name| Arch::from_str(&name, false).map_or(Archs::All, Archs::One))
}

/// Architectures × kernels that there are, what this machine can run first.
pub fn systems(archs: Archs, kernels: Kernels, edition: Edition) -> Vec<System> {
    let mut systems = Vec::new();
    for arch in archs.each() {
        let on = |kernel| System {
            arch,
            kernel,
            edition,
            ..System::default()
        };
        systems.extend(kernels.each().into_iter().map(on));
    }
    let several = systems.len() > 1;
    // One that does not exist is the user's error where no other was asked for.
    systems.retain(|system| !several || system.check().is_ok());
    systems
}

/// What `--kernel` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernels {
    /// This one.
    One(KernelChoice),
    /// Those that the driver is tested on.
    All,
}

impl Kernels {
    /// The kernels, one after another.
    pub fn each(self) -> Vec<KernelChoice> {
        match self {
            Self::One(kernel) => vec![kernel],
            Self::All => TESTED
                .iter()
                .filter_map(|name| KernelChoice::parse(name).ok())
                .collect(),
        }
    }
}

/// Reads it for clap.
#[derive(Debug, Clone, Copy)]
pub struct KernelsParser;

impl TypedValueParser for KernelsParser {
    type Value = Kernels;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Kernels, clap::Error> {
        if value == ALL {
            return Ok(Kernels::All);
        }
        KernelParser
            .parse_ref(command, arg, value)
            .map(Kernels::One)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let all = PossibleValue::new(ALL).help(format!(
            "One after another: {}; a table at the end",
            TESTED.join(", ")
        ));
        let one = KernelParser.possible_values()?;
        Some(Box::new(one.chain([all])))
    }
}

/// A test's name on one system of several.
pub fn name_on(system: &str, name: &str) -> String {
    format!("{system}/{name}")
}

/// Suites × systems, of outcomes named so: how many tests there were, and how many of them failed.
pub fn table(outcomes: &[Outcome]) -> String {
    #[derive(Default)]
    struct Cell {
        tests: usize,
        failed: usize,
        skipped: usize,
    }
    let mut rows = BTreeMap::<&str, BTreeMap<&str, Cell>>::new();
    let mut systems = Vec::new();
    for outcome in outcomes {
        let Some((system, name)) = outcome.name.split_once('/') else {
            continue;
        };
        if !systems.contains(&system) {
            systems.push(system);
        }
        let end = name.match_indices('/').nth(1).map(|(at, _)| at);
        let suite = end.map_or(name, |end| &name[..end]);
        let cell = rows.entry(suite).or_default().entry(system).or_default();
        cell.tests += 1;
        match outcome.verdict {
            Verdict::Failed(_) => cell.failed += 1,
            Verdict::Skipped(_) => cell.skipped += 1,
            Verdict::Passed => {}
        }
    }
    let text = |cell: Option<&Cell>| match cell {
        None => "-".to_owned(),
        Some(cell) if cell.failed > 0 => format!("{} of {} failed", cell.failed, cell.tests),
        Some(cell) if cell.skipped > 0 => {
            format!("{}, {} skipped", cell.tests - cell.skipped, cell.skipped)
        }
        Some(cell) => cell.tests.to_string(),
    };
    let suites = rows.keys().map(|suite| (*suite).to_owned());
    let mut lines: Vec<String> = std::iter::once("suite".to_owned()).chain(suites).collect();
    for system in systems {
        let width = lines.iter().map(String::len).max().unwrap_or_default() + 2;
        let cells = rows.values().map(|cells| text(cells.get(system)));
        let column = std::iter::once(system.to_owned()).chain(cells);
        for (line, cell) in lines.iter_mut().zip(column) {
            *line = format!("{line:<width$}{cell}");
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn all_are_kernels_that_take_our_driver() {
        let all = Kernels::All.each();
        let names: Vec<_> = all.iter().map(|kernel| kernel.name()).collect();
        assert_eq!(names, TESTED);
        assert!(all.iter().all(|kernel| kernel.takes_our_driver().is_ok()));
    }

    #[test]
    fn the_table_has_a_line_for_each_suite_and_a_column_for_each_kernel() {
        let outcome = |name: &str, verdict| Outcome {
            name: name.to_owned(),
            time: Duration::ZERO,
            verdict,
        };
        let failed = Verdict::Failed(String::new());
        let table = table(&[
            outcome("stock/guest/one/test-io/a", Verdict::Passed),
            outcome("stock/guest/one/test-io/b", Verdict::Passed),
            outcome("stock/guest/one@smp2/test-io/a", Verdict::Passed),
            outcome("7.2/guest/one/test-io/a", Verdict::Passed),
            outcome("7.2/guest/one/test-io/b", failed.clone()),
            outcome("rt/guest/set-up", failed),
            outcome("debug/guest/one/test-io/a", Verdict::Passed),
            outcome("debug/guest/one/x", Verdict::Skipped(String::new())),
        ]);
        let expected = "\
suite           stock  7.2            rt             debug
guest/one       2      1 of 2 failed  -              1, 1 skipped
guest/one@smp2  1      -              -              -
guest/set-up    -      -              1 of 1 failed  -";
        assert_eq!(table, expected);
    }
}
