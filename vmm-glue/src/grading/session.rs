// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A machine with the graded module: booted, told what to do by guest.sh, and listened to until it answers, falls silent or dies.
//!
//! It must not know any rule.

use std::fs;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;

use super::catalog;
use super::timeline;
use super::trace;
use crate::cancel;
use crate::exit;
use crate::scratch;
use crate::scratch::Scratch;
use crate::stages::shop::Shop;
use crate::vm::config::Config;
use crate::vm::config::Load;
use crate::vm::config::Paths;
use crate::vm::config::Share;
use crate::vm::console;
use crate::vm::guest::Guest;
use crate::vm::machine::Machine;
use crate::vm::monitor;

/// Line that parts what a call says from what the kernel has logged meanwhile.
const KERNEL: &str = "--- kernel";
/// How guest.sh names a call in the kernel's log.
const MARK: &str = "grader: ";
/// The guest's script, on the share.
const SCRIPT: &str = "guest.sh";
/// What a guest has besides a call's own limit, for what is not the driver's: starting a process, an emulated CPU.
const SLACK: Duration = Duration::from_secs(20);
/// Longest pause between two looks at the console.
const LOOK: Duration = Duration::from_secs(1);
/// Time for a call to end, and for a report to be printed whole, once the kernel has reported something that it may not survive.
const LAST_WORDS: Duration = Duration::from_secs(15);
/// Bytes of a machine's console above which the driver is taken to log without end. An emulated serial port needs minutes for them.
const CONSOLE_MAX: u64 = 64 << 20;

/// What machines are made from, all alike.
#[derive(Debug)]
pub struct Site {
    config: Config,
    paths: Paths,
    folder: Scratch,
    /// Where traced guests leave their part; none where nothing is traced.
    traces: Option<Scratch>,
}

/// How a call ended.
#[derive(Debug)]
pub enum Call {
    /// With a status, its words, and the kernel's.
    Ended {
        /// Exit status.
        status: u8,
        /// What it said.
        text: String,
        /// What the kernel logged meanwhile.
        log: String,
    },
    /// Not: the machine is of no more use. Why, and what the kernel's console said since the call began.
    Lost {
        /// Why.
        why: String,
        /// The console.
        log: String,
    },
}

/// A running machine.
#[derive(Debug)]
pub struct Session {
    guest: Guest,
    patience: crate::stages::System,
    /// Bytes of the console that have been looked through.
    looked_at: u64,
}

impl Site {
    /// Machines as `config` says, with the rules' programs.
    pub fn new(shop: &Shop, mut config: Config, paths: Paths, programs: &Path) -> Result<Self> {
        let folder = Scratch::new(scratch::Kind::Grade)?;
        let script = shop.repository.join(catalog::FOLDER).join(SCRIPT);
        fs::copy(&script, folder.path().join(SCRIPT))
            .with_context(|| format!("cannot copy {}", script.display()))?;
        let share = |name: &str, dir: &Path| Share {
            dir: dir.to_owned(),
            name: name.to_owned(),
            read_only: true,
        };
        config.driver = Load::None;
        config.device = true;
        config.interruptible = true;
        config.shares = vec![share("rules", programs), share("grade", folder.path())];
        Ok(Self {
            config,
            paths,
            folder,
            traces: None,
        })
    }

    /// The same, with a folder where machines leave what they trace.
    pub fn with_traces(mut self) -> Result<Self> {
        let traces = Scratch::new(scratch::Kind::Trace)?;
        self.config.shares.push(Share {
            dir: traces.path().to_owned(),
            name: timeline::SHARE.to_owned(),
            read_only: false,
        });
        self.traces = Some(traces);
        Ok(self)
    }

    /// Folder of the host where machines leave what they trace.
    pub fn traces(&self) -> Option<&Path> {
        self.traces.as_ref().map(Scratch::path)
    }

    /// Folder of the host that machines see.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Puts a module where machines see it; its path there.
    pub fn put(&self, ko: &Path, name: &str) -> Result<String> {
        let file = format!("{name}.ko");
        let to = self.folder.path().join(&file);
        if ko != to {
            fs::copy(ko, to).with_context(|| format!("cannot copy {}", ko.display()))?;
        }
        Ok(PathBuf::from("/mnt/grade").join(file).display().to_string())
    }

