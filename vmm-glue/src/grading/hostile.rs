// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Drivers that fail in hard ways: each is put together as a user would have it, graded, and has one clear verdict for each rule. It must not
//! know how a rule is run.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use serde::Deserialize;

use super::graded::Grader;
use super::graded::PLACE;
use super::mutants;
use super::outcome::Outcome;
use super::outcome::Verdict;
use super::report;
use super::session::Session;
use super::subject;
use super::subject::Subject;
use crate::scratch;
use crate::scratch::Scratch;
use crate::stages::System;

/// The cases, in the grader's folder.
const LIST: &str = "hostile/cases.toml";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

/// A driver, and what its grading says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    name: String,
    /// Part of a run of everything.
    #[serde(default)]
    pub quick: bool,
    change: Vec<(String, String)>,
    #[serde(default = "usual_file")]
    file: String,
    folder: Option<String>,
    makefile: Option<String>,
    #[serde(default)]
    pad: usize,
    replace: Option<(String, String)>,
    rules: Vec<String>,
    expect: Vec<Vec<String>>,
    line: Option<String>,
}

fn usual_file() -> String {
    "fifo.c".to_owned()
}

/// Reads the list.
pub fn load(folder: &Path) -> Result<Vec<Case>> {
    let path = folder.join(LIST);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let file: File = toml::from_str(&text).with_context(|| format!("{LIST} is not right"))?;
    Ok(file.case)
}

impl Case {
    /// Name of its test.
    pub fn test(&self) -> String {
        format!("{PLACE}hostile/{}", self.name)
    }

    fn source(&self, base: &str) -> Result<String> {
        let mut text = mutants::changed(&self.name, base, &self.change)?;
        let line = format!("/* {} */\n", "pad ".repeat(30));
        text.push_str(&line.repeat(self.pad.div_ceil(line.len())));
        Ok(text)
    }

    /// Writes it below `dir`: the path that is graded, and that of the source.
    fn write(&self, dir: &Path, base: &str) -> Result<(PathBuf, PathBuf)> {
        let Some(folder) = &self.folder else {
            let file = dir.join(&self.file);
            fs::write(&file, self.source(base)?)?;
            return Ok((file.clone(), file));
        };
        let folder = dir.join(folder);
        fs::create_dir(&folder)?;
        let file = folder.join(&self.file);
        fs::write(&file, self.source(base)?)?;
        let host = dir.display().to_string();
        match &self.makefile {
            Some(text) => fs::write(folder.join("Makefile"), text.replace("@HOST@", &host))?,
            None => fs::write(folder.join("Kbuild"), "obj-m := fifo.o\n")?,
        }
        Ok((folder, file))
    }

    /// Number of the line that `line` names.
    fn number(&self, source: &Path) -> Result<Option<String>> {
        let Some(line) = &self.line else {
            return Ok(None);
        };
        let text = fs::read_to_string(source)?;
        let at = text.lines().position(|found| found.contains(line));
        let at = at.with_context(|| format!("{}: no line has {line}", self.name))?;
        Ok(Some(format!("{}:{}", source.display(), at + 1)))
    }

    fn judge(&self, outcomes: &[Outcome], place: Option<&str>) -> Result<()> {
        for words in &self.expect {
            let [rule, verdict, parts @ ..] = words.as_slice() else {
                anyhow::bail!("{}: an expectation is a rule and a verdict", self.name)
            };
            let outcome = outcomes.iter().find(|outcome| outcome.id == *rule);
            let outcome = outcome.with_context(|| format!("{rule} was not tried"))?;
            let text: Vec<_> = report::details(outcome)
                .into_iter()
                .map(|(word, text)| format!("{word}: {text}"))
                .collect();
            let text = text.join("\n");
            let found = verdict_name(outcome.verdict);
            ensure!(found == verdict, "{rule}: {found}, not {verdict}\n{text}");
            for part in parts {
                ensure!(text.contains(part), "{rule} does not say {part:?}:\n{text}");
            }
        }
        let first = outcomes.iter().find(|out| out.verdict == Verdict::Fail);
        if let (Some(place), Some(first)) = (place, first) {
            ensure!(
                first.kernel.contains(place),
                "{} does not tell {place}:\n{}",
                first.id,
                first.kernel
            );
        }
        Ok(())
    }
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
        Verdict::Absent => "absent",
        Verdict::Unreached => "unreached",
    }
}

impl Grader<'_> {
    /// A case's verdicts are those that it expects. The machine is one that an earlier case has left, or is left to the next.
    pub fn hostile(&self, case: &Case, base: &str, session: &mut Option<Session>) -> Result<()> {
        let scratch = Scratch::new(scratch::Kind::Hostile)?;
        let dir = scratch.path();
        let (given, source) = case.write(dir, base)?;
        let place = case.number(&source)?;
        let globs: Vec<_> = case.rules.clone();
        let rules = self.catalog.select(&globs)?;
        let mut outcomes = Vec::new();
        match self.prepared(case, dir, &given)? {
            Ok(subject) => {
                let mut course = self.course(&subject).with_session(session.take());
                for rule in rules {
                    outcomes.push(course.rule(rule)?);
                }
                *session = course.into_session();
            }
            Err(failed) => subject::not_built(&rules, &failed, &mut |outcome| {
                outcomes.push(outcome);
                true
            }),
        }
        let stays = crate::key::files(dir)?.len();
        let files = 1 + usize::from(case.folder.is_some()) + usize::from(case.replace.is_some());
        ensure!(stays == files, "{stays} files where {files} were written");
        case.judge(&outcomes, place.as_deref())
    }

    /// The module, or how it fails to be built.
    fn prepared(
        &self,
        case: &Case,
        dir: &Path,
        given: &Path,
    ) -> Result<Result<Subject, subject::NotBuilt>> {
        let obtain = |path: &Path| {
            let made = (&self.ready.tree, &self.ready.kernel);
            subject::obtain(self.shop, made, System::default(), path)
        };
        let built = match (obtain(given)?, &case.replace) {
            (Ok(built), Some(_)) => built,
            (other, _) => return Ok(other),
        };
        let (from, to) = case.replace.as_ref().context("nothing to replace")?;
        ensure!(from.len() == to.len(), "{}: other length", case.name);
        let mut bytes = fs::read(&built.ko)?;
        let at = bytes
            .windows(from.len())
            .position(|found| found == from.as_bytes())
            .with_context(|| format!("the module does not hold {from:?}"))?;
        if let Some(place) = bytes.get_mut(at..at + to.len()) {
            place.copy_from_slice(to.as_bytes());
        }
        let ko = dir.join("fifo.ko");
        fs::write(&ko, bytes)?;
        obtain(&ko)
    }
}

#[cfg(test)]
mod tests_of_data {
    use super::*;

    #[test]
    fn a_case_selects_the_rules_that_it_expects_something_of() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let folder = repository.join(super::super::catalog::FOLDER);
        let catalog = super::super::catalog::Catalog::load(repository).unwrap();
        let families = mutants::load(repository).unwrap();
        for case in load(&folder).unwrap() {
            case.source(&families[0].base).unwrap();
            let rules = catalog.select(&case.rules).unwrap();
            for words in &case.expect {
                assert!(
                    rules.iter().any(|rule| rule.id == words[0]),
                    "{}",
                    case.name
                );
            }
            assert_eq!(rules.len(), case.expect.len(), "{}", case.name);
        }
    }
}
