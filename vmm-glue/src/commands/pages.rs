// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab completions` and `cargo lab man`: what shells and man(1) know of the command line, made from the command line itself; and
//! `cargo lab docs`.

use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use clap::CommandFactory;
use fifo_lab_agent::Command;

use super::trace;
use crate::cli::Cli;
use crate::cli::CompletionsArgs;
use crate::cli::DocsArgs;
use crate::cli::ManArgs;
use crate::exit::usage;
use crate::files;
use crate::site::build;
use crate::stages;
use crate::stages::Wanted;
use crate::stages::shop::Shop;
use crate::streams::Output;
use crate::trace::figures::FIGURES;
use crate::ui;
use crate::vm::config::Config;
use crate::vm::config::Paths;
use crate::vm::machine;

/// The program's own name: there are no spaces in the names of commands that shells complete, nor in those of pages.
const PROGRAM: &str = "fifo-lab";

fn command() -> clap::Command {
    Cli::command().name(PROGRAM).bin_name(PROGRAM)
}

/// Prints a shell's completions.
pub fn completions(args: &CompletionsArgs) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), PROGRAM, &mut script);
    Output::Stdout
        .write(&script)
        .map_err(|err| Output::Stdout.failure(&err))?;
    Ok(0)
}

/// Writes a page for the lab and one for each of its commands.
pub fn man(args: &ManArgs) -> Result<u8> {
    let dir = args.dir.display();
    std::fs::create_dir_all(&args.dir).with_context(|| format!("cannot make {dir}"))?;
    clap_mangen::generate_to(command(), &args.dir)
        .with_context(|| format!("cannot write the pages to {dir}"))?;
    ui::say(&format!("the pages are in {dir}: man {dir}/{PROGRAM}.1"));
    Ok(0)
}

/// Traces each figure's command on a machine of its own, and draws it.
fn figures(shop: &Shop, output: Option<&Path>) -> Result<u8> {
    let config = Config::default();
    machine::check(&config)?;
    let ready = stages::set_up(shop, &Wanted::programs_on(config.system))?;
    let paths = Paths::new(&ready);
    for figure in FIGURES {
        let command = Command {
            argv: figure
                .command
                .iter()
                .map(|word| (*word).to_owned())
                .collect(),
            cwd: "/root".to_owned(),
            ..Command::default()
        };
        let (status, report) = trace::traced(config.clone(), &paths, command, None)?;
        let picture = figure
            .picture(status, report.as_ref())
            .with_context(|| format!("{} stays as it was", figure.path))?;
        let path = output.unwrap_or(&shop.repository).join(figure.path);
        let folder = path.parent().unwrap_or(&path);
        let written =
            std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, picture.svg()));
        written.with_context(|| format!("cannot write {}", path.display()))?;
        ui::say(&format!("written: {}", path.display()));
    }
    Ok(0)
}

/// Makes the documentation's site, and says where it is.
pub fn docs(args: &DocsArgs) -> Result<u8> {
    if let Some(dir) = &args.output
        && std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
    {
        return Err(usage(format!(
            "{}: it is not empty; name a folder that is, or that does not exist",
            dir.display()
        )));
    }
    let shop = Shop::open()?;
    if args.figures {
        return figures(&shop, args.output.as_deref());
    }
    let site = build::obtain(&shop)?;
    let mut folder = site.folder();
    if let Some(dir) = &args.output {
        for file in crate::key::files(&folder)? {
            files::copy(&file, &dir.join(file.strip_prefix(&folder)?))?;
        }
        folder = std::path::absolute(dir).context("there is no current folder")?;
    }
    ui::say(&format!("open {}", folder.join("index.html").display()));
    Ok(0)
}
