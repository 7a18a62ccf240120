// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Mutants of a right driver, each of which fails the rule that its line names. It must not know how a rule is run.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use serde::Deserialize;

use super::graded::Grader;
use super::graded::PLACE;
use super::outcome::Outcome;
use super::outcome::Verdict;
use super::session::Session;
use super::subject;
use crate::scratch::Scratch;
use crate::stages::KernelChoice;
use crate::stages::own;
use crate::stages::own::source::Source;

/// Folder of the mutants, in that of the grader.
pub const FOLDER: &str = "mutants";
/// The mutants: of reads, writes and capacity; of everything else.
const LISTS: [&str; 2] = ["mutants-data.toml", "mutants-notice.toml"];
/// What they are mutants of.
const BASE: &str = "textbook";

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

impl Mutant {
    /// Name of its test.
    pub fn test(&self) -> String {
        format!("{PLACE}mutants/{}", self.name)
    }

    /// Name of its source, and with it of its module.
    fn stem(&self) -> String {
        format!("m_{}", self.name.replace('-', "_"))
    }

    fn source(&self, base: &str) -> Result<String> {
        changed(&self.name, base, &self.change)
    }
}

/// The base with these changes.
pub fn changed(name: &str, base: &str, changes: &[(String, String)]) -> Result<String> {
    let mut text = base.to_owned();
    for (from, to) in changes {
        ensure!(
            base.matches(from).count() == 1,
            "{name}: this does not stand once in {BASE}.c:\n{from}"
        );
        text = text.replace(from, to);
    }
    Ok(text)
}

/// The base's source, and the mutants.
pub fn load(folder: &Path) -> Result<(String, Vec<Mutant>)> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let mut mutants = Vec::new();
    for name in LISTS {
        let file: File =
            toml::from_str(&read(name)?).with_context(|| format!("{name} is not right"))?;
        mutants.extend(file.mutant);
    }
    Ok((read(&format!("{BASE}.c"))?, mutants))
}

impl Grader<'_> {
    /// All of them in one go: a folder of sources.
    pub fn build_mutants(&self, base: &str, mutants: &[&Mutant]) -> Result<Vec<PathBuf>> {
        let folder = Scratch::new("mutants")?;
        let mut kbuild = String::new();
        for mutant in mutants {
            let stem = mutant.stem();
            fs::write(
                folder.path().join(format!("{stem}.c")),
                mutant.source(base)?,
            )?;
            kbuild.push_str(&format!("obj-m += {stem}.o\n"));
        }
        fs::write(folder.path().join("Kbuild"), kbuild)?;
        let source = Source::of(folder.path(), &self.shop.repository)?;
        let (tree, kernel) = (&self.ready.tree, &self.ready.kernel);
        let built = own::obtain(self.shop, tree, kernel, KernelChoice::Stock, &source)
            .map_err(|err| own::explained(self.shop, &source, err))?;
        // Copies: the cache's entry is in use only as long as it is held.
        let mut copies = Vec::new();
        for ko in &built.modules {
            let copy = self.site.folder().join(ko.file_name().unwrap_or_default());
            fs::copy(ko, &copy).with_context(|| format!("cannot copy {}", ko.display()))?;
            copies.push(copy);
        }
        Ok(copies)
    }

    /// The rule fails, and the one before it has been tried.
    pub fn mutant(
        &self,
        mutant: &Mutant,
        built: &[PathBuf],
        session: &mut Option<Session>,
    ) -> Result<()> {
        let stem = mutant.stem();
        let ko = built
            .iter()
            .find(|ko| ko.file_stem().is_some_and(|name| *name == *stem))
            .with_context(|| format!("{stem}.ko was not built"))?;
        let tree = &self.ready.tree;
        let subject = subject::describe(self.shop, tree, ko, ko.clone(), None)?;
        let mut course = self.course(&subject).with_session(session.take());
        if let Some(before) = &mutant.after {
            course.rule(self.catalog.find(before)?)?;
        }
        let outcome = course.rule(self.catalog.find(&mutant.rule)?)?;
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
    use super::super::catalog;
    use super::super::catalog::Catalog;
    use super::*;

    #[test]
    fn a_mutant_changes_the_base_and_names_a_rule_that_every_driver_has_to_pass() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let catalog = Catalog::load(repository).unwrap();
        let folder = repository.join(catalog::FOLDER).join(FOLDER);
        let (base, mutants) = load(&folder).unwrap();
        assert!(mutants.len() >= 40);
        for mutant in &mutants {
            assert_ne!(mutant.source(&base).unwrap(), base, "{}", mutant.name);
            assert!(catalog.find(&mutant.rule).unwrap().must, "{}", mutant.name);
            assert!(mutant.stem().len() < 56, "{}", mutant.name);
        }
    }

    #[test]
    fn every_rule_that_has_a_program_and_must_hold_has_a_mutant() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let catalog = Catalog::load(repository).unwrap();
        let folder = repository.join(catalog::FOLDER).join(FOLDER);
        let (_, mutants) = load(&folder).unwrap();
        for rule in catalog.rules.iter().filter(|rule| rule.must) {
            let has = mutants.iter().any(|mutant| mutant.rule == rule.id);
            assert!(has || rule.family() == "build", "{}", rule.id);
        }
    }
}
