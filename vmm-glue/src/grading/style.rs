// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `build.style`: the kernel's own check of style on the driver's sources.
//!
//! It reads a copy of them, in the tree. It must not know what checkpatch looks for.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;

use super::outcome::End;
use super::subject::Subject;
use super::trace::Tools;
use crate::child;
use crate::scratch;
use crate::scratch::Scratch;
use crate::stages::kernel;
use crate::stages::layer;
use crate::stages::shop::WORK;
use crate::stages::shop::tool_spec;
use crate::testing::checkpatch;

/// checkpatch reads a thousand lines in a second or two.
const LIMIT: Duration = Duration::from_secs(300);

/// The rule's end.
pub fn judge(tools: Tools<'_>, subject: &Subject) -> Result<End> {
    if subject.sources.is_empty() {
        return Ok(End::absent("there is no source"));
    }
    let Tools { shop, tree, kernel } = tools;
    let dir = Scratch::in_dir(shop.cache.root(), scratch::Kind::Grade)?;
    let mut names = Vec::new();
    for (name, from) in &subject.sources {
        let to = dir.path().join(name);
        fs::create_dir_all(to.parent().unwrap_or(dir.path()))?;
        fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        names.push(name);
    }
    let packages = &shop.recipe.checkpatch.packages;
    let perl = layer::obtain(shop, tree, checkpatch::PERL_STAGE, packages, "checkpatch")?;
    let mut view = shop.view(tree.path(), dir.path());
    kernel.show(&mut view);
    view.layers.push(perl.join(layer::UPPER));
    let place = Path::new(kernel::PLACE);
    let spec = tool_spec(&view, "perl")
        .arg(place.join(checkpatch::SCRIPT))
        .arg(format!("--root={}", place.join("source").display()))
        .args(checkpatch::OPTIONS)
        .arg("--")
        .args(&names)
        .cwd(WORK);
    let captured = child::capture(&spec, LIMIT)?;
    let found: Vec<_> = checkpatch::reports(&captured.text)
        .into_iter()
        // Checks are matters of taste, also to the kernel's developers.
        .filter(|line| !line.contains(": CHECK:"))
        .collect();
    let checked = captured.text.matches(" lines checked").count();
    let done = "checkpatch.pl --file, errors and warnings";
    Ok(match (found.is_empty(), checked == names.len()) {
        (true, true) => End::pass(),
        (true, false) => End::unreached(format!(
            "checkpatch has read {checked} of {} files: {}",
            names.len(),
            crate::causes::tail(&captured.text, 3)
        )),
        (false, _) => End::fail(done, "no report", found.join("\n")),
    })
}
