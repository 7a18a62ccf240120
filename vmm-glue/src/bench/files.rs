// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A report as files: JSON for programs, CSV for spreadsheets, a page for people.

use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use serde::Serialize;

use super::changes::Changes;
use super::device::Alone;
use super::facts::Facts;
use super::goals::Goal;
use super::idle::Comparison;
use super::interval::CONFIDENCE;
use super::page;
use super::report::Report;
use super::results::Figures;
use super::results::Metric;
use super::results::Name;
use super::stats::Latencies;

/// Version of bench.json. It changes whenever an earlier file would be read wrongly.
pub const FORMAT: u32 = 1;
/// Name of the file for programs, which a later run reads as its baseline.
pub const JSON: &str = "bench.json";

/// The columns of figures of the CSV file.
const COLUMNS: [(&str, Metric); 10] = [
    ("operations_per_second", Metric::OperationRate),
    ("bytes_per_second", Metric::ByteRate),
    ("p50_ns", Metric::P50),
    ("p99_ns", Metric::P99),
    ("p999_ns", Metric::P999),
    ("p9999_ns", Metric::P9999),
    ("interrupts_per_operation", Metric::Interrupts),
    ("guest_cpu_ns_per_mb", Metric::GuestCpu),
    ("host_cpu_ns_per_mb", Metric::HostCpu),
    ("waiter_bytes", Metric::Memory),
];

/// In place of a round's number in the CSV file: quantiles of all rounds together.
const ALL_ROUNDS: &str = "all";

/// bench.json: everything, down to the single rounds.
#[derive(Serialize)]
struct Document<'a> {
    format: u32,
    confidence_percent: u32,
    facts: &'a Facts,
    goals: &'a [Goal],
    alone: Option<&'a Alone>,
    idle: Option<&'a Comparison>,
    changes: Option<&'a Changes>,
    not_measured: &'a std::collections::BTreeMap<String, String>,
    measurements: Vec<Measurement<'a>>,
}

#[derive(Serialize)]
struct Measurement<'a> {
    #[serde(flatten)]
    name: &'a Name,
    rounds: &'a [Option<Figures>],
    /// Latencies of all rounds together.
    #[serde(skip_serializing_if = "Option::is_none")]
    together: Option<Together>,
}

/// Quantiles of all rounds together; those of the tail where there are enough operations.
#[derive(Serialize)]
struct Together {
    operations: u64,
    p50_ns: f64,
    p99_ns: f64,
    p999_ns: Option<f64>,
    p9999_ns: Option<f64>,
}

impl Together {
    fn of(latencies: &Latencies) -> Self {
        Self {
            operations: latencies.count(),
            p50_ns: latencies.quantile(0.5),
            p99_ns: latencies.quantile(0.99),
            p999_ns: latencies.but_one_in(1000),
            p9999_ns: latencies.but_one_in(10_000),
        }
    }
}

/// Writes all of them into a folder, which is made if it is missing.
pub fn write(report: &Report, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let put = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    put(JSON, &json(report)?)?;
    put("bench.csv", &csv(report)?)?;
    for trace in &report.traces {
        put(&trace.file, &trace.page)?;
    }
    put("bench.html", &page::render(report))
}

fn json(report: &Report) -> Result<String> {
    let results = &report.results;
    let measurements = results.names().iter().map(|name| Measurement {
        name,
        rounds: results.rounds(name),
        together: results.latencies(name).as_ref().map(Together::of),
    });
    let document = Document {
        format: FORMAT,
        confidence_percent: CONFIDENCE,
        facts: &report.facts,
        goals: &report.goals,
        alone: report.alone.as_ref(),
        idle: report.idle.as_ref(),
        changes: report.changes.as_ref(),
        not_measured: results.troubles(),
        measurements: measurements.collect(),
    };
    Ok(serde_json::to_string(&document)? + "\n")
}

fn csv(report: &Report) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let names = ["work", "parameter", "way", "round"].into_iter();
    writer.write_record(names.chain(COLUMNS.map(|(name, _)| name)))?;
    for name in report.results.names() {
        let mut row = |round: &str, value: &dyn Fn(Metric) -> Option<f64>| {
            let key = [
                name.group.name().to_owned(),
                name.parameter.to_string(),
                name.way.clone(),
                round.to_owned(),
            ];
            let values = COLUMNS.map(|(_, metric)| {
                value(metric).map_or_else(String::new, |value| value.to_string())
            });
            writer.write_record(key.iter().chain(&values))
        };
        for (figures, round) in report.results.rounds(name).iter().zip(1_usize..) {
            if let Some(figures) = figures {
                row(&round.to_string(), &|metric| figures.metric(metric))?;
            }
        }
        if let Some(latencies) = report.results.latencies(name) {
            let together = Together::of(&latencies);
            row(ALL_ROUNDS, &|metric| match metric {
                Metric::P50 => Some(together.p50_ns),
                Metric::P99 => Some(together.p99_ns),
                Metric::P999 => together.p999_ns,
                Metric::P9999 => together.p9999_ns,
                _ => None,
            })?;
        }
    }
    let bytes = writer.into_inner().context("cannot put the CSV together")?;
    Ok(String::from_utf8(bytes)?)
}

#[cfg(test)]
mod tests {
    use globalfifo_bench_protocol::Measured;

    use super::super::plan::Group;
    use super::super::results::sample;
    use super::*;

    fn report() -> Report {
        let measured = Measured {
            operations: 10,
            bytes: 640,
            nanos: 1_000_000_000,
            latencies: vec![(100, 29_990), (9000, 10)],
            ..Measured::default()
        };
        let results = sample(&[(Group::Send, 64, "pipe, \"quoted\"", measured)]);
        Report::new(Facts::default(), results, None, None)
    }

    #[test]
    fn the_files_hold_the_figures() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("new/folder");
        write(&report(), &out).unwrap();
        let json = fs::read_to_string(out.join("bench.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let measurement = &json["measurements"][0];
        assert_eq!(measurement["group"], "send");
        assert_eq!(measurement["rounds"][0]["bytes"], 640);
        assert_eq!(measurement["together"]["operations"], 30_000);
        let slowest = measurement["together"]["p9999_ns"].as_f64().unwrap();
        assert!((8990.0..9010.0).contains(&slowest), "{slowest}");
        assert_eq!(json["format"], FORMAT);
        let csv = fs::read_to_string(out.join("bench.csv")).unwrap();
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        let column = reader
            .headers()
            .unwrap()
            .iter()
            .position(|name| name == "p9999_ns");
        let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        let [round, all] = records.as_slice() else {
            panic!("{csv}");
        };
        assert_eq!(&round[2], "pipe, \"quoted\"");
        assert_eq!((&round[3], &round[4]), ("1", "10"));
        assert_eq!((&all[3], &all[4]), (ALL_ROUNDS, ""));
        assert_eq!(all[column.unwrap()].parse(), Ok(slowest));
        assert!(out.join("bench.html").is_file());
    }
}
