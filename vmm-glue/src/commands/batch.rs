// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab grade --batch`: each entry by a lab of its own, which is ended at its limit, several at once; then the table of all results.
//!
//! It must not know a rule.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;

use crate::child;
use crate::child::Place;
use crate::child::Spec;
use crate::cli::GradeArgs;
use crate::exit;
use crate::grading::batch;
use crate::grading::batch::Entry;
use crate::grading::batch::Table;
use crate::grading::catalog::Catalog;
use crate::ui;

/// Lines of a log that say why there is no result.
const LAST_LINES: usize = 3;

/// Grades all; 0 if each entry passed all M rules that were selected.
pub fn grade(args: &GradeArgs, folder: &Path, catalog: &Catalog) -> Result<u8> {
    catalog.select(&args.rule)?;
    let mut entries = batch::entries(folder)?;
    if let Some(partition) = args.partition {
        entries = partition.of(entries);
    }
    fs::create_dir_all(&args.output)
        .with_context(|| format!("--output: cannot make {}", args.output.display()))?;
    let todo = Mutex::new(entries.iter());
    let failure = Mutex::new(None);
    let next = || todo.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some(entry) = next() {
            if let Err(err) = one(args, entry) {
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(err);
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.get().min(entries.len()) {
            scope.spawn(work);
        }
    });
    if let Some(err) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(err);
    }
    let table = table(&args.output)?;
    let passed = |entry: &&Entry| table.has_passed(&entry.name);
    let count = entries.iter().filter(passed).count();
    ui::print(&format!(
        "{count} of {} pass every M rule; {}",
        entries.len(),
        args.output.join("table.html").display()
    ));
    Ok(u8::from(count != entries.len()))
}

/// Writes the table of the results in a folder.
pub fn table(output: &Path) -> Result<Table> {
    if !output.is_dir() {
        let given = output.display();
        return Err(exit::usage(format!("--table {given}: no folder")));
    }
    let table = Table::read(output)?;
    put(&output.join("table.csv"), &table.csv()?)?;
    put(&output.join("table.html"), &table.html())?;
    Ok(table)
}

/// Grades an entry and prints its line.
fn one(args: &GradeArgs, entry: &Entry) -> Result<()> {
    ui::say(&format!("grading {}", entry.name));
    let result = |kind: &str| batch::result(&args.output, &entry.name, kind);
    // Under another name until it is whole: others may read the results meanwhile.
    let fresh = result("partial");
    let json = result("json");
    for path in [&json, &fresh, &result("html")] {
        match fs::remove_file(path) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                return Err(err).with_context(|| format!("cannot replace {}", path.display()));
            }
            _ => {}
        }
    }
    let spec = Spec::new("/proc/self/exe")
        .arg("grade")
        .args(args.for_each_entry())
        .args(["--json".as_ref(), fresh.as_os_str()])
        .args(["--html".as_ref(), result("html").as_os_str()])
        .arg("--")
        .arg(&entry.path)
        .place(Place::Group);
    let limit = Duration::from_secs(args.limit.get().into());
    let captured = child::capture(&spec, limit)?;
    crate::cancel::check()?;
    put(&result("log"), &captured.text)?;
    let why = match captured.status {
        // A result without a verdict has one of the machine's, and says why.
        Some(0 | 1 | exit::MACHINE) if fresh.is_file() => {
            fs::rename(&fresh, &json)
                .with_context(|| format!("cannot write {}", json.display()))?;
            None
        }
        None => Some(format!("it had not ended after {} s", limit.as_secs())),
        Some(_) => Some(crate::causes::tail(&captured.text, LAST_LINES).replace('\n', " ")),
    };
    if let Some(why) = why {
        put(&json, &batch::not_graded(&entry.name, &why)?)?;
    }
    ui::print(&Table::read(&args.output)?.line(&entry.name));
    Ok(())
}

/// Writes a file whole: others may read it meanwhile.
fn put(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
