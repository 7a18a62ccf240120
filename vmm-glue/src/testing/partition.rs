// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A run of everything in parts for several machines: units, none of which is worth dividing, and which part has which of them.
//!
//! The same arguments give the same division everywhere. It must not know how a unit is run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use quick_junit::Report;

use super::guest::Selection;
use super::suites;
use crate::exit::usage;

/// Seconds that a unit takes of which no time is known.
const UNKNOWN: f64 = 60.0;
/// The lab's tests that boot machines: a program each.
const LAB_TESTS: &str = "vmm-glue/tests";

/// `--partition I/N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    index: usize,
    count: usize,
}

impl FromStr for Fraction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once('/')
            .and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)))
            .filter(|(index, count)| (1..=*count).contains(index) && *count <= 1000)
            .map(|(index, count)| Self { index, count })
            .ok_or_else(|| "give a part and the number of parts, like 1/3".to_owned())
    }
}

/// All units of a run of everything: a suite's machines with one number of CPUs, a program of tests that boot, or a part that runs here.
pub fn units(repository: &Path) -> Result<Vec<String>> {
    let grade = [
        "grade/right",
        "grade/hostile",
        "grade/new",
        "grade/mutants",
        "grade/irq",
    ];
    let mut units: Vec<String> = ["host", "module"]
        .into_iter()
        .chain(grade)
        .map(str::to_owned)
        .collect();
    let suites = suites::named(&repository.join("guest-tests/suites.toml"))?;
    for suite in suites.iter().filter(|suite| suite.stock) {
        let names = suite.smp.iter().map(|smp| suite.name_with(*smp));
        units.extend(names.map(|name| format!("guest/{name}")));
    }
    // Programs that no suite names.
    units.push("guest/default".to_owned());
    let taught = suites.iter().filter_map(suites::Suite::teaching);
    let parts = taught.map(|suite| (Selection::Teaching, suite));
    let others = [Selection::Oldest, Selection::RealTime].into_iter();
    let on_kernels = others.flat_map(|selection| {
        let suites = suites.iter().filter_map(suites::Suite::on_kernels);
        suites.map(move |suite| (selection, suite))
    });
    for (selection, suite) in parts.chain(on_kernels) {
        let names = suite.smp.iter().map(|smp| suite.name_with(*smp));
        units.extend(names.map(|name| format!("{}{name}", selection.place())));
    }
    for path in crate::cache::entries(&repository.join(LAB_TESTS)) {
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(stem) = path.file_stem()
        {
            let package = env!("CARGO_PKG_NAME");
            units.push(format!("lab/{package}/{}", stem.display()));
        }
    }
    units.sort();
    Ok(units)
}

/// One part.
#[derive(Debug, Clone)]
pub struct Partition {
    all: Vec<String>,
    own: Vec<String>,
    /// Tests that belong to no unit are the first part's.
    is_first: bool,
}

impl Partition {
    /// This part of these units: the longest first, each to the part that has least to do.
    pub fn new(fraction: Fraction, units: Vec<String>, times: &Times) -> Self {
        let mut order: Vec<(f64, &String)> = units
            .iter()
            .map(|unit| (times.of(unit).unwrap_or(UNKNOWN), unit))
            .collect();
        order.sort_by(|(a, x), (b, y)| b.total_cmp(a).then(x.cmp(y)));
        let mut loads = vec![0.0_f64; fraction.count];
        let mut own = Vec::new();
        for (time, unit) in order {
            let least = loads
                .iter_mut()
                .enumerate()
                .min_by(|(_, a), (_, b)| a.total_cmp(b));
            let Some((part, load)) = least else { continue };
            *load += time;
            if part + 1 == fraction.index {
                own.push(unit.clone());
            }
        }
        Self {
            all: units,
            own,
            is_first: fraction.index == 1,
        }
    }

