// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Options of a machine, which every command that boots takes, and what can be said of them before anything is started.

use std::ffi::OsString;
use std::num::NonZeroU8;
use std::num::NonZeroU32;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::exit::usage;
use crate::options;
use crate::stages;
use crate::stages::Arch;
use crate::stages::Driver;
use crate::stages::Edition;
use crate::stages::KernelChoice;
use crate::stages::KernelParser;
use crate::stages::Root;
use crate::stages::System;
use crate::stages::Wanted;
use crate::stages::own;
use crate::stages::own::source::Source;
use crate::vm::config::AccelChoice;
use crate::vm::config::Config;
use crate::vm::config::Load;

/// Megabytes of memory that a guest needs whose root is in it.
const RAM_ROOT: u64 = 768;
/// No driver, no device.
const NONE: &str = "none";

/// What every command that starts a machine takes.
#[derive(Debug, Args)]
pub struct MachineArgs {
    /// A FIFO, as for vhost-device-fifo: loopback, unix=PATH[,connect], tcp=HOST:PORT[,listen], pty[,link=PATH], file=PATH[,input=PATH],
    /// pattern[,seed=N], zero or null, then perhaps ",capacity=N"; may be repeated. docs/endpoints.md has examples. `none`: the machine has no such device.
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
    /// The guest's architecture, this machine's unless given. Another is emulated; the lab fetches its tools and userland first.
    #[arg(long, value_enum, default_value_t)]
    arch: Arch,
    /// Which kernel the guest runs.
    #[arg(long, value_name = "KERNEL", value_parser = KernelParser, default_value = "stock")]
    kernel: KernelChoice,
    /// Load this driver instead of ours: a module (.ko), or a .c or .rs file or a folder, which is built first (`cargo lab module`). A node that
    /// it does not make itself is made for it; /dev/globalfifo leads there. `none` boots without driver and device.
    #[arg(long, value_name = "PATH", conflicts_with = "driver_edition")]
    driver: Option<PathBuf>,
    /// A parameter of the driver's module; may be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    driver_arg: Vec<String>,
    /// Which edition of our driver is built and loaded.
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
    /// Let gdb debug the guest's kernel and driver; prints the command that starts it. See docs/debugging.md.
    #[arg(long)]
    gdb: bool,
    /// Give the guest a network: it reaches what this machine reaches, nobody reaches it.
    #[arg(long)]
    net: bool,
    /// End the machine if the command has not ended after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<NonZeroU32>,
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

impl MachineArgs {
    pub(super) fn config(&self) -> Result<Config> {
        self.config_with(&[])
    }

