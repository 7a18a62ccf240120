// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! guest-tests/suites.toml: which machine each of the guest's test programs needs.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use serde::Deserialize;

use crate::escape;
use crate::stages::Root;

/// Programs whose names begin so are tests.
pub const PREFIX: &str = "test-";
/// Programs that no suite names are run on a machine as `cargo lab run` makes it.
const DEFAULT: &str = "default";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    suite: Vec<Suite>,
}

/// Programs that run one after another on one machine.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// Part of the tests' names.
    pub name: String,
    /// The programs.
    pub programs: Vec<String>,
    /// FIFOs of the device. `{dir}` in them is a folder of the boot's own.
    #[serde(default)]
    pub fifos: Vec<String>,
    /// What goes wrong with the device.
    #[serde(default)]
    pub faults: Vec<String>,
    /// The lab plays the host's side of FIFOs: it takes orders at this socket in that folder.
    pub peer: Option<String>,
    /// Capacity, unless a FIFO says otherwise.
    pub capacity: Option<String>,
    /// FIFOs of a second device; without any there is none.
    #[serde(default)]
    pub second: Vec<String>,
    /// Numbers of CPUs; a boot for each.
    #[serde(default = "one_cpu")]
    pub smp: Vec<u8>,
    /// A program silent for this many seconds hangs.
    #[serde(default = "silence")]
    pub timeout: u64,
    /// Programs that also run on the debug kernel when everything is tested, with the greatest of those numbers of CPUs.
    #[serde(default)]
    pub checked: Vec<String>,
    /// Programs that also run with the driver's teaching edition when everything is tested, likewise.
    #[serde(default)]
    pub teaching: Vec<String>,
    /// Programs that also run on other kernels of the archive when everything is tested, likewise.
    #[serde(default)]
    pub kernels: Vec<String>,
    /// Where the guest's root is.
    #[serde(default)]
    pub root: Root,
    /// Memory of the guest, if not the usual amount.
    pub mem: Option<String>,
    /// Whether there is a point in running it on the stock kernel.
    #[serde(default = "yes")]
    pub stock: bool,
}

fn yes() -> bool {
    true
}

fn one_cpu() -> Vec<u8> {
    vec![1]
}

fn silence() -> u64 {
    120
}

impl Suite {
    /// What runs on the debug kernel when everything is tested.
    pub fn checked(&self) -> Option<Self> {
        self.part(&self.checked)
    }

    /// What runs with the teaching edition when everything is tested.
    pub fn teaching(&self) -> Option<Self> {
        self.part(&self.teaching)
    }

    /// What runs on other kernels of the archive when everything is tested.
    pub fn on_kernels(&self) -> Option<Self> {
        self.part(&self.kernels)
    }

    fn part(&self, programs: &[String]) -> Option<Self> {
        (!programs.is_empty()).then(|| Self {
            programs: programs.to_vec(),
            smp: self.smp.iter().copied().max().into_iter().collect(),
            ..self.clone()
        })
    }

    /// How long a program may stay silent.
    pub fn silence(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// The FIFOs of a boot whose folder is `dir`.
    pub fn fifos_in(&self, dir: &Path) -> Vec<String> {
        let dir = escape::fifo_spec(dir).to_string_lossy().into_owned();
        self.fifos
            .iter()
            .map(|fifo| fifo.replace("{dir}", &dir))
            .collect()
    }

    /// Its name with a number of CPUs, where that is not 1.
    pub fn name_with(&self, smp: u8) -> String {
        if smp == 1 {
            self.name.clone()
        } else {
            format!("{}@smp{smp}", self.name)
        }
    }
}

/// The suites, completed by one for the programs that none names.
pub fn load(path: &Path, programs: &[String]) -> Result<Vec<Suite>> {
    let text = match std::fs::read_to_string(path) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => String::new(),
        other => other.with_context(|| format!("cannot read {}", path.display()))?,
    };
    suites(&text, programs).with_context(|| format!("{} is not right", path.display()))
}

