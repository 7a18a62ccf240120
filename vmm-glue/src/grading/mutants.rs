// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Mutants of right drivers, each of which fails the rule that its line names. It must not know how a rule is run.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use serde::Deserialize;

use super::catalog;
use super::graded::Grader;
use super::graded::PLACE;
use super::graded::test;
use super::outcome::Outcome;
use super::outcome::Verdict;
use super::session::Session;
use super::subject;
use crate::files;
use crate::scratch;
use crate::scratch::Scratch;
use crate::stages::KernelChoice;
use crate::stages::own;
use crate::stages::own::source::Source;
use crate::testing::report::Results;

/// Folder of the mutants, in that of the grader.
pub const FOLDER: &str = "mutants";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    mutant: Vec<Mutant>,
}

/// A changed driver.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    name: String,
    /// The rule that must fail.
    rule: String,
    /// A rule that is run before.
    after: Option<String>,
    /// What stands once in the base, and what instead.
    change: Vec<(String, String)>,
}

/// A right driver, and the lists of its mutants. All paths are of the repository.
struct Origin {
    /// Part of the tests' names, and with its first letter of the modules'.
    part: &'static str,
    source: &'static str,
    /// Headers of which mutants change something: they stand in the source where it includes them.
    inlined: &'static [&'static str],
    /// Headers that lie beside the source.
    beside: &'static [&'static str],
    lists: &'static [&'static str],
}

/// The driver in memory, with mutants of reads, writes and capacity, and of everything else; the one behind an interrupt.
const ORIGINS: [Origin; 2] = [
    Origin {
        part: "mutants",
        source: "grader/mutants/textbook.c",
        inlined: &[],
        beside: &[],
        lists: &["mutants-data.toml", "mutants-notice.toml"],
    },
    Origin {
        part: "irq",
        source: "examples/irq/globalfifo.c",
        inlined: &["examples/irq/fifo.h"],
        beside: &["examples/irq/virtio_fifo.h"],
        lists: &["irq.toml"],
    },
];

/// A right driver and its mutants.
#[derive(Debug)]
pub struct Family {
    part: &'static str,
    source: &'static str,
    /// The source of the right driver, in one file.
    pub base: String,
    /// Name and content of the headers beside it.
    headers: Vec<(PathBuf, Vec<u8>)>,
    /// All of them, in the order of the lists.
    pub mutants: Vec<Mutant>,
}

/// The base with these changes.
pub fn changed(name: &str, base: &str, changes: &[(String, String)]) -> Result<String> {
    let mut text = base.to_owned();
    for (from, to) in changes {
        ensure!(
            base.matches(from).count() == 1,
            "{name}: this does not stand once in the driver that it changes:\n{from}"
        );
        text = text.replace(from, to);
    }
    Ok(text)
}

/// Reads all families: of the driver in memory first.
pub fn load(repository: &Path) -> Result<Vec<Family>> {
    ORIGINS
        .iter()
        .map(|origin| Family::load(repository, origin))
        .collect()
}

