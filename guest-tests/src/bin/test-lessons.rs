// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs each of the chapter's lessons as a test: the program `lesson` beside this one, which checks itself.
//! Runs with `--fifo loopback --fifo zero`.

use std::io::{Write, stdout};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use globalfifo_guest_tests::lessons::{LESSONS, Lesson};

/// Where the figures go: nobody looks at them here.
const SVG_FOLDER: &str = "/tmp";

fn report(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn run(lesson: &Lesson) -> Result<()> {
    let program = std::env::current_exe()?.with_file_name("lesson");
    let output = Command::new(&program)
        .args([lesson.id, "--svg", SVG_FOLDER])
        .output()
        .with_context(|| format!("starting {}", program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        let complaints = String::from_utf8_lossy(&output.stderr);
        bail!("{}\n{said}{complaints}", output.status);
    }
    Ok(())
}

fn all() -> Result<bool> {
    let filters: Vec<String> = std::env::args().skip(1).collect();
    if filters == ["--list"] {
        for lesson in LESSONS {
            report(&format!("{}\n", lesson.id))?;
        }
        return Ok(true);
    }
    let chosen: Vec<&Lesson> = LESSONS
        .iter()
        .filter(|lesson| {
            filters.is_empty() || filters.iter().any(|f| lesson.id.contains(f.as_str()))
        })
        .collect();
    report(&format!("KTAP version 1\n1..{}\n", chosen.len()))?;
    let mut passed = true;
    for (number, lesson) in (1..).zip(chosen) {
        let started = Instant::now();
        let outcome = run(lesson);
        let took = started.elapsed().as_millis();
        if let Err(error) = &outcome {
            passed = false;
            for line in format!("{error:#}").lines() {
                report(&format!("# {line}\n"))?;
            }
        }
        let word = if outcome.is_ok() { "ok" } else { "not ok" };
        report(&format!("{word} {number} {} # {took} ms\n", lesson.id))?;
    }
    Ok(passed)
}

fn main() -> ExitCode {
    match all() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("test-lessons: {error:#}");
            ExitCode::FAILURE
        }
    }
}