/// Those that the file names, whatever programs there are.
pub fn named(path: &Path) -> Result<Vec<Suite>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file: File =
        toml::from_str(&text).with_context(|| format!("{} is not right", path.display()))?;
    Ok(file.suite)
}

fn suites(text: &str, programs: &[String]) -> Result<Vec<Suite>> {
    let mut suites = toml::from_str::<File>(text)?.suite;
    let named: HashSet<&String> = suites.iter().flat_map(|suite| &suite.programs).collect();
    for suite in &suites {
        let mut parts = suite
            .checked
            .iter()
            .chain(&suite.teaching)
            .chain(&suite.kernels);
        if let Some(other) = parts.find(|name| !suite.programs.contains(name)) {
            anyhow::bail!(
                "{other} is to be run a second time, but is no program of the suite {}",
                suite.name
            );
        }
    }
    if let Some(absent) = named.iter().find(|name| !programs.contains(name)) {
        anyhow::bail!("there is no program {absent} in guest-tests");
    }
    let rest: Vec<String> = programs
        .iter()
        .filter(|name| name.starts_with(PREFIX) && !named.contains(name))
        .cloned()
        .collect();
    if !rest.is_empty() {
        suites.push(Suite {
            name: DEFAULT.to_owned(),
            programs: rest,
            fifos: Vec::new(),
            faults: Vec::new(),
            peer: None,
            capacity: None,
            second: Vec::new(),
            smp: one_cpu(),
            timeout: silence(),
            checked: Vec::new(),
            teaching: Vec::new(),
            kernels: Vec::new(),
            root: Root::default(),
            mem: None,
            stock: true,
        });
    }
    Ok(suites)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_test_program_that_no_suite_names_runs_all_the_same() {
        let text = "[[suite]]\nname = \"multi\"\nprograms = [\"test-multi\"]\nfifos = [\"loopback\", \"loopback\"]\nsmp = [1, 2]\n";
        let found = suites(text, &names(&["demo", "test-io", "test-multi"])).unwrap();
        assert_eq!(found[0].name_with(2), "multi@smp2");
        assert_eq!(found[1].programs, ["test-io"]);
    }

    #[test]
    fn what_is_checked_is_a_part_of_the_suite() {
        let text = |checked: &str| {
            format!(
                "[[suite]]\nname = \"a\"\nprograms = [\"test-x\", \"test-y\"]\nsmp = [1, 2]\nchecked = [\"{checked}\"]\n"
            )
        };
        let programs = names(&["test-x", "test-y", "test-z"]);
        let found = suites(&text("test-y"), &programs).unwrap();
        let checked = found[0].checked().unwrap();
        assert_eq!(
            (checked.programs, checked.smp),
            (names(&["test-y"]), vec![2])
        );
        assert_eq!(found[1].checked(), None);
        assert!(suites(&text("test-z"), &programs).is_err());
    }

    #[test]
    fn a_part_has_its_own_programs_and_the_suites_root() {
        let text = "[[suite]]\nname = \"a\"\nprograms = [\"test-x\", \"test-y\"]\nteaching = [\"test-x\"]\nroot = \"ram\"\n";
        let found = suites(text, &names(&["test-x", "test-y"])).unwrap();
        let teaching = found[0].teaching().unwrap();
        assert_eq!(teaching.programs, ["test-x"]);
        assert_eq!(teaching.root, Root::Ram);
        assert_eq!(found[0].checked(), None);
        let bad = text.replace("\"ram\"", "\"disk\"");
        assert!(suites(&bad, &names(&["test-x", "test-y"])).is_err());
        for key in ["teaching", "kernels"] {
            let bad = text.replace("teaching = [\"test-x\"]", &format!("{key} = [\"test-z\"]"));
            assert!(suites(&bad, &names(&["test-x", "test-y"])).is_err());
        }
    }

    #[test]
    fn a_misspelt_key_or_program_is_an_error() {
        assert!(suites("[[suite]]\nname = \"a\"\nprogram = [\"x\"]\n", &[]).is_err());
        assert!(
            suites(
                "[[suite]]\nname = \"a\"\nprograms = [\"test-x\"]\n",
                &names(&["test-y"])
            )
            .is_err()
        );
    }
}
