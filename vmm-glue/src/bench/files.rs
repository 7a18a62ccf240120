//! A report as files: JSON for programs, CSV for spreadsheets, a page for people.

use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use serde::Serialize;

use super::device::Alone;
use super::goals::Goal;
use super::idle::Comparison;
use super::page;
use super::report::Facts;
use super::report::Report;
use super::results::Figures;
use super::results::Metric;
use super::results::Name;

/// The columns of figures of the CSV file.
const COLUMNS: [(&str, Metric); 9] = [
    ("operations_per_second", Metric::OperationRate),
    ("bytes_per_second", Metric::ByteRate),
    ("p50_ns", Metric::P50),
    ("p99_ns", Metric::P99),
    ("p999_ns", Metric::P999),
    ("interrupts_per_operation", Metric::Interrupts),
    ("guest_cpu_ns_per_mb", Metric::GuestCpu),
    ("host_cpu_ns_per_mb", Metric::HostCpu),
    ("waiter_bytes", Metric::Memory),
];

/// bench.json: everything, down to the single rounds.
#[derive(Serialize)]
struct Document<'a> {
    facts: &'a Facts,
    goals: &'a [Goal],
    alone: Option<&'a Alone>,
    idle: Option<&'a Comparison>,
    not_measured: &'a std::collections::BTreeMap<String, String>,
    measurements: Vec<Measurement<'a>>,
}

#[derive(Serialize)]
struct Measurement<'a> {
    #[serde(flatten)]
    name: &'a Name,
    rounds: &'a [Option<Figures>],
}

/// Writes all of them into a folder, which is made if it is missing.
pub fn write(report: &Report, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let put = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    put("bench.json", &json(report)?)?;
    put("bench.csv", &csv(report)?)?;
    put("bench.html", &page::render(report))
}

fn json(report: &Report) -> Result<String> {
    let results = &report.results;
    let measurements = results.names().iter().map(|name| Measurement {
        name,
        rounds: results.rounds(name),
    });
    let document = Document {
        facts: &report.facts,
        goals: &report.goals,
        alone: report.alone.as_ref(),
        idle: report.idle.as_ref(),
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
        for (figures, round) in report.results.rounds(name).iter().zip(1..) {
            let Some(figures) = figures else { continue };
            let key = [
                name.group.name().to_owned(),
                name.parameter.to_string(),
                name.way.clone(),
                format!("{round}"),
            ];
            let values = COLUMNS.map(|(_, metric)| {
                let value = figures.metric(metric);
                value.map_or_else(String::new, |value| value.to_string())
            });
            writer.write_record(key.iter().chain(&values))?;
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
            latencies: vec![(100, 10)],
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
        let csv = fs::read_to_string(out.join("bench.csv")).unwrap();
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        let record = reader.records().next().unwrap().unwrap();
        assert_eq!(&record[2], "pipe, \"quoted\"");
        assert_eq!(&record[4], "10");
        assert!(out.join("bench.html").is_file());
    }
}
