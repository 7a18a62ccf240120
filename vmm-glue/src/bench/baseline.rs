// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An earlier run's bench.json, read again.
//!
//! The file comes from anywhere: whatever is wrong with it is one line and a usage error, before anything is booted.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::Deserialize;

use super::facts::Facts;
use super::files::FORMAT;
use super::files::JSON;
use super::plan::Trial;
use super::results::Figures;
use super::results::Name;
use super::results::Results;
use crate::exit;

/// What an earlier run found.
#[derive(Debug)]
pub struct Baseline {
    /// What it ran on.
    pub facts: Facts,
    /// Figures.
    pub results: Results,
}

/// What every version of the file has.
#[derive(Deserialize)]
struct Stamp {
    format: u32,
}

#[derive(Deserialize)]
struct Document {
    facts: Facts,
    measurements: Vec<Measurement>,
}

#[derive(Deserialize)]
struct Measurement {
    #[serde(flatten)]
    name: Name,
    rounds: Vec<Option<Figures>>,
}

impl Baseline {
    /// Reads what `cargo lab bench --out DIR` wrote.
    pub fn read(dir: &Path) -> Result<Self> {
        let wrong = |what: String| exit::usage(format!("--baseline {}: {what}", dir.display()));
        let text = fs::read_to_string(dir.join(JSON)).map_err(|err| {
            wrong(format!(
                "cannot read {JSON} in it ({err}); name a folder that `cargo lab bench --out DIR` has written"
            ))
        })?;
        let stamp: Stamp = serde_json::from_str(&text).map_err(|err| {
            wrong(format!(
                "{JSON} in it is no report of `cargo lab bench` ({err})"
            ))
        })?;
        if stamp.format != FORMAT {
            return Err(wrong(format!(
                "{JSON} in it has format {}, and {FORMAT} is wanted; measure the baseline again with this lab",
                stamp.format
            )));
        }
        let Document {
            facts,
            measurements,
        } = serde_json::from_str(&text)
            .map_err(|err| wrong(format!("{JSON} in it is damaged ({err})")))?;
        let mut results = Results::default();
        for Measurement { name, rounds } in measurements {
            results.put(name, rounds);
        }
        Ok(Self { facts, results })
    }

    /// Whether anything of a plan was measured then: otherwise there will be nothing to compare.
    pub fn has_any_of(&self, trials: &[Trial]) -> bool {
        let mut names = trials.iter().map(Name::of);
        names.any(|name| self.results.rounds(&name).iter().any(Option::is_some))
    }
}

#[cfg(test)]
mod tests {
    use globalfifo_bench_protocol::Measured;

    use super::super::files;
    use super::super::plan::Group;
    use super::super::report::Report;
    use super::super::results::Metric;
    use super::super::results::idle_trial;
    use super::super::results::sample_rounds;
    use super::*;

    fn complaint(dir: &Path) -> String {
        let err = Baseline::read(dir).unwrap_err();
        let (status, message) = exit::of(&err);
        assert_eq!(status, exit::USAGE, "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.starts_with("--baseline "), "{message}");
        message
    }

    #[test]
    fn what_a_run_wrote_is_read_again() {
        let measured = Measured {
            operations: 10,
            nanos: 1_000_000_000,
            latencies: vec![(100, 10)],
            waiter_bytes: Some(0.5),
            ..Measured::default()
        };
        let mut results = sample_rounds(5, &[(Group::Send, 64, "pipe", measured)]);
        results.add(&idle_trial(Group::Send, 64, "pipe"), None);
        let mut facts = Facts::default();
        facts.guest.edition = "teaching".to_owned();
        let report = Report::new(facts.clone(), results.clone(), None, None);
        let dir = tempfile::tempdir().unwrap();
        files::write(&report, dir.path()).unwrap();
        let found = Baseline::read(dir.path()).unwrap();
        assert_eq!(found.facts, facts);
        let name = Name::new(Group::Send, 64, "pipe");
        assert_eq!(found.results.rounds(&name), results.rounds(&name));
        let values = found.results.values(&name, Metric::OperationRate);
        assert_eq!(values, [[Some(10.0); 5].as_slice(), &[None]].concat());
        assert!(found.has_any_of(&[idle_trial(Group::Send, 64, "pipe")]));
        assert!(!found.has_any_of(&[idle_trial(Group::Send, 65, "pipe")]));
    }

    #[test]
    fn a_folder_that_no_run_wrote_is_told_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        assert!(complaint(&dir.path().join("none")).contains("cannot read bench.json"));
        assert!(complaint(dir.path()).contains("cannot read bench.json"));
        // A file in place of the folder.
        let file = dir.path().join("file");
        fs::write(&file, "{}").unwrap();
        assert!(complaint(&file).contains("cannot read bench.json"));
        // A folder in place of the file.
        let folder = dir.path().join("folder");
        fs::create_dir_all(folder.join(JSON)).unwrap();
        assert!(complaint(&folder).contains("cannot read bench.json"));
    }

    #[test]
    fn a_foreign_or_damaged_file_is_told_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let foreign = "is no report of `cargo lab bench`";
        let cases: [(&[u8], &str); 9] = [
            (b"", foreign),
            (b"\xff\xfe", "cannot read bench.json"),
            (b"hello\nthere", foreign),
            (b"[1, 2]", foreign),
            (b"{\"goals\": []}", foreign),
            (b"{\"format\": \"1\"}", foreign),
            (b"{\"format\": 4000000}", "format 4000000"),
            (b"{\"format\": 1}", "is damaged"),
            (
                b"{\"format\": 1, \"facts\": {}, \"measurements\": [{\"group\": \"x\"}]}",
                "is damaged",
            ),
        ];
        for (bytes, what) in cases {
            fs::write(dir.path().join(JSON), bytes).unwrap();
            let complaint = complaint(dir.path());
            assert!(complaint.contains(what), "{complaint}");
        }
    }
}
