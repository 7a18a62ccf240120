// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! docs/conformance.md: each requirement of docs/virtio-fifo.md and the tests that name it. Must not know what a test does.
//!
//! A test names a requirement in the comment before its function, or within it. A requirement that no test names stands in [`GAPS`] with the
//! reason, and one that a test names does not.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use regex::Regex;

/// Where tests are, folders or files, and how they are run.
const FOLDERS: [(&str, &str); 8] = [
    ("protocol/tests", "cargo test -p virtio-fifo-protocol"),
    (
        "vmm-glue/tests/recognition.rs",
        "cargo lab test lab/recognition",
    ),
    ("device/tests", "cargo test -p vhost-device-fifo"),
    ("device/testdriver", "cargo test -p vhost-device-fifo"),
    ("device/spec/src/tests.rs", "cargo test -p fifo-spec"),
    (
        "guest-driver/host-tests/src/tests",
        "cargo test -p driver-host-tests",
    ),
    ("guest-tests/src/bin", "cargo lab test guest/"),
    ("fuzz/targets/src", "docs/security.md"),
];

/// Requirements that no test names, and why.
const GAPS: [(&str, &str); 4] = [
    (
        "DRV-1",
        "The driver's table of features is empty (`guest-driver/kapi/virtio/driver.rs`).",
    ),
    (
        "DRV-3",
        "Read once, when the driver probes (`guest-driver/driver/device.rs`).",
    ),
    (
        "DRV-21",
        "The kernel's virtio core makes the rings, anew after each reset.",
    ),
    (
        "DEV-12",
        "A matter of speed: without it the bytes come one notification later (`device/src/worker.rs`).",
    ),
];

/// A requirement's number and its text.
type Requirement = (String, String);

/// What names a requirement: file below the repository, function.
type Place = (String, String);

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The requirements of `text`, in its order.
fn requirements(text: &str) -> Result<Vec<Requirement>> {
    let item = Regex::new(r"^- \*\*((?:DEV|DRV)-\d+)\*\* (.*)$")?;
    let mut items: Vec<String> = Vec::new();
    for line in text.lines() {
        match items.last_mut() {
            Some(last) if line.starts_with("  ") && !last.is_empty() => {
                last.push(' ');
                last.push_str(line.trim());
            }
            // A blank one ends what an indented line may go on.
            _ => items.push(line.to_owned()),
        }
    }
    let found = items.iter().filter_map(|text| {
        let found = item.captures(text)?;
        Some((found[1].to_owned(), found[2].to_owned()))
    });
    Ok(found.collect())
}