    /// With these FIFOs unless the user names some; without any, the daemon makes one.
    pub(super) fn config_with(&self, usual: &[&str]) -> Result<Config> {
        let driver = self.load()?;
        let device = driver != Load::None && !options::no_device(&self.fifo)?;
        let mut fifos = if device {
            options::fifos(&self.fifo)?
        } else {
            Vec::new()
        };
        self.check_without_device(device)?;
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
            driver,
            driver_args: options::driver_args(&self.driver_arg)?,
            device,
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
            gdb: self.gdb,
            ..Config::default()
        })
    }

    /// Which driver the machine loads.
    fn load(&self) -> Result<Load> {
        let load = match self.driver.as_deref() {
            None => Load::Ours,
            Some(path) if path == Path::new(NONE) => Load::None,
            Some(path) if own::is_ours(path, &stages::repository()?) => Load::Ours,
            Some(_) => Load::Theirs,
        };
        if load == Load::None && !self.driver_arg.is_empty() {
            return Err(usage("--driver-arg: there is no driver that could take it"));
        }
        Ok(load)
    }

    /// Options of the device are mistakes where `--fifo none` says that there is none.
    fn check_without_device(&self, device: bool) -> Result<()> {
        let asked = self.fifo.iter().any(|spec| spec == NONE);
        for (option, given) in [
            ("--fault", !self.fault.is_empty()),
            ("--capacity", self.capacity.is_some()),
            ("--control", self.control.is_some()),
        ] {
            if given && asked && !device {
                return Err(usage(format!(
                    "{option}: there is no device with --fifo none"
                )));
            }
        }
        Ok(())
    }

    /// What set-up has to do for the driver.
    pub(super) fn driver(&self) -> Result<Driver> {
        let Some(path) = &self.driver else {
            return Ok(Driver::Ours);
        };
        if path == Path::new(NONE) {
            return Ok(Driver::None);
        }
        let repository = stages::repository()?;
        let is_source = path
            .extension()
            .is_some_and(|ext| ext == "c" || ext == "rs");
        if own::is_ours(path, &repository) {
            Ok(Driver::Ours)
        } else if is_source || path.is_dir() {
            let source = Source::of(path, &repository);
            Ok(Driver::Source(
                source.map_err(|err| err.context("--driver"))?,
            ))
        } else {
            Ok(Driver::File(module(path, self.arch)?))
        }
    }

    /// What to set up for a command that needs a driver and all of guest-tests' programs.
    pub(super) fn wanted_for(&self, command: &str) -> Result<Wanted> {
        let driver = self.driver()?;
        if matches!(driver, Driver::None) {
            return Err(usage(format!("--driver none: {command} needs a driver")));
        }
        Ok(Wanted {
            driver,
            ..Wanted::programs_on(self.system())
        })
    }

    pub(super) fn system(&self) -> System {
        System {
            arch: self.arch,
            kernel: self.kernel,
            edition: self.driver_edition,
            root: self.root,
        }
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout
            .map(|seconds| Duration::from_secs(u64::from(seconds.get())))
    }
}

pub(super) fn qemu_is_there(qemu: Option<&Path>) -> Result<()> {
    match qemu {
        Some(path) if rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_err() => Err(usage(
            format!("--qemu {}: no program there", path.display()),
        )),
        _ => Ok(()),
    }
}

/// A kernel module is a relocatable ELF file with a .modinfo section; this much can be seen without loading it.
pub(super) fn module(path: &Path, arch: Arch) -> Result<PathBuf> {
    let bytes =
        std::fs::read(path).map_err(|err| usage(format!("--driver {}: {err}", path.display())))?;
    let relocatable = bytes.get(..4) == Some(b"\x7fELF") && bytes.get(16) == Some(&1);
    let modinfo = bytes.windows(9).any(|window| window == b".modinfo\0");
    if !relocatable || !modinfo {
        return Err(usage(format!(
            "--driver {}: not a kernel module (a .ko file, not compressed)",
            path.display()
        )));
    }
    if bytes.get(18..20) != Some(&arch.elf_machine().to_le_bytes()) {
        return Err(usage(format!(
            "--driver {}: that module is for another architecture than the guest's, {arch}",
            path.display()
        )));
    }
    Ok(path.canonicalize().unwrap_or_else(|_| path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_wants_a_number_and_a_unit() {
        assert_eq!(memory("512M").unwrap(), "512M");
        for bad in ["", "G", "512", "1T", "-1G", "64M", "1.5G"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_module_for_another_architecture_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.ko");
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(64, 0);
        elf[16] = 1;
        elf[18..20].copy_from_slice(&Arch::Arm64.elf_machine().to_le_bytes());
        elf.extend(b"\0.modinfo\0");
        std::fs::write(&path, elf).unwrap();
        assert!(module(&path, Arch::Arm64).is_ok());
        let said = module(&path, Arch::X86_64).unwrap_err();
        assert!(said.to_string().contains("the guest's, x86-64"), "{said}");
    }

    #[test]
    fn a_file_that_is_no_module_is_refused() {
        let arch = Arch::host();
        assert!(module(Path::new("/proc/self/exe"), arch).is_err());
        assert!(module(Path::new("/etc/passwd"), arch).is_err());
    }
}
