// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Lints, formatting and style of the driver, by the tree's own tools and the kernel's on a copy of the source.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;

use super::checkpatch;
use super::report::Filter;
use super::report::Outcome;
use super::report::Results;
use super::report::Verdict;
use crate::child;
use crate::child::Bind;
use crate::child::Spec;
use crate::child::View;
use crate::scratch;
use crate::scratch::Scratch;
use crate::stages::Edition;
use crate::stages::Ready;
use crate::stages::kernel;
use crate::stages::layer;
use crate::stages::module;
use crate::stages::shop::Shop;
use crate::stages::shop::tool_spec;

/// The second driver, in C.
const IRQ: &str = "examples/irq";
const LIMIT: Duration = Duration::from_secs(600);

/// Runs those that are wanted.
pub fn checks(shop: &Shop, ready: &Ready, filter: &Filter, results: &mut Results) -> Result<()> {
    let dir = Scratch::in_dir(shop.cache.root(), scratch::Kind::Module)?;
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
        if filter.wants(&name) && !results.only_lists([name.clone()]) {
            results.expect(1);
            results.doing(&name);
            results.add(check(name, &spec)?);
        }
    }
    let name = "module/kernels".to_owned();
    if filter.wants(&name) && !results.only_lists([name.clone()]) {
        results.expect(1);
        results.doing(&name);
        results.add(refusals(shop, name, &view, dir.path())?);
    }
    for (name, folder) in [("checkpatch", module::DRIVER), ("checkpatch-irq", IRQ)] {
        let name = format!("module/{name}");
        if filter.wants(&name) && !results.only_lists([name.clone()]) {
            results.expect(1);
            results.doing(&name);
            results.add(checkpatch(shop, ready, name, view.clone(), folder)?);
        }
    }
    super::history::checks(shop, ready, filter, results)
}

/// make is to say in one line, of a kernel that the driver cannot be built for, what that is and which ones can.
fn refusals(shop: &Shop, name: String, view: &View, copy: &Path) -> Result<Outcome> {
    const ELSEWHERE: &str = "elsewhere";
    let cases = [
        (None, "no kernel that is prepared"),
        (Some("6.12.3"), "Linux 6.12.3;"),
        (Some("7.1.99-rc1"), "Linux 7.1.99-rc1;"),
        (Some("7.2.0"), "Linux 7.2.0 without CONFIG_RUST=y"),
        (Some("7.10.1"), "Linux 7.10.1 without CONFIG_RUST=y"),
    ];
    let started = Instant::now();
    let driver = module::seen_as(&shop.repository).join(module::DRIVER);
    let config = copy
        .join(module::DRIVER)
        .join(ELSEWHERE)
        .join("include/config");
    fs::create_dir_all(&config)?;
    let mut wrong = Vec::new();
    for (release, expected) in cases {
        if let Some(release) = release {
            fs::write(config.join("kernel.release"), release)?;
        }
        let spec = module::make(view, &shop.repository, Edition::Fast)
            .arg("--no-print-directory")
            .arg(format!("KDIR={}", driver.join(ELSEWHERE).display()));
        let captured = child::capture(&spec, LIMIT)?;
        let said = captured.text.trim();
        let is_right = captured.status == Some(2)
            && said.lines().count() == 1
            && said.contains(expected)
            && said.contains("takes Linux 7.2 or newer");
        if !is_right {
            wrong.push(format!(
                "not one line with {expected:?} ({:?}): {said}",
                captured.status
            ));
        }
    }
    let verdict = if wrong.is_empty() {
        Verdict::Passed
    } else {
        Verdict::Failed(wrong.join("\n"))
    };
    Ok(Outcome {
        name,
        time: started.elapsed(),
        verdict,
    })
}

/// checkpatch wants modules of Perl that the tree's perl-base lacks: a layer has them.
fn checkpatch(
    shop: &Shop,
    ready: &Ready,
    name: String,
    mut view: View,
    folder: &str,
) -> Result<Outcome> {
    let started = Instant::now();
    let perl = layer::obtain(
        shop,
        &ready.tree,
        checkpatch::PERL_STAGE,
        &shop.recipe.checkpatch.packages,
        "checkpatch",
    )?;
    view.layers.push(perl.join(layer::UPPER));
    let here = module::seen_as(&shop.repository).join(folder);
    if folder != module::DRIVER {
        view.binds.push(Bind {
            from: shop.repository.join(folder),
            to: here.clone(),
            read_only: true,
        });
    }
    let files = sources(&shop.repository.join(folder), &checkpatch::is_checked)?;
    let kernel = Path::new(kernel::PLACE);
    let spec = tool_spec(&view, "perl")
        .arg(kernel.join(checkpatch::SCRIPT))
        .arg(format!("--root={}", kernel.join("source").display()))
        .args(checkpatch::OPTIONS)
        .args(&files)
        .cwd(here);
    let captured = child::capture(&spec, LIMIT)?;
    let verdict = match checkpatch::judge(&captured.text, files.len()) {
        Ok(()) if captured.status == Some(0) => Verdict::Passed,
        Ok(()) => Verdict::Failed(crate::causes::excerpt(&captured.text, 60)),
        Err(why) => Verdict::Failed(why),
    };
    Ok(Outcome {
        name,
        time: started.elapsed(),
        verdict,
    })
}

fn rustfmt(view: &View, repository: &Path) -> Result<Spec> {
    let dir = module::seen_as(repository).join(module::DRIVER);
    let rust = sources(&repository.join(module::DRIVER), &|path| {
        path.extension().is_some_and(|ext| ext == "rs")
    })?;
    Ok(tool_spec(view, "rustfmt")
        .args(["--check", "--edition", "2021"])
        .args(rust)
        .cwd(&dir))
}

/// Sources of a driver that are wanted, as seen from its folder.
fn sources(here: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    let files = crate::key::files(here)?;
    Ok(files
        .iter()
        .filter_map(|path| path.strip_prefix(here).ok())
        .filter(|path| module::is_source(path) && wanted(path))
        .map(Path::to_owned)
        .collect())
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
