// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab`: sets the globalfifo device, its driver and a guest up, starts them, and tests them.
//!
//! This file turns a command line into an exit status; everything else is in the modules. See docs/lab.md.

mod bench;
mod cache;
mod cancel;
mod causes;
mod child;
mod cli;
mod columns;
mod commands;
mod escape;
mod exit;
mod files;
mod grading;
mod history;
mod initramfs;
mod key;
mod load;
mod options;
mod recipe;
mod scratch;
mod site;
mod skeletons;
mod soak;
mod stages;
mod stay;
mod streams;
mod symbols;
mod testing;
mod trace;
mod tty;
mod ui;
mod vm;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::cli::Cli;
use crate::cli::Command;

fn main() -> ExitCode {
    vm::timing::begin();
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some((first, rest)) = args.split_first()
        && first == child::SUBCOMMAND
    {
        return child::main(rest);
    }
    if let Some((first, rest)) = args.split_first()
        && first == vm::recording::SUBCOMMAND
    {
        return vm::recording::main(rest);
    }
    // The keeper of a machine that stays is the lab with the arguments of its `up`.
    let is_keeper = args
        .first()
        .is_some_and(|first| first == commands::up::KEEPER);
    let words = args.iter().skip(usize::from(is_keeper)).cloned();
    let cli = Cli::parse_from(std::iter::once(OsString::from("lab")).chain(words));
    ui::install(cli.quiet, cli.yes);
    let result = cancel::install().and_then(|()| dispatch(&cli.command, is_keeper));
    let status = match result.and_then(complete) {
        Ok(status) => status,
        Err(err) => {
            let (status, message) = exit::of(&err);
            if !message.is_empty() && cancel::signal().is_none() {
                ui::error(&message);
            }
            cancel::signal()
                .and_then(|signal| u8::try_from(128 + signal).ok())
                .unwrap_or(status)
        }
    };
    ExitCode::from(status)
}

/// A status of 0 promises that everything has been printed, and that each file that was asked for is whole.
fn complete(status: u8) -> Result<u8> {
    match streams::failed() {
        Some(exit) if status == 0 => Err(exit.clone().into()),
        _ => Ok(status),
    }
}

fn dispatch(command: &Command, is_keeper: bool) -> Result<u8> {
    match command {
        Command::Demo(args) => commands::demo::demo(args),
        Command::Run(args) => commands::run::run(args),
        Command::Trace(args) => commands::trace::trace(args),
        Command::Up(args) if is_keeper => commands::up::keep(args),
        Command::Up(args) => commands::up::up(args),
        Command::Exec(args) => commands::exec::exec(args),
        Command::Ps => commands::ps::ps(),
        Command::Down(args) => commands::down::down(args),
        Command::Console(args) => commands::console::console(args),
        Command::Lesson(args) => commands::lesson::lesson(args),
        Command::Cc(args) => commands::cc::cc(args),
        Command::New(args) => commands::new::new(args),
        Command::Module(args) => commands::module::module(args),
        Command::Grade(args) => commands::grade::grade(args),
        Command::Test(args) => commands::test::test(args),
        Command::Bench(args) => commands::bench::bench(args),
        Command::Soak(args) => commands::soak::soak(args),
        Command::Scale(args) => commands::scale::scale(args),
        Command::Doctor => commands::doctor::doctor(),
        Command::Clean(args) => commands::clean::clean(args),
        Command::Completions(args) => commands::pages::completions(args),
        Command::Docs(args) => commands::pages::docs(args),
        Command::Man(args) => commands::pages::man(args),
    }
}
