// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line, and what can be said of it before anything is started.

mod bench;
mod grade;
mod guest;
mod machine;
mod module;
mod new;
mod stay;
mod trace;

use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap_complete::Shell;

use crate::exit::usage;
use crate::options;
use crate::stages;
use crate::stages::Arch;
use crate::stages::Edition;
use crate::stages::Wanted;
use crate::testing::kernels::Archs;
use crate::testing::kernels::Kernels;
use crate::testing::kernels::KernelsParser;
use crate::testing::kernels::archs_parser;
use crate::testing::partition::Fraction;
use crate::vm::config::AccelChoice;
use crate::vm::config::Config;

pub use bench::BenchArgs;
pub use grade::GradeArgs;
pub use guest::GuestArgs;
pub use guest::StreamArgs;
pub use machine::MachineArgs;
pub use module::ModuleArgs;
pub use new::Kind;
pub use new::Lang;
pub use new::NewArgs;
pub use stay::ConsoleArgs;
pub use stay::DownArgs;
pub use stay::ExecArgs;
pub use stay::UpArgs;
pub use trace::Format as TraceFormat;
pub use trace::TraceArgs;

/// The globalfifo lab: a FIFO device that exists only in software, with a real interrupt, and a guest to use it in.
///
/// Run as `cargo lab`. The first command sets everything up in $XDG_CACHE_HOME/globalfifo (a few minutes, 3 GB); after that a guest is up in
/// seconds.
#[derive(Debug, Parser)]
#[command(
    name = "cargo lab",
    bin_name = "cargo lab",
    version,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Print nothing but warnings and errors.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Install what set-up needs on this machine without asking (only ever: uidmap, for an ordinary user).
    #[arg(long, global = true)]
    pub yes: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show it: interrupt, SIGIO and asynchronous completion on real data.
    Demo(DemoArgs),
    /// Boot a guest with the device; run a command in it, or a shell.
    Run(RunArgs),
    /// Show where the time goes: one timeline of a command in the guest and the device on the host.
    Trace(TraceArgs),
    /// Boot a guest with the device that stays.
    Up(UpArgs),
    /// Run a command in a machine that stays; any number at once.
    Exec(ExecArgs),
    /// List the machines that stay.
    Ps,
    /// End a machine that stays.
    Down(DownArgs),
    /// Show what the kernel of a machine that stays says.
    Console(ConsoleArgs),
    /// Run the chapter's examples; without an ID, list them.
    Lesson(LessonArgs),
    /// Compile C for the guest.
    Cc(CcArgs),
    /// Make a driver of your own to start from.
    New(NewArgs),
    /// Build a kernel module of your own for the guest's kernel.
    Module(ModuleArgs),
    /// Test a driver of your own by named rules.
    Grade(GradeArgs),
    /// Run every test, on the host and in the guest.
    Test(TestArgs),
    /// Measure the device beside what one would use instead.
    Bench(BenchArgs),
    /// Do everything at once for some minutes; nothing may be lost.
    Soak(SoakArgs),
    /// Say what more FIFOs, devices, CPUs, bytes and requests cost.
    Scale(ScaleArgs),
    /// Say what is needed, what is there, and how to mend the rest.
    Doctor,
    /// Free the cache.
    Clean(CleanArgs),
    /// Make a site of the documentation that opens without a network.
    Docs(DocsArgs),
    /// Print completions for a shell: `fifo-lab completions bash`.
    Completions(CompletionsArgs),
    /// Write the man pages of all commands to a folder.
    Man(ManArgs),
}

/// `cargo lab demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Also write what happened as one timeline of guest and device: a page, see docs/trace.md.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineArgs,
}

/// `cargo lab lesson`.
#[derive(Debug, Args)]
pub struct LessonArgs {
    /// Which lesson, or `all`; 9.13 will do for listing-9.13.
    pub id: Option<String>,
    /// Where figures are written as SVG files.
    #[arg(long, value_name = "DIR")]
    svg: Option<OsString>,
    /// Also write what happened as one timeline of guest and device: a page, see docs/trace.md.
    #[arg(long, value_name = "FILE", requires = "id")]
    pub html: Option<PathBuf>,
    /// Replace the transcripts and figures in docs/lessons by those of this run.
    #[arg(long, requires = "id", conflicts_with = "svg")]
    pub update_pages: bool,
    #[command(flatten)]
    machine: MachineArgs,
}

