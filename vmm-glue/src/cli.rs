// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line, and what can be said of it before anything is started.

mod bench;

use std::ffi::OsString;
use std::num::NonZeroU8;
use std::num::NonZeroU32;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use clap::Parser;
use clap::Subcommand;

use crate::commands::soak::fifo_at;
use crate::exit::usage;
use crate::options;
use crate::stages;
use crate::stages::Driver;
use crate::stages::Edition;
use crate::stages::KernelChoice;
use crate::stages::Root;
use crate::stages::System;
use crate::stages::Wanted;
use crate::stages::layer;
use crate::stages::programs::Need;
use crate::vm::config::AccelChoice;
use crate::vm::config::Config;

/// Megabytes of memory that a guest needs whose root is in it.
const RAM_ROOT: u64 = 768;

pub use bench::BenchArgs;

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
    /// Run the chapter's examples; without an ID, list them.
    Lesson(LessonArgs),
    /// Compile C for the guest.
    Cc(CcArgs),
    /// Run every test, on the host and in the guest.
    Test(TestArgs),
    /// Measure the device beside what one would use instead.
    Bench(BenchArgs),
    /// Do everything at once for some minutes; nothing may be lost.
    Soak(SoakArgs),
    /// Say what is needed, what is there, and how to mend the rest.
    Doctor,
    /// Free the cache.
    Clean(CleanArgs),
}

/// `cargo lab demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
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
    machine: MachineArgs,
    /// Show a folder of the host in the guest at /mnt/NAME, and start there; may be repeated. NAME is the folder's own unless given.
    #[arg(long, value_name = "[NAME=]DIR[:ro]")]
    share: Vec<OsString>,
    /// Set a variable for the command; without a value, to what it is here; may be repeated.
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Give the command a terminal in the guest, as the shell has one.
    #[arg(short, long)]
    pub terminal: bool,
    /// Read nothing from standard input: for a loop like `while read x; do cargo lab run -n -- …; done <list`.
    #[arg(short, long, conflicts_with = "terminal")]
    pub no_stdin: bool,
    /// Add a Debian package to the guest's userland; may be repeated.
    #[arg(long, value_name = "PKG")]
    install: Vec<String>,
    /// Load this module instead of the one built from guest-driver/; `none` boots without driver and device.
    #[arg(long, value_name = "KO", conflicts_with = "driver_edition")]
    driver: Option<PathBuf>,
    /// Print the commands that would be run and run none.
    #[arg(long)]
    pub dry_run: bool,
    /// The command and its arguments, as they are; without it, a shell. For wildcards and variables of the guest: -- sh -c 'ls /dev/glob*'.
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// What every command that starts a machine takes.
#[derive(Debug, Args)]
pub struct MachineArgs {
    /// A FIFO, as for vhost-device-fifo: loopback, unix=PATH[,connect], pty[,link=PATH], file=PATH[,input=PATH], pattern[,seed=N], zero or
    /// null, then perhaps ",capacity=N"; may be repeated. docs/endpoints.md has examples.
    #[arg(long, value_name = "SPEC")]
    fifo: Vec<String>,
    /// Something that goes wrong on demand, as for vhost-device-fifo: `stall,fifo=0,after=1s`; may be repeated. See docs/faults.md.
    #[arg(long, value_name = "SPEC")]
    fault: Vec<String>,
    /// Bytes that a FIFO holds, unless its SPEC says otherwise; K and M are understood.
    #[arg(long, value_name = "BYTES", value_parser = options::capacity)]
    capacity: Option<String>,
    /// Where the device's control socket is to be, for `vhost-device-fifo ctl`; without it, in a directory of the run's own.
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// CPUs of the guest.
    #[arg(long, value_name = "N", default_value = "1")]
    smp: NonZeroU8,
    /// Memory of the guest, like 512M or 2G.
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = memory)]
    mem: String,
    /// How the guest's CPUs are made.
    #[arg(long, value_enum, default_value = "auto")]
    accel: AccelChoice,
    /// Which kernel the guest runs.
    #[arg(long, value_enum, default_value = "stock")]
    kernel: KernelChoice,
    /// Which edition of the driver is built and loaded.
    #[arg(long, value_enum, default_value = "fast")]
    driver_edition: Edition,
    /// Where the guest's root is. `ram` is for suspends; it needs 768 MB of memory, and `--share` adds a device that refuses to suspend.
    #[arg(long, value_enum, default_value = "virtiofs")]
    root: Root,
    /// A QEMU of this machine instead of the lab's own.
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
    /// An argument added to QEMU's command line; may be repeated.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    qemu_arg: Vec<OsString>,
    /// Entries of each virtqueue, a power of two.
    #[arg(long, value_name = "N", default_value = "256", value_parser = queue_size)]
    queue_size: u16,
    /// Words added to the kernel's command line; may be repeated.
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    append: Vec<String>,
    /// Keep all that the guest's kernel says in this file.
    #[arg(long, value_name = "FILE")]
    console: Option<PathBuf>,
    /// Show what the guest's kernel says while it runs, on standard error.
    #[arg(short, long)]
    verbose: bool,
    /// Give the guest a network: it reaches what this machine reaches, nobody reaches it.
    #[arg(long)]
    net: bool,
    /// End the machine if the command has not ended after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<NonZeroU32>,
}

