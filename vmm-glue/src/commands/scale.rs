// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab scale`: what more of everything costs, a machine for each line of a table.

use std::collections::BTreeMap;

use anyhow::Context;
use anyhow::Result;
use serde::Serialize;

use crate::cli::ScaleArgs;
use crate::columns::align;
use crate::exit;
use crate::options;
use crate::soak::account::Usage;
use crate::stages;
use crate::stages::guest;
use crate::stages::shop::Shop;
use crate::ui;
use crate::vm::config::Config;
use crate::vm::config::Paths;
use crate::vm::devices;
use crate::vm::guest::Guest;
use crate::vm::machine;

/// What there is of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Case {
    fifos: u8,
    devices: u8,
    cpus: u8,
    capacity: &'static str,
    /// Reads of native AIO that wait on each FIFO.
    requests: u16,
    /// The guest's memory: a FIFO has receive buffers for twice its capacity.
    mem: &'static str,
}

/// Little of everything: what the others are more than.
const LEAST: Case = Case {
    fifos: 1,
    devices: 1,
    cpus: 1,
    capacity: "4096",
    requests: 100,
    mem: "1G",
};

/// The lines: more of one thing at a time, at the end of several.
const CASES: [Case; 9] = [
    LEAST,
    Case { fifos: 8, ..LEAST },
    Case { fifos: 31, ..LEAST },
    Case {
        devices: 8,
        ..LEAST
    },
    Case {
        devices: 64,
        ..LEAST
    },
    Case { cpus: 8, ..LEAST },
    Case {
        capacity: "1M",
        ..LEAST
    },
    Case {
        capacity: "16M",
        ..LEAST
    },
    Case {
        fifos: 31,
        cpus: 8,
        capacity: "16M",
        mem: "4G",
        ..LEAST
    },
];

/// What a case came to.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    case: Case,
    /// Of what the guest tells, by its name there.
    guest: BTreeMap<String, i64>,
    /// Memory of all daemons that they do not share with the guest, in KiB.
    daemons_kib: u64,
}

/// Boots a machine for each case, prints the table; 0.
pub fn scale(args: &ScaleArgs) -> Result<u8> {
    let config = args.config()?;
    let wanted = args.wanted()?;
    if let Some(path) = &args.json {
        options::has_folder("--json", path)?;
    }
    machine::check(&config)?;
    let shop = Shop::open_for(config.system.arch)?;
    let ready = stages::set_up(&shop, &wanted)?;
    let paths = Paths::new(&ready);
    let (mut lines, mut failure) = (Vec::new(), None);
    for (number, case) in CASES.into_iter().enumerate() {
        ui::say(&format!("line {} of {}", number + 1, CASES.len()));
        match measure(case, &config, &paths) {
            Ok(line) => lines.push(line),
            // What has been measured is not lost with it.
            Err(err) => {
                failure = Some(exit::as_machine(err));
                break;
            }
        }
    }
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&lines)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    ui::print(table(&lines).trim_end());
    failure.map_or(Ok(0), Err)
}

fn measure(case: Case, config: &Config, paths: &Paths) -> Result<Line> {
    let config = Config {
        smp: case.cpus,
        mem: case.mem.to_owned(),
        fifos: vec!["loopback".to_owned(); usize::from(case.fifos)],
        capacity: Some(case.capacity.to_owned()),
        further: case.devices - 1,
        ..config.clone()
    };
    let mut guest = Guest::boot(&config, paths)?;
    let all = u16::from(case.fifos) + u16::from(case.devices) - 1;
    let program = format!("/{}/bin/scale", guest::HOME);
    let said = guest.output(&[&program, &all.to_string(), &case.requests.to_string()])?;
    let figures = figures(&said);
    anyhow::ensure!(
        figures.contains_key("end_ns"),
        "the guest's program did not get to its end: {}",
        guest.take_errors().trim()
    );
    let further = (0..config.further).map(devices::further);
    let names = std::iter::once(devices::FIFO.to_owned()).chain(further);
    let memory = names.map(|name| Ok(Usage::of(guest.machine.pid_of(&name)?)?.memory));
    Ok(Line {
        case,
        guest: figures,
        daemons_kib: memory.sum::<Result<u64>>()?,
    })
}

/// `NAME VALUE` a line.
fn figures(said: &str) -> BTreeMap<String, i64> {
    let figure = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    said.lines().filter_map(figure).collect()
}

fn table(lines: &[Line]) -> String {
    let head = [
        "FIFOs",
        "devices",
        "CPUs",
        "capacity",
        "requests",
        "load, ms",
        "kernel, KiB",
        "a FIFO",
        "daemons, KiB",
        "a FIFO",
        "first, µs",
        "last, µs",
        "submit, µs",
        "bytes",
        "complete, µs",
        "end, µs",
    ]
    .map(str::to_owned);
    let rows: Vec<Vec<String>> = lines.iter().map(row).collect();
    align(&rows, &head)
}

fn row(line: &Line) -> Vec<String> {
    let case = &line.case;
    let fifos = i64::from(case.fifos) + i64::from(case.devices) - 1;
    let figure = |name: &str| line.guest.get(name).copied();
    let shown =
        |value: Option<i64>| value.map_or_else(|| "–".to_owned(), |value| value.to_string());
    let thousandth = |name: &str| {
        let tenths = figure(name).map(|value| value / 100);
        tenths.map_or_else(
            || "–".to_owned(),
            |tenths| format!("{}.{}", tenths / 10, tenths % 10),
        )
    };
    let kernel = figure("bound_kib");
    let daemons = i64::try_from(line.daemons_kib).ok();
    vec![
        case.fifos.to_string(),
        case.devices.to_string(),
        case.cpus.to_string(),
        case.capacity.to_owned(),
        case.requests.to_string(),
        shown(figure("bind_us").map(|us| us / 1000)),
        shown(kernel),
        shown(kernel.map(|kib| kib / fifos)),
        shown(daemons),
        shown(daemons.map(|kib| kib / fifos)),
        shown(figure("first_us")),
        shown(figure("last_us")),
        thousandth("submit_ns"),
        shown(figure("request_bytes")),
        shown(figure("complete_us")),
        thousandth("end_ns"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::qemu::FURTHER_MAX;

    #[test]
    fn every_case_is_one_that_device_and_machine_can_be() {
        for case in CASES {
            assert!((1..=31).contains(&case.fifos));
            assert!(case.devices >= 1 && case.devices - 1 <= FURTHER_MAX);
        }
    }

    #[test]
    fn a_line_has_a_cell_for_each_heading_and_what_a_fifo_costs() {
        let said = "bind_us 12345\nbound_kib 330\nfirst_us 90\nsubmit_ns 4567\nend_ns 99\n";
        let line = Line {
            case: Case {
                fifos: 31,
                devices: 3,
                ..LEAST
            },
            guest: figures(said),
            daemons_kib: 660,
        };
        let row = row(&line);
        assert_eq!(
            row,
            [
                "31", "3", "1", "4096", "100", "12", "330", "10", "660", "20", "90", "–", "4.5",
                "–", "–", "0.0"
            ]
        );
        let table = table(&[line]);
        assert_eq!(table.lines().count(), 2);
    }
}
