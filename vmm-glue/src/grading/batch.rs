// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A class's submissions: which entries of a folder are some, which part of them one machine grades, and the table of all results.
//!
//! It knows files and no machine. It must not know how an entry is graded.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context;
use anyhow::Result;
use maud::DOCTYPE;
use maud::PreEscaped;
use maud::html;
use serde::Deserialize;

use super::outcome::Verdict;
use crate::exit::usage;

const STYLE: &str = include_str!("page.css");

/// `--partition`: which of how many parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// From 1.
    part: usize,
    parts: usize,
}

impl FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text
            .split_once('/')
            .and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
        match numbers {
            Some((part, parts)) if (1..=parts).contains(&part) => Ok(Self { part, parts }),
            _ => Err("write it I/N, from 1/N to N/N".to_owned()),
        }
    }
}

impl Partition {
    /// Its share: every N-th, so that parts take about as long as each other.
    pub fn of<T>(self, all: Vec<T>) -> Vec<T> {
        let all = all.into_iter().enumerate();
        all.filter(|(number, _)| number % self.parts == self.part - 1)
            .map(|(_, item)| item)
            .collect()
    }
}

/// Something to grade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its file name; the results have names that begin with it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// Entries of a folder: folders and .c, .rs and .ko files, in the order of their names. No links, which may lead to another's.
pub fn entries(folder: &Path) -> Result<Vec<Entry>> {
    let refused = |why: &str| usage(format!("--batch {}: {why}", folder.display()));
    let found = fs::read_dir(folder).map_err(|err| refused(&err.to_string()))?;
    let mut entries = Vec::new();
    for entry in found {
        let entry = entry?;
        let kind = entry.file_type()?;
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let extension = path.extension().and_then(|ext| ext.to_str());
        let is_source = kind.is_file() && matches!(extension, Some("c" | "rs" | "ko"));
        if !name.starts_with('.') && (kind.is_dir() || is_source) {
            entries.push(Entry { name, path });
        }
    }
    if entries.is_empty() {
        return Err(refused("no folder, .c, .rs or .ko file there"));
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// A row of the table: a result as its file has it.
#[derive(Debug, Deserialize)]
struct Row {
    #[serde(skip)]
    name: String,
    passed: bool,
    #[serde(default)]
    rules: Vec<Cell>,
    /// Why it could not be graded.
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Cell {
    id: String,
    verdict: Verdict,
    must: bool,
    seconds: f64,
}

impl Row {
    fn count(&self, verdict: Verdict, must: bool) -> usize {
        let cells = self.rules.iter();
        cells
            .filter(|cell| cell.verdict == verdict && cell.must == must)
            .count()
    }

    fn musts(&self) -> usize {
        self.rules.iter().filter(|cell| cell.must).count()
    }

    fn verdict(&self) -> &'static str {
        match (&self.error, self.passed) {
            (Some(_), _) => "not graded",
            (None, true) => "passed",
            (None, false) => "failed",
        }
    }

    fn failed(&self) -> Vec<&str> {
        let cells = self.rules.iter();
        cells
            .filter(|cell| cell.must && cell.verdict == Verdict::Fail)
            .map(|cell| cell.id.as_str())
            .collect()
    }

    /// What there is to say beside the counts.
    fn remark(&self) -> String {
        self.error
            .clone()
            .unwrap_or_else(|| self.failed().join(" "))
    }
}

/// The table of all results in a folder.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Row>,
}

/// Name of an entry's result.
pub fn result(output: &Path, name: &str, kind: &str) -> PathBuf {
    output.join(format!("{name}.{kind}"))
}

/// The result of an entry that could not be graded.
pub fn not_graded(name: &str, why: &str) -> Result<String> {
    let value = serde_json::json!({ "driver": name, "passed": false, "rules": [], "error": why });
    serde_json::to_string_pretty(&value).context("cannot put the JSON together")
}

impl Table {
    /// Reads it.
    pub fn read(output: &Path) -> Result<Self> {
        let mut rows = Vec::new();
        for path in crate::cache::entries(output) {
            if path.extension().is_none_or(|ext| ext != "json") {
                continue;
            }
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let row: Row = serde_json::from_str(&text)
                .with_context(|| format!("{} is no result of a grading", path.display()))?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            rows.push(Row {
                name: name.into_owned(),
                ..row
            });
        }
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { rows })
    }

    /// The line of an entry, for the terminal.
    pub fn line(&self, name: &str) -> String {
        self.rows
            .iter()
            .find(|row| row.name == name)
            .map_or(String::new(), |row| {
                format!(
                    "{:<10} {:>2} of {:>2} M  {}  {}",
                    row.verdict(),
                    row.count(Verdict::Pass, true),
                    row.musts(),
                    row.name,
                    row.remark()
                )
            })
    }

    /// Whether this entry has passed all M rules.
    pub fn has_passed(&self, name: &str) -> bool {
        self.rows.iter().any(|row| row.name == name && row.passed)
    }

    /// The rules that any result knows, in the order in which they ran.
    fn rules(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        let cells = self.rows.iter().flat_map(|row| &row.rules);
        cells
            .map(|cell| cell.id.as_str())
            .filter(|id| seen.insert(*id))
            .collect()
    }

    /// For spreadsheets: a row for each entry, a column for each rule.
    pub fn csv(&self) -> Result<String> {
        let rules = self.rules();
        let mut writer = csv::Writer::from_writer(Vec::new());
        let head = [
            "entry", "verdict", "M passed", "M", "O passed", "seconds", "remark",
        ];
        writer.write_record(head.iter().chain(&rules))?;
        for row in &self.rows {
            let seconds: f64 = row.rules.iter().map(|cell| cell.seconds).sum();
            let mut record = vec![
                plain(&row.name),
                row.verdict().to_owned(),
                row.count(Verdict::Pass, true).to_string(),
                row.musts().to_string(),
                row.count(Verdict::Pass, false).to_string(),
                format!("{seconds:.1}"),
                plain(&row.remark()),
            ];
            record.extend(rules.iter().map(|id| {
                let cell = row.rules.iter().find(|cell| cell.id == *id);
                cell.map_or(String::new(), |cell| cell.verdict.word().to_owned())
            }));
            writer.write_record(record)?;
        }
        let bytes = writer.into_inner().context("cannot put the CSV together")?;
        String::from_utf8(bytes).context("cannot put the CSV together")
    }

    /// As a page that opens without a network.
    pub fn html(&self) -> String {
        let passed = self.rows.iter().filter(|row| row.passed).count();
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { "Gradings" }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    h1 { "Gradings" }
                    p { (passed) " of " (self.rows.len()) " pass every M rule." }
                    table {
                        thead { tr { th { "entry" } th { "verdict" } th { "M" } th { "O" } th { "failed" } } }
                        tbody { @for row in &self.rows {
                            tr class=(if row.passed { "pass" } else { "fail" }) {
                                td { @if row.error.is_some() { (row.name) } @else { a href=(link(&row.name)) { (row.name) } } }
                                td.verdict { (row.verdict()) }
                                td { (row.count(Verdict::Pass, true)) " of " (row.musts()) }
                                td { (row.count(Verdict::Pass, false)) }
                                td { (row.remark()) }
                            }
                        } }
                    }
                }
            }
        };
        page.into_string()
    }
}