/// `cargo lab cc`.
///
/// Everything is passed on to the guest's gcc, whose messages name your own paths.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct CcArgs {
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
    /// Also write the results to a file that CI systems read.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// How the guest's CPUs are made.
    #[arg(long, value_enum, default_value = "auto")]
    pub accel: AccelChoice,
    /// Which kernel the guests run; with another than `stock`, only the guests' tests are run. What the checkers of `debug` report fails them.
    #[arg(long, value_enum, default_value = "stock")]
    pub kernel: KernelChoice,
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

/// `cargo lab clean`.
#[derive(Debug, Args)]
pub struct CleanArgs {
    /// Also the Debian tree and the kernel, which take minutes to make again.
    #[arg(long)]
    pub all: bool,
}

fn minutes(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map(|minutes| minutes * 60.0);
    seconds
        .ok()
        .filter(|seconds| (1.0..=1e6).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "give a number of minutes, like 10 or 0.5".to_owned())
}

/// Megabytes of memory.
fn megabytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(['M', 'G']);
    let unit = text.get(digits.len()..).unwrap_or_default();
    let size: u64 = digits
        .parse()
        .map_err(|_| "give a number and M or G, like 512M or 2G".to_owned())?;
    match unit {
        "M" => Ok(size),
        "G" => Ok(size.saturating_mul(1024)),
        _ => Err("give a number and M or G, like 512M or 2G".to_owned()),
    }
}

