// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a guest's system consists of, as far as a user chooses it: kernel, edition of the driver, where its root is.
//!
//! Names and constants only. It must not know how any of it is made.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::Deserialize;

use super::arch::Arch;
use super::own_kernel::OwnKernel;

/// The variable by which guest-tests' programs multiply their time limits.
const PATIENCE: &str = "GLOBALFIFO_PATIENCE";

/// Words for a kernel with KASAN: every report, not only the first. Four levels of page tables: with five, an interrupt while the kernel
/// identifies its CPU makes KASAN report where its own shadow is (7.3), and that switches lockdep off.
const CHECKED_WORDS: &[&str] = &["kasan_multi_shot", "no5lvl"];
/// How many times slower a kernel with checkers of memory or locks is at most.
const CHECKED_SLOWDOWN: u32 = 6;
/// The same of one with PREEMPT_RT: an interrupt wakes a thread, two changes of tasks more, which an emulated CPU feels.
const RT_SLOWDOWN: u32 = 2;

/// All of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct System {
    /// `--arch`.
    pub arch: Arch,
    /// `--kernel`.
    pub kernel: KernelChoice,
    /// `--driver-edition`.
    pub edition: Edition,
    /// `--root`.
    pub root: Root,
}

/// `--kernel`. What a command line names lives as long as the process, so that a choice is as easy to hand on as a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KernelChoice {
    /// Debian's own.
    #[default]
    Stock,
    /// The same source with the kernel's own checkers of memory, locks and lifetimes; several times slower, built once.
    Debug,
    /// Debian's own of the flavour rt: preemptible almost everywhere (PREEMPT_RT), interrupts in threads.
    Rt,
    /// Debian's own of another version.
    Series(Series),
    /// A kernel that the user has built.
    Own(&'static OwnKernel),
}

/// A version of Linux, or the part of it that the user cares for: 7.2, or 7.2.12.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Series {
    /// As the user wrote it.
    pub text: &'static str,
    /// Major and minor version.
    pub version: (u32, u32),
}

/// First version of Linux that our driver builds for: it has the kernel crate's interfaces that the driver stands on.
pub const DRIVER_NEEDS: (u32, u32) = (7, 2);

/// Reads `--kernel` for clap.
#[derive(Debug, Clone, Copy)]
pub struct KernelParser;

impl clap::builder::TypedValueParser for KernelParser {
    type Value = KernelChoice;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<KernelChoice, clap::Error> {
        let read = |value: &str| KernelChoice::parse(value);
        clap::builder::TypedValueParser::parse_ref(&read, command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let values = [
            ("stock", "Debian's own"),
            (
                "debug",
                "The same source with the kernel's own checkers of memory, locks and lifetimes; several times slower, built once",
            ),
            (
                "rt",
                "Debian's own of the flavour rt: preemptible almost everywhere (PREEMPT_RT), interrupts in threads",
            ),
            ("SERIES", "Debian's own of another version, such as 7.2"),
            (
                "PATH",
                "The folder of a kernel that you have built: with .config, Module.symvers, and arch/x86/boot/bzImage or vmlinux; for arm64, arch/arm64/boot/Image",
            ),
        ];
        Some(Box::new(
            values
                .into_iter()
                .map(|(name, help)| PossibleValue::new(name).help(help)),
        ))
    }
}

impl Series {
    /// `MAJOR.MINOR` or `MAJOR.MINOR.PATCH`.
    fn parse(text: &str) -> Option<Self> {
        let numbers = text.split('.').map(|part| {
            let digits = !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
            digits.then(|| part.parse::<u32>().ok()).flatten()
        });
        match numbers.collect::<Option<Vec<_>>>()?.as_slice() {
            [major, minor] | [major, minor, _] => Some(Self {
                text: Box::leak(text.to_owned().into_boxed_str()),
                version: (*major, *minor),
            }),
            _ => None,
        }
    }
}

/// `--driver-edition`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Edition {
    /// The whole driver.
    #[default]
    Fast,
    /// Its core alone, without what only speeds things up.
    Teaching,
}

/// `--root`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Root {
    /// The Debian tree, shared by virtiofs; that refuses to be suspended.
    #[default]
    Virtiofs,
    /// A small userland in the guest's memory: a suspend can succeed.
    Ram,
}

/// Tells guest-tests' programs that everything takes `times` as long as on the stock kernel of a machine with nothing else to do.
pub fn environment_of(times: u32) -> BTreeMap<String, String> {
    BTreeMap::from([(PATIENCE.to_owned(), times.to_string())])
}