/// `cargo lab run`.
///
/// The guest command's exit status is the lab's: 126 if it cannot be executed, 127 if there is none of that name, 128 + n after signal n.
/// 125 means that the machine failed (panic, time limit), 1 that set-up did, 2 a mistake on the command line.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub guest: GuestArgs,
    #[command(flatten)]
    pub streams: StreamArgs,
    /// Print the commands that would be run and run none.
    #[arg(long)]
    pub dry_run: bool,
    /// Print a table of where the time went, on standard error.
    #[arg(long, conflicts_with = "dry_run")]
    pub timing: bool,
    /// The command and its arguments, as they are; without it, a shell. For wildcards and variables of the guest: -- sh -c 'ls /dev/glob*'.
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// `cargo lab cc`.
///
/// Everything is passed on to the guest's gcc, whose messages name your own paths.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct CcArgs {
    /// What the program is to run on: the architecture of a guest, this machine's unless given. Before all that is gcc's.
    #[arg(long, value_enum, default_value_t)]
    pub arch: Arch,
    /// FILE.c… [-o OUT] [-lLIB] and whatever else gcc takes.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true,
        value_name = "ARG"
    )]
    pub args: Vec<OsString>,
}

/// `cargo lab test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Run only tests whose names contain this.
    pub filter: Option<String>,
    /// Run only this part of everything; several machines share a run so. The parts are the same for the same --times.
    #[arg(long, value_name = "I/N", conflicts_with_all = ["arch", "kernel", "driver_edition"])]
    pub partition: Option<Fraction>,
    /// Balance the parts by the times of an earlier run: its JUnit file.
    #[arg(long, value_name = "FILE", requires = "partition")]
    pub times: Option<PathBuf>,
    /// Print the names of the tests and run none.
    #[arg(long, conflicts_with = "junit")]
    pub list: bool,
    /// Also write the results to a file that CI systems read.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// How the guest's CPUs are made.
    #[arg(long, value_enum, default_value = "auto")]
    pub accel: AccelChoice,
    /// The guests' architecture; with another than this machine's, only the guests' tests are run.
    #[arg(long, value_name = "ARCH", value_parser = archs_parser(), default_value_t)]
    pub arch: Archs,
    /// Which kernel the guests run; with another than `stock`, only the guests' tests are run. What the checkers of `debug` report fails them.
    #[arg(long, value_name = "KERNEL", value_parser = KernelsParser, default_value = "stock")]
    pub kernel: Kernels,
    /// Which edition of the driver the guests have; with `teaching`, only the guests' tests are run.
    #[arg(long, value_enum, default_value = "fast")]
    pub driver_edition: Edition,
}

/// `cargo lab soak`.
///
/// Reads, writes, cancels, clears, unbinds and unloads in the guest, sends and checks on the host, and has things go wrong at random; see
/// docs/soak.md. The status is 0 if nothing was lost, nothing leaked, and the guest's kernel had nothing to complain of.
#[derive(Debug, Args)]
pub struct SoakArgs {
    /// How long, in minutes; 0.5 is half of one.
    #[arg(long, value_name = "N", default_value = "10", value_parser = minutes)]
    pub minutes: Duration,
    /// What chance follows from; without it, a number that is told.
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    #[command(flatten)]
    machine: MachineArgs,
}

/// `cargo lab scale`.
///
/// Boots a machine for each line of a table: one device with one FIFO, and more of everything, up to 31 FIFOs with 100 waiting requests each, 64
/// devices, 8 CPUs, 16 MiB.
#[derive(Debug, Args)]
pub struct ScaleArgs {
    /// Also write the figures to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineArgs,
}

/// `cargo lab clean`.
#[derive(Debug, Args)]
pub struct CleanArgs {
    /// Also what takes minutes to make again: the Debian tree, the kernels, tools and userland of other architectures.
    #[arg(long)]
    pub all: bool,
}

