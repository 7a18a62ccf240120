// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The grader graded by drivers behind an interrupt, examples/irq and its mutants, and by what `cargo lab new` makes. In part `grade/` of
//! `cargo lab test`. It must not know how a rule is run.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use clap::ValueEnum;
use serde::Deserialize;

use super::catalog;
use super::graded::Grader;
use super::graded::PLACE;
use super::graded::SAMPLE;
use super::graded::test;
use super::mutants;
use super::outcome::Verdict;
use super::session::Session;
use super::subject;
use crate::cli::Kind;
use crate::cli::Lang;
use crate::commands::new;
use crate::scratch::Scratch;
use crate::stages::Edition;
use crate::stages::KernelChoice;
use crate::stages::System;
use crate::stages::own;
use crate::stages::own::source::Source;
use crate::stages::shop::Shop;
use crate::testing::report::Filter;
use crate::testing::report::Results;
use crate::vm::config::AccelChoice;

/// The right driver.
const BASE: &str = "examples/irq";
/// Its files that mutants change.
const CHANGED: [&str; 2] = ["device", "files"];
/// The mutants.
const LIST: &str = "irq.toml";
/// The rule that a skeleton fails first.
const FIRST: &str = "read.data";

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
    /// What stands once in the files, and what instead.
    change: Vec<(String, String)>,
}

impl Mutant {
    fn test(&self) -> String {
        format!("{PLACE}irq/{}", self.name)
    }

    /// Name of its module.
    fn stem(&self) -> String {
        format!("i_{}", self.name.replace('-', "_"))
    }

    /// Its files.
    fn sources(&self, base: &[String; 2]) -> Result<[String; 2]> {
        let mut texts = base.clone();
        for (from, to) in &self.change {
            let count: usize = base.iter().map(|text| text.matches(from).count()).sum();
            ensure!(
                count == 1,
                "{}: this does not stand once in {BASE}:\n{from}",
                self.name
            );
            texts = texts.map(|text| text.replace(from, to));
        }
        Ok(texts)
    }
}

