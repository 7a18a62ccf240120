// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab lesson`: the chapter's examples, run in a guest that has a loopback FIFO and a zero FIFO.
//!
//! Which lessons there are, only the guest's program `lesson` knows; it is linked statically, so it can be asked here without booting.

use std::path::Path;
use std::process::Command as Process;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use fifo_lab_agent::Command;
use fifo_lab_agent::Stdin;

use super::run;
use super::trace;
use crate::cli::LessonArgs;
use crate::exit::usage;
use crate::stages;
use crate::stages::guest;
use crate::stages::programs;
use crate::stages::shop::Shop;
use crate::ui;
use crate::vm::config::Paths;
use crate::vm::machine;

/// Lists the lessons, or runs one or all of them.
pub fn lesson(args: &LessonArgs) -> Result<u8> {
    let config = args.config()?;
    let shop = Shop::open_for(config.system.arch)?;
    let list = list(&programs::that_run_here(&shop)?)?;
    let Some(id) = &args.id else {
        ui::print(
            &list
                .replace("lesson ID", "cargo lab lesson ID")
                .replace("lesson all", "cargo lab lesson all"),
        );
        return Ok(0);
    };
    if !is_listed(&list, id) {
        return Err(usage(format!(
            "lesson {id}: there is none of that name; `cargo lab lesson` lists them"
        )));
    }
    let wanted = args.wanted()?;
    machine::check(&config)?;
    let ready = stages::set_up(&shop, &wanted)?;
    let mut argv = vec![format!("/{}/bin/lesson", guest::HOME), id.clone()];
    if let Some(share) = config.shares.first() {
        let option = if args.update_pages {
            "--pages"
        } else {
            "--svg"
        };
        argv.extend([option.to_owned(), share.path()]);
    }
    let command = Command {
        argv,
        cwd: "/root".to_owned(),
        stdin: Stdin::Null,
        ..Command::default()
    };
    let paths = Paths::new(&ready);
    match &args.html {
        Some(page) => trace::as_page(config, &paths, command, args.timeout(), page),
        None => run::in_guest(&config, &paths, &command, args.timeout()),
    }
}

/// What the guest's program says there is.
fn list(programs: &programs::Programs) -> Result<String> {
    let folder = programs
        .guest()
        .context("the guest's programs are not built")?;
    let program = Path::new(folder).join("lesson");
    let output = Process::new(&program)
        .arg("list")
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        bail!("{} list: {}", program.display(), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether `id` is a lesson's, or enough of one: what stands after the hyphen may do.
fn is_listed(list: &str, id: &str) -> bool {
    let tail = format!("-{id}");
    id == "all"
        || list
            .lines()
            .skip(1)
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_whitespace().next())
            .any(|known| known == id || known.ends_with(&tail))
}

#[cfg(test)]
mod tests {
    use super::is_listed;

    #[test]
    fn a_lesson_goes_by_its_name_or_by_what_stands_after_the_hyphen() {
        let list = "ID    chapter  title\nlisting-9.13  9.13  aio_suspend\ntable-9.1  9.1  signals\n\nmore words\n";
        for good in ["all", "listing-9.13", "9.13", "table-9.1"] {
            assert!(is_listed(list, good), "{good}");
        }
        for bad in ["ID", "more", "9.1x", "", "listing"] {
            assert!(!is_listed(list, bad), "{bad}");
        }
    }
}