/// `cargo lab docs`.
///
/// The site has a search, this repository's sources where pages link to them, and rustdoc's pages of the crates. One page prints all of it.
#[derive(Debug, Args)]
pub struct DocsArgs {
    /// Copy the site to this folder, which must not exist or be empty; without it, it stays in the cache.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Instead of the site, make the figures that are traces, from traces: into the folder, or over those of this repository.
    #[arg(long)]
    pub figures: bool,
}

/// `cargo lab completions`.
///
/// They are for the program itself, fifo-lab: cargo completes its own commands only.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// `cargo lab man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The folder; made if missing.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

fn minutes(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map(|minutes| minutes * 60.0);
    seconds
        .ok()
        .filter(|seconds| (1.0..=1e6).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "give a number of minutes, like 10 or 0.5".to_owned())
}

impl DemoArgs {
    /// What to set up for it.
    pub fn wanted(&self) -> Result<Wanted> {
        self.machine.wanted_for("demo")
    }

    /// The machine to start.
    pub fn config(&self) -> Result<Config> {
        self.machine.config()
    }

    /// How long the command may take.
    pub fn timeout(&self) -> Option<Duration> {
        self.machine.timeout()
    }
}

impl LessonArgs {
    /// What to set up for it.
    pub fn wanted(&self) -> Result<Wanted> {
        self.machine.wanted_for("lesson")
    }

    /// The machine to start: unless asked otherwise, with a FIFO for most lessons and the zero device of one.
    pub fn config(&self) -> Result<Config> {
        let mut config = self.machine.config_with(&["loopback", "zero"])?;
        let folder = self.svg.clone().or(self.pages()?);
        config.shares = options::shares(folder.as_slice())?;
        Ok(config)
    }

    /// The folder of the pages, if they are to be updated.
    fn pages(&self) -> Result<Option<OsString>> {
        let repository = self.update_pages.then(stages::repository).transpose()?;
        Ok(repository.map(|path| path.join("docs/lessons").into_os_string()))
    }

    /// How long the lessons may take.
    pub fn timeout(&self) -> Option<Duration> {
        self.machine.timeout()
    }
}

impl ScaleArgs {
    /// What to set up for it.
    pub fn wanted(&self) -> Result<Wanted> {
        self.machine.wanted_for("scale")
    }

    /// What all the machines have in common.
    pub fn config(&self) -> Result<Config> {
        let config = self.machine.config()?;
        let usual = Config::default();
        for (option, given) in [
            ("--fifo", !config.fifos.is_empty() || !config.device),
            ("--fault", !config.faults.is_empty()),
            ("--capacity", config.capacity.is_some()),
            ("--control", config.control.is_some()),
            ("--smp", config.smp != usual.smp),
            ("--mem", config.mem != usual.mem),
        ] {
            if given {
                return Err(usage(format!(
                    "{option}: `scale` chooses that itself, leave it out"
                )));
            }
        }
        Ok(config)
    }
}

impl SoakArgs {
    /// What to set up for it.
    pub fn wanted(&self) -> Result<Wanted> {
        self.machine.wanted_for("soak")
    }

    /// The machine to start: a loopback, and a FIFO whose host end is at `data`.
    pub fn config(&self, data: &Path) -> Result<Config> {
        let mut config = self.machine.config()?;
        for (option, given) in [
            ("--fifo", !config.fifos.is_empty() || !config.device),
            ("--fault", !config.faults.is_empty()),
            ("--capacity", config.capacity.is_some()),
            ("--control", config.control.is_some()),
        ] {
            if given {
                return Err(usage(format!(
                    "{option}: a soak chooses that itself, leave it out"
                )));
            }
        }
        config.fifos = vec!["loopback".to_owned(), crate::soak::fifo_at(data)];
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn update_pages_needs_a_lesson_and_shares_the_pages_folder() {
        assert!(Cli::try_parse_from(["lab", "lesson", "--update-pages"]).is_err());
        let words = ["lab", "lesson", "all", "--update-pages", "--svg", "/tmp"];
        assert!(Cli::try_parse_from(words).is_err());
        let cli = Cli::try_parse_from(["lab", "lesson", "all", "--update-pages"]).unwrap();
        let Command::Lesson(args) = cli.command else {
            panic!("not a lesson");
        };
        let folder = args.pages().unwrap().unwrap();
        assert!(Path::new(&folder).join("listing-9.5.md").is_file());
    }
}