fn load(repository: &Path) -> Result<([String; 2], Vec<Mutant>)> {
    let read = |path: &Path| {
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let folder = repository.join(catalog::FOLDER).join(mutants::FOLDER);
    let file: File = toml::from_str(&read(&folder.join(LIST))?)
        .with_context(|| format!("{LIST} is not right"))?;
    let source = |name: &str| read(&repository.join(BASE).join(format!("{name}.c")));
    Ok(([source(CHANGED[0])?, source(CHANGED[1])?], file.mutant))
}

/// A skeleton that `cargo lab new` makes.
#[derive(Clone, Copy)]
struct Start(Kind, Lang);

impl Start {
    fn all() -> impl Iterator<Item = Self> {
        let kinds = Kind::value_variants().iter();
        kinds.flat_map(|kind| Lang::value_variants().iter().map(|lang| Self(*kind, *lang)))
    }

    fn test(self) -> String {
        let word = |value: Option<clap::builder::PossibleValue>| {
            value.map_or(String::new(), |value| value.get_name().to_owned())
        };
        let (kind, lang) = (self.0.to_possible_value(), self.1.to_possible_value());
        format!("{PLACE}new/{}-{}", word(kind), word(lang))
    }
}

/// Runs what the filter wants: without one, a sample of the mutants.
pub fn run(shop: &Shop, accel: AccelChoice, filter: &Filter, results: &mut Results) -> Result<()> {
    let (base, all) = load(&shop.repository)?;
    let is_wanted = |(number, mutant): &(usize, &Mutant)| {
        let is_sampled = filter.text().is_some() || number.is_multiple_of(SAMPLE);
        is_sampled && filter.wants(&mutant.test())
    };
    let wrong: Vec<_> = all.iter().enumerate().filter(is_wanted).collect();
    let wrong: Vec<_> = wrong.into_iter().map(|(_, mutant)| mutant).collect();
    let starts: Vec<_> = Start::all()
        .filter(|start| filter.wants(&start.test()))
        .collect();
    let right = format!("{PLACE}right/irq");
    let is_wanted = filter.text().is_some() && filter.wants(&right);
    let right = is_wanted.then_some(right);
    let count = wrong.len() + starts.len() + usize::from(right.is_some());
    let names = right.clone().into_iter();
    let names = names.chain(starts.iter().map(|start| start.test()));
    let names = names.chain(wrong.iter().map(|mutant| mutant.test()));
    if count == 0 || results.only_lists(names) {
        return Ok(());
    }
    results.expect(count);
    let grader = Grader::new(shop, accel)?;
    if let Some(name) = right {
        let path = shop.repository.join(BASE);
        test(results, name, || grader.right(&path, Edition::Fast))?;
    }
    let mut session = None;
    for start in starts {
        test(results, start.test(), || {
            leads(&grader, start, &mut session)
        })?;
    }
    if wrong.is_empty() {
        return Ok(());
    }
    results.doing("building the mutants");
    let built = build(&grader, &base, &wrong)?;
    for mutant in wrong {
        test(results, mutant.test(), || {
            fails(&grader, mutant, &built, &mut session)
        })?;
    }
    Ok(())
}

/// A skeleton compiles, loads, and fails the first rule that it has a TODO for.
fn leads(grader: &Grader<'_>, start: Start, session: &mut Option<Session>) -> Result<()> {
    let folder = Scratch::new("new")?;
    let repository = &grader.shop.repository;
    let sources = new::sources(repository, start.0, start.1, "my_fifo")?;
    new::write(folder.path(), &sources)?;
    let made = (&grader.ready.tree, &grader.ready.kernel);
    let subject = subject::obtain(grader.shop, made, System::default(), folder.path())?
        .map_err(|failed| anyhow::anyhow!(failed.end.seen))?;
    let mut course = grader.course(&subject).with_session(session.take());
    let mut failed = None;
    for rule in grader.catalog.rules.iter().filter(|rule| rule.must) {
        let outcome = course.rule(rule)?;
        if outcome.verdict != Verdict::Pass {
            failed = Some(outcome);
            break;
        }
    }
    *session = course.into_session();
    let failed = failed.context("the skeleton passes every rule")?;
    ensure!(
        failed.id == FIRST && failed.verdict == Verdict::Fail,
        "{} is the first rule that does not pass, not {FIRST}: {}",
        failed.id,
        failed.seen
    );
    Ok(())
}

/// All of them in one go: a folder in which each is a module of two files.
fn build(grader: &Grader<'_>, base: &[String; 2], mutants: &[&Mutant]) -> Result<Vec<PathBuf>> {
    let folder = Scratch::new("irq-mutants")?;
    let repository = &grader.shop.repository;
    let mut kbuild = String::from("ccflags-y := -I$(src)/uapi\n");
    for path in crate::key::files(&repository.join(BASE))? {
        if path.extension().is_some_and(|ext| ext == "h") {
            let name = path.strip_prefix(repository.join(BASE))?;
            new::write(folder.path(), &[(name.to_owned(), fs::read(&path)?)])?;
        }
    }
    for mutant in mutants {
        let stem = mutant.stem();
        let mut objects = String::new();
        for (name, text) in CHANGED.iter().zip(mutant.sources(base)?) {
            fs::write(folder.path().join(format!("{stem}_{name}.c")), text)?;
            objects.push_str(&format!(" {stem}_{name}.o"));
        }
        kbuild.push_str(&format!("obj-m += {stem}.o\n{stem}-y :={objects}\n"));
    }
    fs::write(folder.path().join("Kbuild"), kbuild)?;
    let source = Source::of(folder.path(), repository)?;
    let (tree, kernel) = (&grader.ready.tree, &grader.ready.kernel);
    let built = own::obtain(grader.shop, tree, kernel, KernelChoice::Stock, &source)
        .map_err(|err| own::explained(grader.shop, &source, err))?;
    // Copies: the cache's entry is in use only as long as it is held.
    let mut copies = Vec::new();
    for ko in &built.modules {
        let copy = grader
            .site
            .folder()
            .join(ko.file_name().unwrap_or_default());
        fs::copy(ko, &copy).with_context(|| format!("cannot copy {}", ko.display()))?;
        copies.push(copy);
    }
    Ok(copies)
}

/// The mutant fails its rule.
fn fails(
    grader: &Grader<'_>,
    mutant: &Mutant,
    built: &[PathBuf],
    session: &mut Option<Session>,
) -> Result<()> {
    let stem = mutant.stem();
    let ko = built
        .iter()
        .find(|ko| ko.file_stem().is_some_and(|name| *name == *stem))
        .with_context(|| format!("{stem}.ko was not built"))?;
    let subject = subject::describe(grader.shop, &grader.ready.tree, ko, ko.clone(), None)?;
    let mut course = grader.course(&subject).with_session(session.take());
    let outcome = course.rule(grader.catalog.find(&mutant.rule)?)?;
    *session = course.into_session();
    ensure!(
        outcome.verdict == Verdict::Fail,
        "{} says {} of this mutant: {}",
        mutant.rule,
        outcome.verdict.word(),
        outcome.seen
    );
    mutants::explained(&outcome)
}

#[cfg(test)]
mod tests_of_data {
    use super::*;
    use crate::grading::catalog::Catalog;

    fn repository() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    #[test]
    fn a_mutant_changes_the_driver_and_names_a_rule_that_every_driver_has_to_pass() {
        let catalog = Catalog::load(repository()).unwrap();
        let (base, mutants) = load(repository()).unwrap();
        assert!(mutants.len() >= 20);
        for mutant in &mutants {
            assert_ne!(mutant.sources(&base).unwrap(), base, "{}", mutant.name);
            assert!(catalog.find(&mutant.rule).unwrap().must, "{}", mutant.name);
            assert!(mutant.stem().len() < 56, "{}", mutant.name);
        }
    }

    #[test]
    fn the_interface_to_user_space_is_the_drivers_own() {
        let read = |path: &str| fs::read(repository().join(path)).unwrap();
        let name = "uapi/linux/globalfifo.h";
        let ours = read(&format!("guest-driver/include/{name}"));
        assert_eq!(read(&format!("{BASE}/{name}")), ours);
    }
}
