// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line of `cargo lab grade`.

use std::num::NonZeroU8;
use std::num::NonZeroU32;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use clap::ValueEnum;

use crate::grading::batch::Partition;
use crate::grading::lang::Lang;
use crate::stages::Arch;
use crate::stages::Edition;
use crate::stages::KernelChoice;
use crate::stages::KernelParser;
use crate::stages::System;
use crate::vm::config::AccelChoice;
use crate::vm::config::Config;

/// `cargo lab grade`.
///
/// PATH is a module (.ko), a C or Rust file, or a folder with a Kbuild or a Makefile. Rules marked M hold for every globalfifo driver; those
/// marked O are told as not there where a driver does not have them. docs/rules.md lists all. The status is 0 if all M rules that were selected passed, 1 if
/// not, 2 for a mistake on the command line, 125 if no machine came up: then there is no verdict.
#[derive(Debug, Args)]
pub struct GradeArgs {
    /// The driver.
    #[arg(required_unless_present_any = ["list", "show", "batch", "table"])]
    pub path: Option<PathBuf>,
    /// Only rules of this name, with wildcards: `fasync.*`; may be repeated.
    #[arg(long, value_name = "GLOB")]
    pub rule: Vec<String>,
    /// Stop at the first M rule that fails, and explain that one.
    #[arg(long)]
    pub next: bool,
    /// Grade again whenever a source is saved, until Ctrl-C.
    #[arg(long, requires = "path")]
    pub watch: bool,
    /// Grade each entry of this folder, a source or a folder with one, in a machine of its own.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["path", "next", "json", "junit", "html", "list", "show", "console"])]
    pub batch: Option<PathBuf>,
    /// Where --batch writes: table.csv and table.html of all results in it, and NAME.json, NAME.html, NAME.log of each entry.
    #[arg(
        long,
        value_name = "FOLDER",
        default_value = "grades",
        requires = "batch"
    )]
    pub output: PathBuf,
    /// Entries that --batch grades at once; a machine has 1 GB of memory.
    #[arg(long, value_name = "N", default_value = "1", requires = "batch")]
    pub jobs: NonZeroUsize,
    /// The I-th of N parts of --batch, from 1/N to N/N: each on another machine, with a common --output.
    #[arg(long, value_name = "I/N", requires = "batch")]
    pub partition: Option<Partition>,
    /// Seconds that an entry of --batch may take in all.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "1800",
        requires = "batch"
    )]
    pub limit: NonZeroU32,
    /// Put the table of the results in this folder together again: of parts that were graded elsewhere.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["path", "batch", "list", "show"])]
    pub table: Option<PathBuf>,
    /// List the rules.
    #[arg(long, conflicts_with_all = ["path", "show"])]
    pub list: bool,
    /// Print a rule's test: a C program for `cargo lab cc`.
    #[arg(long, value_name = "RULE", conflicts_with = "path")]
    pub show: Option<String>,
    /// Write the results as JSON; `-` is standard output, which then has nothing else.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the results to a file that CI systems read.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write the results as a page that opens without a network.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Trace the run of each rule's program, and write the timeline of each that fails as a page, RULE.html, to this folder.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["batch", "list", "show", "table"])]
    pub trace: Option<PathBuf>,
    /// The language of the rules' words; without it, that of LC_ALL, LC_MESSAGES or LANG.
    #[arg(long, value_enum, value_name = "LANG")]
    lang: Option<Lang>,
    /// A parameter of the module, NAME=VALUE; may be repeated.
    #[arg(long = "driver-arg", value_name = "NAME=VALUE")]
    pub parameters: Vec<String>,
    /// The guest's architecture, this machine's unless given.
    #[arg(long, value_enum, default_value_t)]
    arch: Arch,
    /// Which kernel the guest runs; `debug` also tells what lockdep, KASAN and kmemleak find.
    #[arg(long, value_name = "KERNEL", value_parser = KernelParser, default_value = "stock")]
    kernel: KernelChoice,
    /// Which edition is built, where PATH is our own driver.
    #[arg(long, value_enum, default_value = "fast")]
    driver_edition: Edition,
    /// CPUs of the guest.
    #[arg(long, value_name = "N", default_value = "2")]
    smp: NonZeroU8,
    /// How the guest's CPUs are made.
    #[arg(long, value_enum, default_value = "auto")]
    accel: AccelChoice,
    /// Keep all that the last machine's kernel says in this file.
    #[arg(long, value_name = "FILE")]
    pub console: Option<PathBuf>,
}

impl GradeArgs {
    /// The language of the rules' words.
    pub fn lang(&self) -> Lang {
        self.lang.unwrap_or_else(Lang::of_environment)
    }

    /// Kernel, edition, root.
    pub fn system(&self) -> System {
        System {
            arch: self.arch,
            kernel: self.kernel,
            edition: self.driver_edition,
            ..System::default()
        }
    }

    /// The machines to start.
    pub fn config(&self) -> anyhow::Result<Config> {
        let console = self.console.as_deref();
        Ok(Config {
            smp: self.smp.get(),
            accel: self.accel,
            system: self.system(),
            console: console.map(crate::options::console).transpose()?,
            ..Config::default()
        })
    }

    /// The options that a grading of one entry of --batch has too.
    pub fn for_each_entry(&self) -> Vec<String> {
        let choice = |value: Option<clap::builder::PossibleValue>| {
            value.map_or(String::new(), |value| value.get_name().to_owned())
        };
        let mut words = vec![
            format!("--arch={}", self.arch),
            format!("--kernel={}", self.kernel.name()),
            format!(
                "--driver-edition={}",
                choice(self.driver_edition.to_possible_value())
            ),
            format!("--accel={}", choice(self.accel.to_possible_value())),
            format!("--smp={}", self.smp),
            format!("--lang={}", choice(self.lang().to_possible_value())),
        ];
        words.extend(self.rule.iter().map(|glob| format!("--rule={glob}")));
        words.extend(
            self.parameters
                .iter()
                .map(|one| format!("--driver-arg={one}")),
        );
        words
    }

    /// Files that are to be written.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        [
            ("--json", &self.json),
            ("--junit", &self.junit),
            ("--html", &self.html),
        ]
        .into_iter()
        .filter_map(|(option, path)| Some((option, path.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: GradeArgs,
    }

    fn parse(words: &[&str]) -> GradeArgs {
        Line::try_parse_from(["grade", "x.c"].iter().chain(words))
            .unwrap()
            .args
    }

    #[test]
    fn each_entry_of_a_batch_is_graded_on_the_same_machine() {
        let given = [
            "--arch=arm64",
            "--kernel=rt",
            "--driver-edition=teaching",
            "--smp=3",
            "--accel=tcg",
        ];
        let args = parse(&given);
        let words = args.for_each_entry();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let again = parse(&words);
        assert_eq!(again.system(), args.system());
        assert_eq!((again.smp, again.accel), (args.smp, args.accel));
        assert_ne!(args.system(), System::default());
    }
}
