// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The grader graded: right drivers, which pass every M rule, and mutants of one of them, each of which fails the rule that its line names.
//! Part `grade/` of `cargo lab test`.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use serde::Deserialize;

use super::catalog;
use super::catalog::Catalog;
use super::course::Course;
use super::outcome::Outcome;
use super::outcome::Verdict;
use super::programs;
use super::report;
use super::session::Session;
use super::session::Site;
use super::subject;
use super::subject::Subject;
use super::trace::Module;
use crate::cancel;
use crate::exit;
use crate::scratch::Scratch;
use crate::stages;
use crate::stages::Driver;
use crate::stages::KernelChoice;
use crate::stages::Ready;
use crate::stages::System;
use crate::stages::Wanted;
use crate::stages::module;
use crate::stages::own;
use crate::stages::own::source::Source;
use crate::stages::programs::Need;
use crate::stages::shop::Shop;
use crate::testing::report as tests;
use crate::testing::report::Filter;
use crate::testing::report::Results;
use crate::vm::config::AccelChoice;
use crate::vm::config::Config;
use crate::vm::config::Paths;

/// First part of the tests' names.
pub const PLACE: &str = "grade/";
/// A run of everything has one mutant in so many.
pub const SAMPLE: usize = 8;
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
struct Mutant {
    name: String,
    /// The rule that must fail.
    rule: String,
    /// A rule that is run before.
    after: Option<String>,
    /// What stands once in the base, and what instead.
    change: Vec<(String, String)>,
}

impl Mutant {
    fn test(&self) -> String {
        format!("{PLACE}mutants/{}", self.name)
    }

    /// Name of its source, and with it of its module.
    fn stem(&self) -> String {
        format!("m_{}", self.name.replace('-', "_"))
    }

    fn source(&self, base: &str) -> Result<String> {
        let mut text = base.to_owned();
        for (from, to) in &self.change {
            ensure!(
                base.matches(from).count() == 1,
                "{}: this does not stand once in {BASE}.c:\n{from}",
                self.name
            );
            text = text.replace(from, to);
        }
        Ok(text)
    }
}

fn load(folder: &Path) -> Result<(String, Vec<Mutant>)> {
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

/// Runs what the filter wants: without one, a sample.
pub fn run(shop: &Shop, accel: AccelChoice, filter: &Filter, results: &mut Results) -> Result<()> {
    let folder = shop.repository.join(catalog::FOLDER).join(FOLDER);
    let (base, mutants) = load(&folder)?;
    let is_wanted = |(number, mutant): &(usize, &Mutant)| {
        filter.wants(&mutant.test()) && (filter.text().is_some() || number.is_multiple_of(SAMPLE))
    };
    let mutants: Vec<_> = mutants
        .iter()
        .enumerate()
        .filter(is_wanted)
        .map(|(_, mutant)| mutant)
        .collect();
    let rights: Vec<_> = ["memory", "textbook", "ours", "ours-teaching"]
        .into_iter()
        .filter(|name| filter.wants(&right(name)))
        .collect();
    if mutants.is_empty() && rights.is_empty() {
        return Ok(());
    }
    results.expect(mutants.len() + rights.len());
    let grader = Grader::new(shop, accel)?;
    for name in rights {
        let (path, edition) = match name {
            "memory" => (folder.join("textbook.c"), stages::Edition::Fast),
            "textbook" => (
                shop.repository.join("examples/textbook"),
                stages::Edition::Fast,
            ),
            "ours" => (shop.repository.join(module::DRIVER), stages::Edition::Fast),
            _ => (
                shop.repository.join(module::DRIVER),
                stages::Edition::Teaching,
            ),
        };
        results.doing(&right(name));
        let started = Instant::now();
        let verdict = said(grader.right(&path, edition))?;
        add(results, right(name), started, verdict);
    }
    if mutants.is_empty() {
        return Ok(());
    }
    results.doing("building the mutants");
    let built = grader.build(&base, &mutants)?;
    let mut session = None;
    for mutant in mutants {
        results.doing(&mutant.test());
        let started = Instant::now();
        let verdict = said(grader.mutant(mutant, &built, &mut session))?;
        add(results, mutant.test(), started, verdict);
    }
    Ok(())
}

fn right(name: &str) -> String {
    format!("{PLACE}right/{name}")
}

/// Adds the outcome of a test.
pub fn add(results: &mut Results, name: String, started: Instant, verdict: tests::Verdict) {
    results.add(tests::Outcome {
        name,
        time: started.elapsed(),
        verdict,
    });
}

/// What went wrong, as a verdict of the test.
pub fn said(outcome: Result<()>) -> Result<tests::Verdict> {
    cancel::check()?;
    Ok(match outcome {
        Ok(()) => tests::Verdict::Passed,
        Err(err) => tests::Verdict::Failed(exit::of(&err).1),
    })
}

/// What all gradings of this part have in common.
#[derive(Debug)]
pub struct Grader<'a> {
    /// Tools and cache.
    pub shop: &'a Shop,
    /// Tree and kernel.
    pub ready: Ready,
    /// The rules.
    pub catalog: Catalog,
    /// The machines.
    pub site: Site,
}