/// Rust files at or below `place`, sorted.
fn sources(place: &Path) -> Result<Vec<PathBuf>> {
    if place.is_file() {
        return Ok(vec![place.to_owned()]);
    }
    let mut folders = vec![place.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The requirements that functions of `source` name, each function once.
fn named(source: &str) -> Result<Vec<(String, String)>> {
    let number = Regex::new(r"\b(?:DEV|DRV)-\d+\b")?;
    let function = Regex::new(r"^\s*(?:pub(?:\([a-z]+\))? )?fn (\w+)")?;
    let (mut found, mut coming, mut current) = (Vec::new(), Vec::new(), None);
    for line in source.lines() {
        if let Some(name) = function.captures(line) {
            let name = name[1].to_owned();
            found.extend(coming.drain(..).map(|number| (number, name.clone())));
            current = Some(name);
        }
        let numbers = number
            .find_iter(line)
            .map(|number| number.as_str().to_owned());
        if line.trim_start().starts_with("///") {
            coming.extend(numbers);
        } else if let Some(current) = &current {
            found.extend(numbers.map(|number| (number, current.clone())));
        }
    }
    Ok(found)
}

/// The places that name each requirement.
fn places() -> Result<BTreeMap<String, Vec<Place>>> {
    let root = fs::canonicalize(repository())?;
    let mut all: BTreeMap<String, Vec<Place>> = BTreeMap::new();
    for (folder, _) in FOLDERS {
        for file in sources(&root.join(folder))? {
            let name = file.strip_prefix(&root)?.display().to_string();
            for (number, function) in named(&fs::read_to_string(&file)?)? {
                let places = all.entry(number).or_default();
                let place = (name.clone(), function);
                if !places.contains(&place) {
                    places.push(place);
                }
            }
        }
    }
    Ok(all)
}

fn page(requirements: &[Requirement], places: &BTreeMap<String, Vec<Place>>) -> Result<String> {
    let mut page = String::from(
        "<!-- SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause -->\n\
         <!-- Made from docs/virtio-fifo.md and the tests: `UPDATE_PAGES=1 cargo test -p fifo-lab --test conformance`. -->\n\
         # Requirements and their tests\n\n\
         Each requirement of [the specification](virtio-fifo.md), with the functions of tests that name it. Tests are run by:\n\n\
         | tests | command |\n|---|---|\n",
    );
    for (folder, command) in FOLDERS {
        let command = match command.strip_prefix("docs/") {
            Some(file) => format!("see [{file}]({file})"),
            None => format!("`{command}`"),
        };
        writeln!(page, "| [{folder}](../{folder}) | {command} |")?;
    }
    for (side, title) in [("DEV", "The device"), ("DRV", "The driver")] {
        write!(page, "\n## {title}\n")?;
        for (number, text) in requirements
            .iter()
            .filter(|(number, _)| number.starts_with(side))
        {
            write!(page, "\n### {number}\n{text}\n\n")?;
            for (file, function) in places.get(number).into_iter().flatten() {
                writeln!(page, "- [{file}](../{file}): `{function}`")?;
            }
            for (_, reason) in GAPS.iter().filter(|(gap, _)| gap == number) {
                writeln!(page, "- no test. {reason}")?;
            }
        }
    }
    Ok(page)
}

#[test]
fn each_requirement_has_a_test_or_a_reason_and_the_page_says_so() -> Result<()> {
    let requirements = requirements(&fs::read_to_string(
        repository().join("docs/virtio-fifo.md"),
    )?)?;
    let places = places()?;
    for (number, _) in &requirements {
        let is_gap = GAPS.iter().any(|(gap, _)| gap == number);
        ensure!(
            places.contains_key(number) != is_gap,
            "{number}: give it a test that names it, or a line in GAPS; not both"
        );
    }
    for (number, named_by) in &places {
        ensure!(
            requirements.iter().any(|(known, _)| known == number),
            "{number}: {named_by:?} names what the specification does not have"
        );
    }
    let page = page(&requirements, &places)?;
    let path = repository().join("docs/conformance.md");
    if std::env::var_os("UPDATE_PAGES").is_some() {
        fs::write(&path, &page)?;
    }
    ensure!(
        fs::read_to_string(&path).unwrap_or_default() == page,
        "docs/conformance.md is behind: UPDATE_PAGES=1 cargo test -p fifo-lab --test conformance"
    );
    Ok(())
}

#[test]
fn comments_count_for_the_function_that_follows_and_lines_within_for_the_one_around() -> Result<()>
{
    let source = "/// DEV-1, DRV-22.\n#[test]\nfn first() {\n    // DEV-3\n}\n\n/// Nothing.\nfn second() {}\n";
    let pair = |number: &str, function: &str| (number.to_owned(), function.to_owned());
    let expected = [
        pair("DEV-1", "first"),
        pair("DRV-22", "first"),
        pair("DEV-3", "first"),
    ];
    assert_eq!(named(source)?, expected);
    Ok(())
}

#[test]
fn a_requirement_goes_on_over_indented_lines() -> Result<()> {
    let text = "- **DEV-1** One\n  and a half.\n- **DRV-2** Two.\n\n  Not of it.\n";
    let pair = |number: &str, text: &str| (number.to_owned(), text.to_owned());
    let expected = [pair("DEV-1", "One and a half."), pair("DRV-2", "Two.")];
    assert_eq!(requirements(text)?, expected);
    Ok(())
}