/// A cell that a spreadsheet does not take for a formula.
fn plain(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

/// Address of an entry's page beside the table.
fn link(name: &str) -> String {
    let mut address = "./".to_owned();
    for byte in format!("{name}.html").bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            address.push(char::from(byte));
        } else {
            address.push_str(&format!("%{byte:02X}"));
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str) -> Partition {
        text.parse().unwrap()
    }

    #[test]
    fn the_parts_are_all_entries_each_once() {
        let all: Vec<usize> = (0..10).collect();
        let mut parts: Vec<_> = ["1/3", "2/3", "3/3"]
            .iter()
            .flat_map(|text| part(text).of(all.clone()))
            .collect();
        parts.sort_unstable();
        assert_eq!(parts, all);
        for wrong in ["0/3", "4/3", "1", "a/b", "1/0", "-1/2"] {
            assert!(wrong.parse::<Partition>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn entries_are_folders_and_sources_and_no_links() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(crate::exit::of(&entries(dir.path()).unwrap_err()).0, 2);
        fs::create_dir(dir.path().join("zoe")).unwrap();
        for name in ["anna.c", "bert.rs", "notes.txt", ".hidden.c"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        std::os::unix::fs::symlink("anna.c", dir.path().join("copy.c")).unwrap();
        let found = entries(dir.path()).unwrap();
        let names: Vec<_> = found.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["anna.c", "bert.rs", "zoe"]);
    }

    #[test]
    fn the_table_has_a_row_for_each_result_and_a_column_for_each_rule() {
        let dir = tempfile::tempdir().unwrap();
        let result = r#"{"driver": "x", "passed": false, "kernel": "stock", "rules": [
            {"id": "read.data", "verdict": "pass", "must": true, "seconds": 1.5},
            {"id": "read.wakes", "verdict": "fail", "must": true, "seconds": 0.5},
            {"id": "aio.read", "verdict": "absent", "must": false, "seconds": 0.5}]}"#;
        fs::write(dir.path().join("=anna.c.json"), result).unwrap();
        fs::write(
            dir.path().join("b<ert.json"),
            not_graded("bert", "too, late").unwrap(),
        )
        .unwrap();
        let table = Table::read(dir.path()).unwrap();
        let csv = table.csv().unwrap();
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        assert_eq!(
            reader.headers().unwrap().iter().next_back(),
            Some("aio.read")
        );
        let records: Vec<Vec<String>> = reader
            .records()
            .map(|record| record.unwrap().iter().map(str::to_owned).collect())
            .collect();
        assert_eq!(
            records[0],
            [
                "'=anna.c",
                "failed",
                "1",
                "2",
                "0",
                "2.5",
                "read.wakes",
                "pass",
                "FAIL",
                "not there"
            ]
        );
        assert_eq!(&records[1][..2], ["b<ert", "not graded"]);
        assert_eq!(records[1][6], "too, late");
        let page = table.html();
        assert!(page.contains("b&lt;ert") && page.contains("./%3Danna.c.html"));
        assert!(!page.contains("http"));
        assert!(
            table
                .line("=anna.c")
                .contains("failed      1 of  2 M  =anna.c  read.wakes")
        );
        assert!(!table.has_passed("=anna.c"));
    }
}