    /// Boots a machine whose device has these faults, beside these devices of QEMU's; the module is not loaded yet.
    pub fn boot(&self, faults: &[String], beside: &[String]) -> Result<Session> {
        let mut config = Config {
            faults: faults.to_vec(),
            ..self.config.clone()
        };
        for device in beside {
            config.qemu_args.extend(["-device".into(), device.into()]);
        }
        Ok(Session {
            guest: Guest::boot(&config, &self.paths)?,
            patience: self.config.system,
            looked_at: 0,
        })
    }
}

impl Session {
    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.guest.machine
    }

    /// The daemon's control socket.
    pub fn control(&self) -> PathBuf {
        self.guest.machine.run.control(None)
    }

    /// Calls guest.sh with these words.
    pub fn call(&mut self, words: &[&str], limit: Duration) -> Result<Call> {
        let script = format!("/mnt/grade/{SCRIPT}");
        let argv = std::iter::once(script.as_str()).chain(words.iter().copied());
        self.guest.request(argv.map(str::to_owned).collect())?;
        let mut deadline = Instant::now() + self.patience.limit(limit + SLACK);
        let mut why = format!(
            "the machine did not answer for {} s",
            self.patience.limit(limit + SLACK).as_secs()
        );
        let mut is_sick = false;
        let mut is_interrupted = false;
        let mut text = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let step = self.guest.step(left.min(LOOK));
            for line in self.guest.lines(matches!(step, Ok(Some(_)))) {
                text.push_str(&line);
                text.push('\n');
            }
            match step {
                Ok(Some(status)) => {
                    let (said, log) = text.split_once(KERNEL).unwrap_or((&text, ""));
                    return Ok(Call::Ended {
                        status,
                        text: said.to_owned(),
                        log: log.to_owned(),
                    });
                }
                Ok(None) if Instant::now() >= deadline => {
                    let socket = monitor::socket(&self.guest.machine.run);
                    if is_sick || monitor::interrupt(&socket).is_err() {
                        return Ok(self.lost(why));
                    }
                    is_sick = true;
                    is_interrupted = true;
                    deadline = Instant::now() + self.patience.limit(LAST_WORDS);
                }
                Ok(None) => {
                    let Some(ill) = self.look().filter(|_| !is_sick) else {
                        continue;
                    };
                    is_sick = true;
                    why = ill;
                    deadline = deadline.min(Instant::now() + self.patience.limit(LAST_WORDS));
                }
                Err(err) => {
                    cancel::check()?;
                    if is_interrupted {
                        return Ok(self.lost(why));
                    }
                    let message = exit::of(&err).1;
                    return Ok(self.lost(first_words(&message).to_owned()));
                }
            }
        }
    }

    /// What the console has of a kernel that no longer works, since it was last looked through.
    fn look(&mut self) -> Option<String> {
        let path = self.guest.machine.run.console();
        let size = fs::metadata(&path).map_or(0, |file| file.len());
        if size > CONSOLE_MAX {
            return Some(format!(
                "the kernel has logged more than {} MB",
                CONSOLE_MAX >> 20
            ));
        }
        let mut fresh = Vec::new();
        let mut file = fs::File::open(path).ok()?;
        file.seek(SeekFrom::Start(self.looked_at)).ok()?;
        file.read_to_end(&mut fresh).ok()?;
        // A line that is not complete is left for the next time.
        let end = fresh.iter().rposition(|byte| *byte == b'\n')? + 1;
        fresh.truncate(end);
        self.looked_at += end as u64;
        trace::may_hang(&String::from_utf8_lossy(&fresh))
            .then(|| "the call did not return after a report of the kernel's".to_owned())
    }

    fn lost(&self, why: String) -> Call {
        let path = self.guest.machine.run.console();
        console::wait_until_quiet(&path);
        let text = fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let log = text.rsplit_once(MARK).map_or("", |(_, log)| log);
        Call::Lost {
            why,
            log: log.to_owned(),
        }
    }
}

/// The first line of a machine's failure, without its console.
pub fn first_words(failure: &str) -> &str {
    let line = failure.lines().next().unwrap_or_default();
    line.split("; the guest's console").next().unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_words_of_a_failure_are_without_the_console() {
        let failure = "it did not come up within 9 s; the guest's console ended with\n  | x\n";
        assert_eq!(first_words(failure), "it did not come up within 9 s");
        assert_eq!(first_words(""), "");
    }
}