impl<'a> Grader<'a> {
    /// Sets up what all of them need.
    pub fn new(shop: &'a Shop, accel: AccelChoice) -> Result<Self> {
        let wanted = Wanted {
            install: Vec::new(),
            driver: Driver::None,
            system: System::default(),
            programs: Need::IfTheyBuild,
        };
        let ready = stages::set_up(shop, &wanted)?;
        let programs = programs::obtain(shop, &ready.tree)?;
        let config = Config {
            smp: 2,
            accel,
            ..Config::default()
        };
        let site = Site::new(shop, config, Paths::new(&ready), programs.path())?;
        Ok(Self {
            shop,
            catalog: Catalog::load(&shop.repository)?,
            ready,
            site,
        })
    }

    /// A grading of this subject.
    pub fn course<'b>(&'b self, subject: &'b Subject) -> Course<'b> {
        let module = Module {
            tools: Some((self.shop, &self.ready.tree)),
            name: &subject.name,
            ko: &subject.ko,
            given: &subject.given,
        };
        Course::new(
            &self.site,
            &self.catalog,
            subject,
            module,
            KernelChoice::Stock,
            &[],
        )
    }

    /// Every M rule passes, and no O rule fails.
    pub fn right(&self, path: &Path, edition: stages::Edition) -> Result<()> {
        let system = System {
            edition,
            ..System::default()
        };
        let made = (&self.ready.tree, &self.ready.kernel);
        let subject = subject::obtain(self.shop, made, system, path)?
            .map_err(|end| anyhow::anyhow!(end.seen))?;
        let mut course = self.course(&subject);
        let mut wrong = String::new();
        for rule in &self.catalog.rules {
            let outcome = course.rule(rule)?;
            let may_be = if rule.must {
                [Verdict::Pass; 2]
            } else {
                [Verdict::Pass, Verdict::Absent]
            };
            if !may_be.contains(&outcome.verdict) {
                wrong.push_str(&report::failure(&outcome, &self.catalog));
            }
        }
        ensure!(wrong.is_empty(), "{wrong}");
        Ok(())
    }

    /// All of them in one go: a folder of sources.
    fn build(&self, base: &str, mutants: &[&Mutant]) -> Result<Vec<PathBuf>> {
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
            let copy = self.folder().join(ko.file_name().unwrap_or_default());
            fs::copy(ko, &copy).with_context(|| format!("cannot copy {}", ko.display()))?;
            copies.push(copy);
        }
        Ok(copies)
    }

    fn folder(&self) -> &Path {
        self.site.folder()
    }

    /// The rule fails, and the one before it has been tried.
    fn mutant(
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