fn memory(text: &str) -> Result<String, String> {
    if megabytes(text)? < 256 {
        Err("the guest needs at least 256M".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

fn queue_size(text: &str) -> Result<u16, String> {
    let size: u16 = text
        .parse()
        .map_err(|_| "give a power of two from 2 to 1024".to_owned())?;
    if size.is_power_of_two() && (2..=1024).contains(&size) {
        Ok(size)
    } else {
        Err("give a power of two from 2 to 1024".to_owned())
    }
}

impl DemoArgs {
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

impl SoakArgs {
    /// The machine to start: a loopback, and a FIFO whose host end is at `data`.
    pub fn config(&self, data: &Path) -> Result<Config> {
        let mut config = self.machine.config()?;
        for (option, given) in [
            ("--fifo", !config.fifos.is_empty()),
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
        config.fifos = vec!["loopback".to_owned(), fifo_at(data)];
        Ok(config)
    }
}

impl RunArgs {
    /// The machine to start.
    pub fn config(&self) -> Result<Config> {
        let mut config = self.machine.config()?;
        config.shares = options::shares(&self.share)?;
        config.driver = self.driver.as_deref() != Some(Path::new("none"));
        Ok(config)
    }

    /// What to set up for it.
    pub fn wanted(&self) -> Result<Wanted> {
        if let Some(bad) = self
            .install
            .iter()
            .find(|name| !layer::is_package_name(name))
        {
            return Err(usage(format!(
                "--install {bad}: not the name of a Debian package"
            )));
        }
        let driver = match &self.driver {
            None => Driver::Ours,
            Some(path) if path == Path::new("none") => Driver::None,
            Some(path) => Driver::File(module(path)?),
        };
        Ok(Wanted {
            install: self.install.clone(),
            driver,
            system: self.machine.system(),
            programs: Need::IfTheyBuild,
        })
    }

    /// How long the command may take.
    pub fn timeout(&self) -> Option<Duration> {
        self.machine.timeout()
    }

    /// Variables for the command.
    pub fn env(&self) -> Result<Vec<(String, String)>> {
        self.env.iter().map(|text| options::env(text)).collect()
    }
}

impl MachineArgs {
    fn config(&self) -> Result<Config> {
        self.config_with(&[])
    }

    /// With these FIFOs unless the user names some; without any, the daemon makes one.
    fn config_with(&self, usual: &[&str]) -> Result<Config> {
        let mut fifos = options::fifos(&self.fifo)?;
        if fifos.is_empty() {
            fifos.extend(usual.iter().map(|spec| (*spec).to_owned()));
        }
        let append = options::append(&self.append)?;
        qemu_is_there(self.qemu.as_deref())?;
        if self.root == Root::Ram && megabytes(&self.mem).is_ok_and(|size| size < RAM_ROOT) {
            return Err(usage(format!(
                "--root ram --mem {}: a root in RAM needs --mem {RAM_ROOT}M or more",
                self.mem
            )));
        }
        Ok(Config {
            smp: self.smp.get(),
            mem: self.mem.clone(),
            accel: self.accel,
            faults: options::faults(&self.fault, fifos.len())?,
            fifos,
            capacity: self.capacity.clone(),
            control: self.control.clone(),
            vq_size: self.queue_size,
            system: self.system(),
            qemu: self.qemu.clone(),
            qemu_args: self.qemu_arg.clone(),
            append,
            console: self.console.as_deref().map(options::console).transpose()?,
            verbose: self.verbose,
            net: self.net,
            ..Config::default()
        })
    }

    fn system(&self) -> System {
        System {
            kernel: self.kernel,
            edition: self.driver_edition,
            root: self.root,
        }
    }

    fn timeout(&self) -> Option<Duration> {
        self.timeout
            .map(|seconds| Duration::from_secs(u64::from(seconds.get())))
    }
}

fn qemu_is_there(qemu: Option<&Path>) -> Result<()> {
    match qemu {
        Some(path) if rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_err() => Err(usage(
            format!("--qemu {}: no program there", path.display()),
        )),
        _ => Ok(()),
    }
}

/// A kernel module is a relocatable ELF file with a .modinfo section; this much can be seen without loading it.
fn module(path: &Path) -> Result<PathBuf> {
    let bytes =
        std::fs::read(path).map_err(|err| usage(format!("--driver {}: {err}", path.display())))?;
    let relocatable = bytes.get(..4) == Some(b"\x7fELF") && bytes.get(16) == Some(&1);
    let modinfo = bytes.windows(9).any(|window| window == b".modinfo\0");
    if relocatable && modinfo {
        Ok(path.canonicalize().unwrap_or_else(|_| path.to_owned()))
    } else {
        Err(usage(format!(
            "--driver {}: not a kernel module (a .ko file, not compressed)",
            path.display()
        )))
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
    fn memory_wants_a_number_and_a_unit() {
        assert_eq!(memory("512M").unwrap(), "512M");
        for bad in ["", "G", "512", "1T", "-1G", "64M", "1.5G"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
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

    #[test]
    fn a_file_that_is_no_module_is_refused() {
        assert!(module(Path::new("/proc/self/exe")).is_err());
        assert!(module(Path::new("/etc/passwd")).is_err());
    }
}
