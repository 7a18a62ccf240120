// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab grade`: somebody's driver by the grader's rules, a line each, and what they come to.

use std::path::Path;

use anyhow::Context;
use anyhow::Result;

use super::batch;
use crate::cancel;
use crate::cli::GradeArgs;
use crate::exit;
use crate::grading::catalog::Catalog;
use crate::grading::catalog::Rule;
use crate::grading::course::Course;
use crate::grading::html;
use crate::grading::outcome::Outcome;
use crate::grading::outcome::Verdict;
use crate::grading::programs;
use crate::grading::report;
use crate::grading::report::Grading;
use crate::grading::session;
use crate::grading::session::Site;
use crate::grading::subject;
use crate::grading::trace::Module;
use crate::grading::trace::Tools;
use crate::grading::watch::Watch;
use crate::options;
use crate::stages;
use crate::stages::Driver;
use crate::stages::Wanted;
use crate::stages::programs::Need;
use crate::stages::shop::Shop;
use crate::ui;
use crate::vm::config::Paths;
use crate::vm::machine;

/// Grades; 0 if all selected M rules passed.
pub fn grade(args: &GradeArgs) -> Result<u8> {
    let catalog = Catalog::load_in(&stages::repository()?, args.lang())?;
    if args.list {
        ui::print(catalog.list().trim_end());
        return Ok(0);
    }
    if let Some(id) = &args.show {
        ui::print(catalog.show(catalog.find(id)?)?.trim_end());
        return Ok(0);
    }
    if let Some(folder) = &args.table {
        return batch::table(folder).map(|_| 0);
    }
    if let Some(folder) = &args.batch {
        return batch::grade(args, folder, &catalog);
    }
    let Some(path) = &args.path else {
        return Err(exit::usage("grade: name a driver"));
    };
    check_files(args)?;
    catalog.select(&args.rule)?;
    if !args.watch {
        return once(args, path, &catalog);
    }
    loop {
        // From before the grading, so that no change during it is missed.
        let watch = Watch::on(path)?;
        if let Err(err) = once(args, path, &catalog) {
            cancel::check()?;
            ui::error(&exit::of(&err).1);
        }
        ui::say(&format!(
            "waiting for a change of {}; Ctrl-C ends",
            path.display()
        ));
        watch.wait()?;
    }
}

/// Grades one driver.
fn once(args: &GradeArgs, path: &Path, catalog: &Catalog) -> Result<u8> {
    let rules = catalog.select(&args.rule)?;
    let quiet = args.json.as_deref() == Some(Path::new("-"));
    let mut outcomes = Vec::new();
    let mut each = |outcome: Outcome| {
        if !quiet {
            ui::print(&report::line(&outcome));
        }
        let goes_on = !(args.next && outcome.must && outcome.verdict == Verdict::Fail);
        outcomes.push(outcome);
        goes_on
    };
    let no_machine = run(args, path, catalog, &rules, &mut each)?;
    let error = no_machine.as_deref().map(session::first_words);
    let grading = Grading::new(path, &args.system().label(), outcomes)
        .without_a_verdict(error.map(str::to_owned));
    if !quiet {
        ui::print(&format!("\n{}", grading.summary(catalog, &rules)));
    }
    write(args, &grading, catalog)?;
    if let Some(why) = no_machine {
        return Err(exit::machine(format!(
            "this is no verdict on the driver: a machine for it did not come up, tried twice, and rules were not reached; grade it again. {why}"
        )));
    }
    Ok(u8::from(!grading.passed))
}

/// Carries the rules out until `each` has enough; why a machine did not come up, if one did not.
fn run(
    args: &GradeArgs,
    path: &Path,
    catalog: &Catalog,
    rules: &[&Rule],
    each: &mut dyn FnMut(Outcome) -> bool,
) -> Result<Option<String>> {
    let config = args.config()?;
    machine::check(&config)?;
    let system = args.system();
    let shop = Shop::open_for(system.arch)?;
    let ready = stages::set_up(
        &shop,
        &Wanted {
            install: Vec::new(),
            driver: Driver::None,
            system,
            programs: match args.trace {
                // The guest's part is one of them.
                Some(_) => Need::All,
                None => Need::IfTheyBuild,
            },
        },
    )?;
    let programs = programs::obtain(&shop, &ready.tree)?;
    let subject = match subject::obtain(&shop, (&ready.tree, &ready.kernel), system, path)? {
        Ok(subject) => subject,
        Err(failed) => {
            if rules.iter().all(|rule| !rule.id.starts_with("build.")) {
                ui::error(&failed.end.seen);
            }
            subject::not_built(rules, &failed, each);
            return Ok(None);
        }
    };
    let mut site = Site::new(&shop, config, Paths::new(&ready), programs.path())?;
    if args.trace.is_some() {
        site = site.with_traces()?;
    }
    let module = Module {
        tools: Some(Tools {
            shop: &shop,
            tree: &ready.tree,
            kernel: &ready.kernel,
        }),
        name: &subject.name,
        ko: &subject.ko,
        given: &subject.given,
    };
    let mut course = Course::new(
        &site,
        catalog,
        &subject,
        module,
        system.kernel,
        &args.parameters,
    );
    if let Some(pages) = &args.trace {
        course = course.with_timelines(pages);
    }
    for rule in rules {
        if !each(course.rule(rule)?) {
            break;
        }
    }
    Ok(course.no_machine().map(str::to_owned))
}

fn check_files(args: &GradeArgs) -> Result<()> {
    for (option, path) in args.files() {
        options::has_folder(option, path)?;
    }
    Ok(())
}

fn write(args: &GradeArgs, grading: &Grading, catalog: &Catalog) -> Result<()> {
    for (option, path) in args.files() {
        let text = match option {
            "--json" => grading.json(catalog)?,
            "--junit" => grading.junit(catalog)?,
            _ => html::render(grading, catalog, path.parent().unwrap_or(Path::new("."))),
        };
        if path == Path::new("-") {
            ui::print(&text);
            continue;
        }
        std::fs::write(path, text)
            .with_context(|| format!("{option}: cannot write {}", path.display()))?;
    }
    Ok(())
}
