// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Lints and formatting of the driver, by the tree's own tools on a copy of the source.

use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;

use super::report::Filter;
use super::report::Outcome;
use super::report::Results;
use super::report::Verdict;
use crate::child;
use crate::child::Spec;
use crate::child::View;
use crate::scratch::Scratch;
use crate::stages::Edition;
use crate::stages::Ready;
use crate::stages::module;
use crate::stages::shop::Shop;
use crate::stages::shop::tool_spec;

const LIMIT: Duration = Duration::from_secs(600);

/// Runs those that are wanted.
pub fn checks(shop: &Shop, ready: &Ready, filter: &Filter, results: &mut Results) -> Result<()> {
    let dir = Scratch::in_dir(shop.cache.root(), "module")?;
    module::copy_sources(shop, dir.path())?;
    let view = module::view(shop, &ready.tree, &ready.kernel, dir.path());
    let checks: [(&str, Spec); 2] = [
        (
            "clippy",
            module::make(&view, &shop.repository, Edition::Fast).args([
                "CLIPPY=1",
                "KCFLAGS=-Werror",
                "KRUSTFLAGS=-Dwarnings",
            ]),
        ),
        ("rustfmt", rustfmt(&view, &shop.repository)?),
    ];
    for (name, spec) in checks {
        let name = format!("module/{name}");
        if filter.wants(&name) {
            results.expect(1);
            results.doing(&name);
            results.add(check(name, &spec)?);
        }
    }
    Ok(())
}

fn rustfmt(view: &View, repository: &Path) -> Result<Spec> {
    let here = repository.join(module::DRIVER);
    let dir = module::seen_as(repository).join(module::DRIVER);
    let sources = crate::key::files(&here)?;
    let rust = sources
        .iter()
        .filter_map(|path| path.strip_prefix(&here).ok())
        .filter(|path| path.extension().is_some_and(|ext| ext == "rs") && module::is_source(path));
    Ok(tool_spec(view, "rustfmt")
        .args(["--check", "--edition", "2021"])
        .args(rust)
        .cwd(&dir))
}

fn check(name: String, spec: &Spec) -> Result<Outcome> {
    let started = Instant::now();
    let captured = child::capture(spec, LIMIT)?;
    let warned = captured
        .text
        .lines()
        .any(|line| line.starts_with("warning:"));
    let verdict = match captured.status {
        Some(0) if !warned => Verdict::Passed,
        _ => Verdict::Failed(crate::causes::excerpt(&captured.text, 60)),
    };
    Ok(Outcome {
        name,
        time: started.elapsed(),
        verdict,
    })
}