    /// Whether a test of this name, or all tests below it, are in this part.
    pub fn takes(&self, name: &str) -> bool {
        let unit = self.all.iter().find(|unit| is_below(name, unit));
        unit.map_or(self.is_first, |unit| self.own.contains(unit))
    }

    /// Whether any test below this place (like `guest/`) may be.
    pub fn may_take_below(&self, place: &str) -> bool {
        self.own
            .iter()
            .any(|unit| format!("{unit}/").starts_with(place))
    }

    /// Its units.
    pub fn own(&self) -> &[String] {
        &self.own
    }
}

fn is_below(name: &str, unit: &str) -> bool {
    name.strip_prefix(unit)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// How long the units took in an earlier run.
#[derive(Debug, Default)]
pub struct Times(BTreeMap<String, Duration>);

impl Times {
    /// From a JUnit file of `cargo lab test`.
    pub fn read(path: &Path, units: &[String]) -> Result<Self> {
        let text = fs::read_to_string(path)
            .map_err(|err| usage(format!("--times {}: {err}", path.display())))?;
        let report = Report::deserialize_from_str(&text)
            .with_context(|| format!("--times {}: no JUnit file", path.display()))
            .map_err(|err| usage(format!("{err:#}")))?;
        let mut times = BTreeMap::<_, Duration>::new();
        for suite in &report.test_suites {
            for case in &suite.test_cases {
                let name = format!("{}/{}", suite.name.as_str(), case.name.as_str());
                if let Some(unit) = units.iter().find(|unit| is_below(&name, unit)) {
                    *times.entry(unit.clone()).or_default() += case.time.unwrap_or_default();
                }
            }
        }
        Ok(Self(times))
    }

    fn of(&self, unit: &str) -> Option<f64> {
        self.0.get(unit).map(Duration::as_secs_f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::report::Outcome;
    use crate::testing::report::Results;
    use crate::testing::report::Verdict;

    fn units() -> Vec<String> {
        ["guest/a", "guest/a@smp2", "guest/b", "host", "lab/x/boot"]
            .map(str::to_owned)
            .into()
    }

    fn part(index: usize, times: &Times) -> Partition {
        let fraction = format!("{index}/3").parse().unwrap();
        Partition::new(fraction, units(), times)
    }

    #[test]
    fn each_test_is_in_one_part_and_a_units_tests_are_together() {
        let names = [
            "guest/a/test-io/x",
            "guest/a@smp2/test-io/x",
            "guest/b/test-io/x",
            "guest/ab/test-io/x",
            "host/clippy",
            "lab/x/boot/x",
            "lab/x/booth/x",
        ];
        for name in names {
            let parts = (1..=3).filter(|index| part(*index, &Times::default()).takes(name));
            assert_eq!(parts.count(), 1, "{name}");
        }
        let first = part(1, &Times::default());
        assert!(first.takes("guest/a/y") && first.may_take_below("guest/"));
        assert!(!first.may_take_below("lab/"));
    }

    #[test]
    fn a_unit_that_took_as_long_as_all_others_has_a_part_to_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("junit.xml");
        let mut results = Results::new(false);
        for (unit, seconds) in units().iter().zip([5, 5, 40, 10, 10]) {
            results.add(Outcome {
                name: format!("{unit}/program/test"),
                time: Duration::from_secs(seconds),
                verdict: Verdict::Passed,
            });
        }
        results.write_junit(&path).unwrap();
        let times = Times::read(&path, &units()).unwrap();
        assert_eq!(part(1, &times).own(), ["guest/b"]);
        assert!(Times::read(&dir.path().join("no"), &units()).is_err());
    }

    #[test]
    fn a_part_is_one_of_its_number() {
        for bad in ["", "1", "0/3", "4/3", "1/0", "a/b", "-1/3", "1/3/3"] {
            assert!(bad.parse::<Fraction>().is_err(), "{bad}");
        }
        assert!("3/3".parse::<Fraction>().is_ok());
    }
}
