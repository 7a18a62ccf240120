// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The grader graded: right drivers, which pass every M rule; mutants of two of them; drivers that fail in hard ways; what `cargo lab new`
//! makes. Part `grade/` of `cargo lab test`. It must not know what is wrong with a driver.

use std::path::Path;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;

use super::catalog;
use super::catalog::Catalog;
use super::course::Course;
use super::hostile;
use super::mutants;
use super::outcome::Verdict;
use super::programs;
use super::report;
use super::session::Site;
use super::starts::Start;
use super::subject;
use super::subject::Subject;
use super::trace::Module;
use super::trace::Tools;
use crate::cancel;
use crate::exit;
use crate::stages;
use crate::stages::Driver;
use crate::stages::Edition;
use crate::stages::KernelChoice;
use crate::stages::Ready;
use crate::stages::System;
use crate::stages::Wanted;
use crate::stages::module;
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
const SAMPLE: usize = 8;
/// Folder of right drivers in other shapes, in that of the grader.
const SHAPES: &str = "shapes";

/// A right driver.
struct Right {
    name: String,
    path: PathBuf,
    edition: Edition,
    /// Part of a run of everything.
    is_usual: bool,
}

impl Right {
    fn test(&self) -> String {
        format!("{PLACE}right/{}", self.name)
    }
}

/// The bases of the mutants, the textbook's driver, ours in both editions, and each file and folder of shapes/.
fn rights(repository: &Path) -> Vec<Right> {
    let folder = repository.join(catalog::FOLDER);
    let right = |name: &str, path: PathBuf, edition| Right {
        name: name.to_owned(),
        path,
        edition,
        is_usual: true,
    };
    let ours = repository.join(module::DRIVER);
    // Each takes minutes.
    let unusual = |right: Right| Right {
        is_usual: false,
        ..right
    };
    let mut rights = vec![
        right(
            "memory",
            folder.join(mutants::FOLDER).join("textbook.c"),
            Edition::Fast,
        ),
        unusual(right(
            "textbook",
            repository.join("examples/textbook"),
            Edition::Fast,
        )),
        unusual(right("irq", repository.join("examples/irq"), Edition::Fast)),
        right("ours", ours.clone(), Edition::Fast),
        unusual(right("ours-teaching", ours, Edition::Teaching)),
    ];
    let mut shapes = crate::cache::entries(&folder.join(SHAPES));
    shapes.sort();
    for path in shapes {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        rights.push(unusual(right(&name, path.clone(), Edition::Fast)));
    }
    rights
}

/// Runs what the filter wants: without one, a sample.
pub fn run(shop: &Shop, accel: AccelChoice, filter: &Filter, results: &mut Results) -> Result<()> {
    let is_whole = filter.text().is_some();
    let folder = shop.repository.join(catalog::FOLDER);
    let families = mutants::load(&shop.repository)?;
    let memory = families.first().context("there are no mutants")?;
    let mut wrong = Vec::new();
    for family in &families {
        let is_wanted = |(number, mutant): &(usize, &mutants::Mutant)| {
            filter.wants(&family.test(mutant)) && (is_whole || number.is_multiple_of(SAMPLE))
        };
        let some = family.mutants.iter().enumerate().filter(is_wanted);
        wrong.push((family, some.map(|(_, mutant)| mutant).collect::<Vec<_>>()));
    }
    let mut rights = rights(&shop.repository);
    rights.retain(|right| filter.wants(&right.test()) && (is_whole || right.is_usual));
    let mut cases = hostile::load(&folder)?;
    cases.retain(|case| filter.wants(&case.test()) && (is_whole || case.quick));
    let mutants = wrong
        .iter()
        .flat_map(|(family, some)| some.iter().map(|mutant| family.test(mutant)));
    let mut starts: Vec<_> = Start::all().collect();
    starts.retain(|start| filter.wants(&start.test()));
    let count = mutants.clone().count() + rights.len() + cases.len() + starts.len();
    let names = rights.iter().map(Right::test);
    let names = names.chain(cases.iter().map(hostile::Case::test));
    let names = names.chain(starts.iter().map(|start| start.test()));
    let names = names.chain(mutants);
    if count == 0 || results.only_lists(names) {
        return Ok(());
    }
    results.expect(count);
    let grader = Grader::new(shop, accel)?;
    for right in rights {
        test(results, right.test(), || {
            grader.right(&right.path, right.edition)
        })?;
    }
    let mut session = None;
    for case in cases {
        test(results, case.test(), || {
            grader.hostile(&case, &memory.base, &mut session)
        })?;
    }
    for start in starts {
        test(results, start.test(), || start.leads(&grader, &mut session))?;
    }
    for (family, some) in wrong {
        family.run(&grader, &some, &mut session, results)?;
    }
    Ok(())
}

/// Runs a test and adds what came of it.
pub fn test(results: &mut Results, name: String, work: impl FnOnce() -> Result<()>) -> Result<()> {
    results.doing(&name);
    let started = Instant::now();
    let outcome = work();
    cancel::check()?;
    let verdict = match outcome {
        Ok(()) => tests::Verdict::Passed,
        Err(err) => tests::Verdict::Failed(exit::of(&err).1),
    };
    results.add(tests::Outcome {
        name,
        time: started.elapsed(),
        verdict,
    });
    Ok(())
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
            tools: Some(Tools {
                shop: self.shop,
                tree: &self.ready.tree,
                kernel: &self.ready.kernel,
            }),
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
    pub fn right(&self, path: &Path, edition: Edition) -> Result<()> {
        let system = System {
            edition,
            ..System::default()
        };
        let made = (&self.ready.tree, &self.ready.kernel);
        let subject = subject::obtain(self.shop, made, system, path)?
            .map_err(|failed| anyhow::anyhow!(failed.end.seen))?;
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
}