impl Family {
    fn load(repository: &Path, origin: &Origin) -> Result<Self> {
        let read = |path: &Path| {
            let path = repository.join(path);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let mut base = read(Path::new(origin.source))?;
        for header in origin.inlined.iter().map(Path::new) {
            let name = header.file_name().unwrap_or_default().display();
            let line = format!("#include \"{name}\"\n");
            ensure!(
                base.matches(&line).count() == 1,
                "{} does not include {name} once",
                origin.source
            );
            base = base.replace(&line, &read(header)?);
        }
        let mut headers = Vec::new();
        for header in origin.beside.iter().map(Path::new) {
            let name = header.file_name().unwrap_or_default();
            headers.push((name.into(), read(header)?.into_bytes()));
        }
        let mut mutants = Vec::new();
        for list in origin.lists {
            let file: File =
                toml::from_str(&read(&Path::new(catalog::FOLDER).join(FOLDER).join(list))?)
                    .with_context(|| format!("{list} is not right"))?;
            mutants.extend(file.mutant);
        }
        Ok(Self {
            part: origin.part,
            source: origin.source,
            base,
            headers,
            mutants,
        })
    }

    /// Name of a mutant's test.
    pub fn test(&self, mutant: &Mutant) -> String {
        format!("{PLACE}{}/{}", self.part, mutant.name)
    }

    /// Name of a mutant's source, and with it of its module.
    fn stem(&self, mutant: &Mutant) -> String {
        let letter = &self.part[..1];
        format!("{letter}_{}", mutant.name.replace('-', "_"))
    }

    fn text(&self, mutant: &Mutant) -> Result<String> {
        changed(&mutant.name, &self.base, &mutant.change)
            .with_context(|| format!("a mutant of {} is not right", self.source))
    }

    /// Runs these, and adds what came of them.
    pub fn run(
        &self,
        grader: &Grader<'_>,
        mutants: &[&Mutant],
        session: &mut Option<Session>,
        results: &mut Results,
    ) -> Result<()> {
        if mutants.is_empty() {
            return Ok(());
        }
        results.doing("building the mutants");
        let built = self.build(grader, mutants)?;
        for mutant in mutants {
            test(results, self.test(mutant), || {
                self.fails(grader, mutant, &built, session)
            })?;
        }
        Ok(())
    }

    /// Builds all in one go: a folder of sources.
    fn build(&self, grader: &Grader<'_>, mutants: &[&Mutant]) -> Result<Vec<PathBuf>> {
        let folder = Scratch::new(scratch::Kind::Mutants)?;
        files::write(folder.path(), &self.headers)?;
        let mut kbuild = String::new();
        for mutant in mutants {
            let stem = self.stem(mutant);
            fs::write(folder.path().join(format!("{stem}.c")), self.text(mutant)?)?;
            kbuild.push_str(&format!("obj-m += {stem}.o\n"));
        }
        fs::write(folder.path().join("Kbuild"), kbuild)?;
        let source = Source::of(folder.path(), &grader.shop.repository)?;
        let (tree, kernel) = (&grader.ready.tree, &grader.ready.kernel);
        let built = own::obtain(grader.shop, tree, kernel, KernelChoice::Stock, &source)
            .map_err(|err| own::explained(grader.shop, &source, err))?;
        // Copies: the cache's entry is in use only as long as it is held.
        let mut copies = Vec::new();
        for ko in &built.modules {
            let name = ko.file_name().unwrap_or_default();
            let copy = grader.site.folder().join(name);
            fs::copy(ko, &copy).with_context(|| format!("cannot copy {}", ko.display()))?;
            copies.push(copy);
        }
        Ok(copies)
    }

    /// The mutant fails its rule, and the one before it has been tried.
    fn fails(
        &self,
        grader: &Grader<'_>,
        mutant: &Mutant,
        built: &[PathBuf],
        session: &mut Option<Session>,
    ) -> Result<()> {
        let stem = self.stem(mutant);
        let ko = built
            .iter()
            .find(|ko| ko.file_stem().is_some_and(|name| *name == *stem))
            .with_context(|| format!("{stem}.ko was not built"))?;
        let tree = &grader.ready.tree;
        let subject = subject::describe(grader.shop, tree, ko, ko.clone(), None)?;
        let mut course = grader.course(&subject).with_session(session.take());
        if let Some(before) = &mutant.after {
            course.rule(grader.catalog.find(before)?)?;
        }
        let outcome = course.rule(grader.catalog.find(&mutant.rule)?)?;
        *session = course.into_session();
        ensure!(
            outcome.verdict == Verdict::Fail,
            "{} says {} of this mutant: {}",
            mutant.rule,
            outcome.verdict.word(),
            outcome.seen
        );
        explained(&outcome)
    }
}

/// A failure says what was expected and what was seen.
pub fn explained(outcome: &Outcome) -> Result<()> {
    ensure!(
        !outcome.expected.is_empty() && !outcome.seen.is_empty(),
        "{} fails without a reason: {outcome:?}",
        outcome.id
    );
    ensure!(
        Duration::try_from_secs_f64(outcome.seconds).is_ok(),
        "{} took no time that can be told",
        outcome.id
    );
    Ok(())
}

#[cfg(test)]
mod tests_of_data {
    use super::super::catalog::Catalog;
    use super::*;

    fn repository() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    #[test]
    fn a_mutant_changes_its_base_and_names_a_rule_that_every_driver_has_to_pass() {
        let catalog = Catalog::load(repository()).unwrap();
        let families = load(repository()).unwrap();
        for (family, least) in families.iter().zip([40, 20]) {
            assert!(family.mutants.len() >= least, "{}", family.part);
            for mutant in &family.mutants {
                let name = &mutant.name;
                assert_ne!(family.text(mutant).unwrap(), family.base, "{name}");
                assert!(catalog.find(&mutant.rule).unwrap().must, "{name}");
                assert!(family.stem(mutant).len() < 56, "{name}");
            }
        }
    }

    #[test]
    fn every_rule_that_has_a_program_and_must_hold_has_a_mutant() {
        let catalog = Catalog::load(repository()).unwrap();
        let families = load(repository()).unwrap();
        let memory = &families[0].mutants;
        for rule in catalog.rules.iter().filter(|rule| rule.must) {
            let has = memory.iter().any(|mutant| mutant.rule == rule.id);
            assert!(has || rule.family() == "build", "{}", rule.id);
        }
    }
}
