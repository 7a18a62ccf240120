//! What a guest's system consists of, as far as a user chooses it: kernel, edition of the driver, where its root is.
//!
//! Names and constants only. It must not know how any of it is made.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::ValueEnum;
use serde::Deserialize;

/// The variable by which guest-tests' programs multiply their time limits.
const PATIENCE: &str = "GLOBALFIFO_PATIENCE";

/// All of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct System {
    /// `--kernel`.
    pub kernel: KernelChoice,
    /// `--driver-edition`.
    pub edition: Edition,
    /// `--root`.
    pub root: Root,
}

/// `--kernel`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum KernelChoice {
    /// Debian's own.
    #[default]
    Stock,
    /// The same source with the kernel's own checkers of memory, locks and lifetimes; several times slower, built once.
    Debug,
    /// Debian's own of the flavour rt: preemptible almost everywhere (PREEMPT_RT), interrupts in threads.
    Rt,
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

impl KernelChoice {
    /// What the user calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Debug => "debug",
            Self::Rt => "rt",
        }
    }

    /// A time limit for what takes `usual` on the stock kernel: every limit on a guest's doings passes through here.
    pub fn limit(self, usual: Duration) -> Duration {
        usual * self.slowdown()
    }

    /// Tells guest-tests' programs to be patient too.
    pub fn environment(self) -> BTreeMap<String, String> {
        BTreeMap::from([(PATIENCE.to_owned(), self.slowdown().to_string())])
    }

    /// Words that it wants on its command line.
    pub fn command_line(self) -> &'static [&'static str] {
        match self {
            Self::Stock | Self::Rt => &[],
            // Every report of KASAN, not only the first. Four levels of page tables: with five, an interrupt while the kernel identifies its
            // CPU makes KASAN report where its own shadow is (7.3), and that switches lockdep off.
            Self::Debug => &["kasan_multi_shot", "no5lvl"],
        }
    }

    /// How much slower the guest is at most than with the stock kernel.
    pub fn slowdown(self) -> u32 {
        match self {
            Self::Stock => 1,
            Self::Debug => 6,
            // An interrupt wakes a thread: two changes of tasks more, which an emulated CPU feels.
            Self::Rt => 2,
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
    /// Whether it is the usual one but for its root: the one that all tests are for.
    pub fn is_usual(self) -> bool {
        (self.kernel, self.edition) == (KernelChoice::Stock, Edition::Fast)
    }
}
