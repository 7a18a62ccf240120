// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Samples of vmm-glue/history: each `before.c` fails on this kernel and is explained by its own entry, each `after.c` compiles without a
//! warning. All of them are built in three runs of make, once for each content.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::report::Filter;
use super::report::Outcome;
use super::report::Results;
use super::report::Verdict;
use crate::history;
use crate::history::Table;
use crate::stages::KernelChoice;
use crate::stages::Ready;
use crate::stages::own;
use crate::stages::own::messages::Names;
use crate::stages::own::source::Recipe;
use crate::stages::own::source::Source;
use crate::stages::shop::Shop;

/// Names of the tests.
const PLACE: &str = "module/history/";
/// Samples whose mistake the compiler does not see: modpost does.
const MODPOST: [&str; 2] = ["module-license", "kallsyms"];
/// Runs of make: what each builds, by the variable of the Kbuild that chooses it.
const RUNS: [&str; 3] = ["before", "after", "modpost"];

/// Builds and looks, if any of it is wanted.
pub fn checks(shop: &Shop, ready: &Ready, filter: &Filter, results: &mut Results) -> Result<()> {
    let table = Table::load(&shop.repository)?;
    let ids = || table.changes().iter().map(|change| change.id.as_str());
    let wanted: Vec<&str> = ids()
        .filter(|id| filter.wants(&format!("{PLACE}{id}")))
        .collect();
    let names = wanted.iter().map(|id| format!("{PLACE}{id}"));
    if wanted.is_empty() || results.only_lists(names) {
        return Ok(());
    }
    results.expect(wanted.len());
    results.doing("building the samples of what changed since the book");
    let source = source(&shop.repository, &ids().collect::<Vec<_>>());
    let said = own::runs(
        shop,
        &ready.tree,
        &ready.kernel,
        KernelChoice::Stock,
        &source,
        &RUNS,
    )?;
    // Without make's progress, as a user sees it.
    let names = Names::of(&source);
    let said: Vec<String> = said.lines().filter_map(|line| names.line(line)).collect();
    let said: Vec<&str> = said.iter().map(String::as_str).collect();
    for id in wanted {
        results.add(Outcome {
            name: format!("{PLACE}{id}"),
            time: Duration::ZERO,
            verdict: match judge(&table, id, &said) {
                Ok(()) => Verdict::Passed,
                Err(why) => Verdict::Failed(why),
            },
        });
    }
    Ok(())
}

/// All samples as one folder.
fn source(repository: &Path, ids: &[&str]) -> Source {
    let mut files = BTreeMap::new();
    for id in ids {
        let folder = history::samples(repository, id);
        for kind in ["before", "after"] {
            let name = format!("{}.c", object(kind, id));
            files.insert(PathBuf::from(name), folder.join(format!("{kind}.c")));
        }
    }
    Source {
        given: repository.join(history::FOLDER),
        files,
        links: BTreeMap::new(),
        place: PathBuf::new(),
        recipe: Recipe::Generated(kbuild(ids)),
    }
}

fn object(kind: &str, id: &str) -> String {
    format!("{kind}_{}", id.replace('-', "_"))
}

/// A Kbuild that builds what the variable RUN names.
fn kbuild(ids: &[&str]) -> String {
    let list = |kind: &str, wanted: &dyn Fn(&str) -> bool| {
        let objects = ids.iter().filter(|id| wanted(id));
        let objects = objects.map(|id| format!(" {}.o", object(kind, id)));
        objects.collect::<String>()
    };
    let is_modposts = |id: &str| MODPOST.contains(&id);
    format!(
        "before :={}\nafter :={}\nmodpost :={}\nobj-m := $($(RUN))\n",
        list("before", &|id| !is_modposts(id)),
        list("after", &|_| true),
        list("before", &is_modposts),
    )
}

/// What is wrong with an entry, by what compilers and modpost said about all samples.
fn judge(table: &Table, id: &str, said: &[&str]) -> Result<(), String> {
    let about = |kind: &str| {
        let object = object(kind, id);
        let mine = move |line: &str| {
            let names = [
                format!("{object}.c:"),
                format!("{object}.o"),
                format!("{object}.ko"),
            ];
            names.iter().any(|name| line.contains(name.as_str()))
        };
        (0..said.len()).filter(move |at| said.get(*at).is_some_and(|line| mine(line)))
    };
    if let Some(line) = about("after").next().and_then(|at| said.get(at)) {
        return Err(format!("after.c is complained of: {line}"));
    }
    let mut causes: Vec<&str> = about("before")
        .filter_map(|at| table.cause(said.get(at)?, said.get(at + 1..)?))
        .map(|change| change.id.as_str())
        .collect();
    causes.dedup();
    match causes.as_slice() {
        [] if about("before").next().is_none() => Err("before.c compiles".to_owned()),
        [] => {
            let lines: Vec<&str> = about("before")
                .filter_map(|at| said.get(at).copied())
                .collect();
            Err(format!(
                "before.c fails and is not explained:\n{}",
                lines.join("\n")
            ))
        }
        all if all.iter().all(|cause| *cause == id) => Ok(()),
        all => Err(format!("before.c is explained by {}", all.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_passes_only_if_its_own_entry_explains_it_and_the_mended_one_is_quiet() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let table = Table::load(repository).unwrap();
        let good = [
            "before_ioctl.c:1:1: error: 'const struct file_operations' has no member named 'ioctl'",
        ];
        assert_eq!(judge(&table, "ioctl", &good), Ok(()));
        let other = ["before_ioctl.c:1:1: error: implicit declaration of function 'del_timer'"];
        assert!(
            judge(&table, "ioctl", &other)
                .unwrap_err()
                .contains("explained by del-timer")
        );
        assert!(
            judge(&table, "ioctl", &[])
                .unwrap_err()
                .contains("compiles")
        );
        let unknown = ["before_ioctl.c:1:1: error: no"];
        assert!(
            judge(&table, "ioctl", &unknown)
                .unwrap_err()
                .contains("not explained")
        );
        let loud = [good[0], "after_ioctl.c:1:1: warning: unused variable 'x'"];
        assert!(
            judge(&table, "ioctl", &loud)
                .unwrap_err()
                .contains("after.c")
        );
        let modpost = [
            good[0],
            "WARNING: modpost: missing MODULE_DESCRIPTION() in after_ioctl.o",
        ];
        assert!(
            judge(&table, "ioctl", &modpost)
                .unwrap_err()
                .contains("after.c")
        );
    }

    #[test]
    fn samples_of_modposts_are_in_a_run_of_their_own() {
        let text = kbuild(&["ioctl", "module-license"]);
        assert!(text.contains("before := before_ioctl.o\n"));
        assert!(text.contains("after := after_ioctl.o after_module_license.o\n"));
        assert!(text.contains("modpost := before_module_license.o\n"));
    }
}