impl KernelChoice {
    /// What the user calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Debug => "debug",
            Self::Rt => "rt",
            Self::Series(series) => series.text,
            Self::Own(own) => own.name(),
        }
    }

    /// By what the user calls it. A folder is looked at: one that is no built kernel is an error that says what it lacks.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "stock" => return Ok(Self::Stock),
            "debug" => return Ok(Self::Debug),
            "rt" => return Ok(Self::Rt),
            _ => {}
        }
        if let Some(series) = Series::parse(text) {
            return Ok(Self::Series(series));
        }
        let path = Path::new(text);
        if text.contains('/') || path.is_dir() {
            return Ok(Self::Own(Box::leak(Box::new(OwnKernel::look(path)?))));
        }
        Err(
            "no such kernel: give stock, debug, rt, a version of Linux such as 7.2, or the folder of a kernel that you have built"
                .to_owned(),
        )
    }

    /// Whether our driver can be built for it, as far as its version tells: otherwise what to do.
    pub fn takes_our_driver(self) -> Result<(), String> {
        match self {
            Self::Series(series) if series.version < DRIVER_NEEDS => {
                let (major, minor) = DRIVER_NEEDS;
                Err(format!(
                    "--kernel {}: our driver needs Linux {major}.{minor} or newer; load another with --driver PATH, or none with --driver none",
                    series.text
                ))
            }
            _ => Ok(()),
        }
    }

    /// Words that it wants on its command line.
    pub fn command_line(self) -> &'static [&'static str] {
        match self {
            Self::Stock | Self::Rt | Self::Series(_) => &[],
            Self::Debug => CHECKED_WORDS,
            Self::Own(own) => {
                if own.has_kasan {
                    CHECKED_WORDS
                } else {
                    &[]
                }
            }
        }
    }

    /// How much slower the guest is at most than with the stock kernel.
    pub fn slowdown(self) -> u32 {
        match self {
            Self::Stock | Self::Series(_) => 1,
            Self::Debug => CHECKED_SLOWDOWN,
            Self::Rt => RT_SLOWDOWN,
            Self::Own(own) if own.is_checked => CHECKED_SLOWDOWN,
            Self::Own(own) if own.is_rt => RT_SLOWDOWN,
            Self::Own(_) => 1,
        }
    }
}

impl Edition {
    /// make's variable that chooses it.
    pub fn make_variable(self) -> &'static str {
        match self {
            Self::Fast => "GLOBALFIFO_FAST=y",
            Self::Teaching => "GLOBALFIFO_FAST=n",
        }
    }
}

impl System {
    /// What can be said against it before anything is made.
    pub fn check(self) -> Result<(), String> {
        match self.kernel {
            KernelChoice::Debug if self.arch != Arch::X86_64 || self.arch.is_foreign() => {
                Err("--kernel debug: it is built on x86-64, for x86-64".to_owned())
            }
            KernelChoice::Own(own) if own.arch != self.arch => Err(format!(
                "--kernel {}: that kernel is for {}; add --arch {}",
                own.name(),
                own.arch,
                own.arch
            )),
            _ => Ok(()),
        }
    }

    /// Its name among several: that of its kernel, with the architecture before it if that is not this machine's.
    pub fn label(self) -> String {
        let kernel = self.kernel.name();
        if self.arch.is_foreign() {
            format!("{}-{kernel}", self.arch)
        } else {
            kernel.to_owned()
        }
    }

    /// How much slower the guest is at most than a usual one.
    pub fn slowdown(self) -> u32 {
        self.kernel.slowdown() * self.arch.slowdown()
    }

    /// A time limit for what takes `usual` in a usual guest: every limit on a guest's doings passes through here.
    pub fn limit(self, usual: Duration) -> Duration {
        usual * self.slowdown()
    }

    /// Tells guest-tests' programs to be patient too.
    pub fn environment(self) -> BTreeMap<String, String> {
        environment_of(self.slowdown())
    }

    /// Whether it is the usual one but for its root: the one that all tests are for.
    pub fn is_usual(self) -> bool {
        (self.arch, self.kernel, self.edition) == (Arch::host(), KernelChoice::Stock, Edition::Fast)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_series_and_anything_else_a_name_or_a_folder() {
        for text in ["7.2", "7.2.12", "10.0"] {
            let Ok(KernelChoice::Series(series)) = KernelChoice::parse(text) else {
                panic!("{text} is no series");
            };
            assert_eq!(series.text, text);
        }
        assert_eq!(KernelChoice::parse("rt"), Ok(KernelChoice::Rt));
        for bad in ["7", "7.", "7.2.", "7.2.1.1", "v7.2", "7.2-rc1", "mine", ""] {
            let said = KernelChoice::parse(bad).unwrap_err();
            assert!(said.contains("such as 7.2"), "{bad}: {said}");
        }
        let said = KernelChoice::parse("/no/such/kernel").unwrap_err();
        assert!(said.contains("there is no such folder"), "{said}");
    }

    #[test]
    fn our_driver_is_refused_an_older_series_with_what_to_do() {
        let old = KernelChoice::parse("7.1").unwrap();
        let said = old.takes_our_driver().unwrap_err();
        assert!(
            said.contains("Linux 7.2") && said.contains("--driver PATH"),
            "{said}"
        );
        for fine in ["7.2.12", "7.3", "8.0", "stock", "rt"] {
            assert!(
                KernelChoice::parse(fine)
                    .unwrap()
                    .takes_our_driver()
                    .is_ok()
            );
        }
    }
}
