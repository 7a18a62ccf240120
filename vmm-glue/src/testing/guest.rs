// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Test programs in guests: a machine for each suite and number of CPUs, the programs one after another, their KTAP read as it comes.

use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;

use super::ktap;
use super::peer::Peer;
use super::report::Filter;
use super::report::Outcome;
use super::report::Results;
use super::report::Verdict;
use super::suites;
use super::suites::Suite;
use crate::cache::Entry;
use crate::cancel;
use crate::child;
use crate::child::Spec;
use crate::exit;
use crate::scratch;
use crate::scratch::Scratch;
use crate::stages;
use crate::stages::KernelChoice;
use crate::stages::Ready;
use crate::stages::Root;
use crate::stages::System;
use crate::stages::programs;
use crate::stages::shop::Shop;
use crate::vm::config::AccelChoice;
use crate::vm::config::Config;
use crate::vm::config::Paths;
use crate::vm::console;
use crate::vm::guest::Guest;

/// kmemleak tells what it has found unreferenced twice, not changed in between, and older than five seconds.
const FIND_LEAKS: &str = r#"
cd /sys/kernel/debug && echo scan >kmemleak && sleep 6 && echo scan >kmemleak && cat kmemleak && echo scanned
"#;
/// A program that speaks may take this many times its limit of silence.
const LONGEST: u32 = 30;
/// What each boot is tested for at its end: on the debug kernel, and on every one.
const LEAKS_TEST: &str = "the kernel has lost no memory";
const LOG_TEST: &str = "the kernel's log is clean";
/// Lines of its report that are worth showing.
const LEAKS: usize = 120;
/// The last word of that.
const SCANNED: &str = "scanned";

/// Which suites to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// All that this kernel can run: `guest/…`.
    Whole,
    /// What belongs to a run of everything beside that, on the debug kernel: `checked/…`.
    Checked,
    /// The same with the driver's teaching edition: `teaching/…`.
    Teaching,
    /// The same on the oldest kernel that the driver is built for: `7.2/…`.
    Oldest,
    /// The same on the kernel with PREEMPT_RT: `rt/…`.
    RealTime,
}

impl Selection {
    /// The first part of the tests' names.
    pub fn place(self) -> &'static str {
        match self {
            Self::Whole => "guest/",
            Self::Checked => "checked/",
            Self::Teaching => "teaching/",
            Self::Oldest => "7.2/",
            Self::RealTime => "rt/",
        }
    }

    fn of(self, suite: Suite, kernel: KernelChoice) -> Option<Suite> {
        match self {
            Self::Whole => {
                let is_stock = matches!(kernel, KernelChoice::Stock | KernelChoice::Series(_));
                (suite.stock || !is_stock).then_some(suite)
            }
            Self::Checked => suite.checked(),
            Self::Teaching => suite.teaching(),
            Self::Oldest | Self::RealTime => suite.on_kernels(),
        }
    }
}

/// Runs all selected suites that hold a wanted test.
pub fn run(
    shop: &Shop,
    ready: &Ready,
    accel: AccelChoice,
    (system, selection): (System, Selection),
    filter: &Filter,
    results: &mut Results,
) -> Result<()> {
    let names = ready.guest.programs()?;
    let here = programs::that_run_here(shop)?;
    let here = here.guest().context("the guest's programs are not built")?;
    let suites = suites::load(&shop.repository.join("guest-tests/suites.toml"), &names)?;
    for suite in suites
        .into_iter()
        .filter_map(|suite| selection.of(suite, system.kernel))
    {
        for smp in &suite.smp {
            let mut round = Round {
                place: selection.place(),
                suite: &suite,
                smp: *smp,
                accel,
                system: System {
                    root: suite.root,
                    ..system
                },
                paths: Paths::new(ready),
                ram: None,
                filter,
                results,
                machine: None,
                here,
            };
            round.run(shop, ready)?;
        }
    }
    Ok(())
}

/// A suite on machines with one number of CPUs.
struct Round<'a> {
    place: &'static str,
    suite: &'a Suite,
    smp: u8,
    accel: AccelChoice,
    system: System,
    paths: Paths,
    /// Kept while its archive is in use.
    ram: Option<Entry>,
    filter: &'a Filter,
    results: &'a mut Results,
    machine: Option<Guest>,
    /// Where the same programs are for this machine, which asks them what their tests are called.
    here: &'a Path,
}

impl Round<'_> {
    fn run(&mut self, shop: &Shop, ready: &Ready) -> Result<()> {
        let programs: Vec<String> = self
            .suite
            .programs
            .iter()
            .filter(|program| self.holds_wanted(program))
            .cloned()
            .collect();
        if programs.is_empty() || self.only_lists(&programs)? {
            return Ok(());
        }
        if self.system.root == Root::Ram {
            let ram = stages::ram::obtain(shop, &ready.tree, ready.userland.as_ref())?;
            self.paths.ram = Some(ram.join(stages::ram::ARCHIVE));
            self.ram = Some(ram);
        }
        for program in &programs {
            let before = Instant::now();
            if let Err(err) = self.program(program) {
                cancel::check()?;
                self.machine = None;
                let name = self.name(program, "runs to its end");
                self.add(name, before.elapsed(), Verdict::Failed(exit::of(&err).1));
            }
        }
        self.leaks()?;
        self.kernel_log()
    }

    fn name(&self, program: &str, test: &str) -> String {
        self.name_of(&format!("{program}/{test}"))
    }

    /// A name within the suite.
    fn name_of(&self, rest: &str) -> String {
        format!("{}{}/{rest}", self.place, self.suite.name_with(self.smp))
    }

    fn add(&mut self, name: String, time: Duration, verdict: Verdict) {
        self.results.add(Outcome {
            name,
            time,
            verdict,
        });
    }

    /// A program that can list its tests (`--list`, one a line) is asked, here on the host, before a machine is booted for nothing.
    fn holds_wanted(&self, program: &str) -> bool {
        if !self.filter.takes(&self.name(program, "")) {
            return false;
        }
        if self.filter.text().is_none() || self.filter.wants(&self.name(program, "")) {
            return true;
        }
        match listed(self.here, program) {
            Some(names) => names
                .lines()
                .any(|name| self.filter.wants(&self.name(program, name.trim()))),
            None => self.filter.may_want_below(self.place),
        }
    }

    /// Whether only names are wanted; prints those of this boot then.
    fn only_lists(&self, programs: &[String]) -> Result<bool> {
        if !self.results.only_lists([]) {
            return Ok(false);
        }
        for program in programs {
            let names = listed(self.here, program)
                .with_context(|| format!("{program} does not list its tests"))?;
            let names = names.lines().map(|name| self.name(program, name.trim()));
            self.results
                .only_lists(names.filter(|name| self.filter.wants(name)));
        }
        if self.system.kernel == KernelChoice::Debug {
            self.results.only_lists([self.name_of(LEAKS_TEST)]);
        }
        Ok(self.results.only_lists([self.name_of(LOG_TEST)]))
    }

    fn config(&self, dir: &Path) -> Config {
        let usual = Config::default();
        Config {
            smp: self.smp,
            accel: self.accel,
            system: self.system,
            fifos: self.suite.fifos_in(dir),
            faults: self.suite.faults.clone(),
            capacity: self.suite.capacity.clone(),
            second: self.suite.second.clone(),
            mem: self.suite.mem.clone().unwrap_or_else(|| usual.mem.clone()),
            ..usual
        }
    }

    fn guest(&mut self) -> Result<&mut Guest> {
        let guest = match self.machine.take() {
            Some(guest) => guest,
            None => self.boot()?,
        };
        Ok(self.machine.insert(guest))
    }

    /// A machine, with what is at the other end of its FIFOs.
    fn boot(&self) -> Result<Guest> {
        let dir = Scratch::for_sockets(scratch::Kind::Test)?;
        let guest = Guest::boot(&self.config(dir.path()), &self.paths)?;
        if let Some(name) = &self.suite.peer {
            Peer::start(dir, name)?;
        }
        Ok(guest)
    }

    fn program(&mut self, program: &str) -> Result<()> {
        self.results.doing(&self.name_of(program));
        // A filter that names one test is the program's business too.
        let argument = self
            .filter
            .text()
            .and_then(|text| text.rsplit('/').next())
            .filter(|text| !text.is_empty());
        let argument = argument
            .filter(|_| !self.filter.wants(&self.name(program, "")))
            .map(str::to_owned);
        let usual = self.suite.silence();
        self.guest()?.start(program, argument)?;
        let mut parser = ktap::Parser::new(Instant::now());
        let started = Instant::now();
        let mut last_word = started;
        loop {
            let guest = self.guest()?;
            let silence = usual * guest.slowdown();
            let ended = guest.step(silence.saturating_sub(last_word.elapsed()))?;
            for line in self.guest()?.lines(ended.is_some()) {
                last_word = Instant::now();
                self.line(program, &mut parser, &line);
            }
            match ended {
                Some(status) => return self.ended(program, &parser, status),
                None if last_word.elapsed() >= silence => {
                    let what = format!("silent for {} s", silence.as_secs());
                    return Err(self.hangs(&parser, &what));
                }
                None if started.elapsed() >= silence * LONGEST => {
                    let what = format!("not at its end after {} s", started.elapsed().as_secs());
                    return Err(self.hangs(&parser, &what));
                }
                None => {}
            }
        }
    }

    fn hangs(&mut self, parser: &ktap::Parser, what: &str) -> anyhow::Error {
        let what = format!("{what}\n{}", parser.unattached());
        self.machine.take().map_or_else(
            || anyhow::anyhow!("no machine"),
            |guest| guest.machine.failure(what.trim_end()),
        )
    }

    fn line(&mut self, program: &str, parser: &mut ktap::Parser, line: &str) {
        if let Some(found) = parser.line(line, Instant::now()) {
            let name = self.name(program, &found.name);
            if self.filter.wants(&name) {
                self.add(name, found.time, found.verdict);
            }
        }
    }

    fn ended(&mut self, program: &str, parser: &ktap::Parser, status: u8) -> Result<()> {
        let errors = self.guest()?.take_errors();
        let complaint = match (parser.complaint(), status) {
            (Some(complaint), _) => complaint,
            // 1: a test has failed, and has said so.
            (None, 0 | 1) => return Ok(()),
            (None, _) => "it ended badly".to_owned(),
        };
        let why = format!(
            "{complaint}; exit status {status}\n{}\n{errors}",
            parser.unattached()
        );
        let name = self.name(program, "runs to its end");
        self.add(
            name,
            Duration::ZERO,
            Verdict::Failed(why.trim_end().to_owned()),
        );
        Ok(())
    }

    /// Memory that the kernel lost while the programs ran counts as a test, where the kernel can tell.
    fn leaks(&mut self) -> Result<()> {
        let started = Instant::now();
        let name = self.name_of(LEAKS_TEST);
        let (KernelChoice::Debug, Some(guest)) = (self.system.kernel, self.machine.as_mut()) else {
            return Ok(());
        };
        self.results.doing(&name);
        let report = guest.output(&["sh", "-c", FIND_LEAKS])?;
        let verdict = match report.strip_suffix(SCANNED).map(str::trim) {
            Some("") => Verdict::Passed,
            Some(leaks) => {
                Verdict::Failed(leaks.lines().take(LEAKS).collect::<Vec<_>>().join("\n"))
            }
            None => Verdict::Failed(format!(
                "kmemleak does not work: {report} {}",
                guest.take_errors()
            )),
        };
        self.results.expect(1);
        self.add(name, started.elapsed(), verdict);
        Ok(())
    }

    /// What the kernel complained of while the programs ran counts as a test.
    fn kernel_log(&mut self) -> Result<()> {
        let started = Instant::now();
        let Some(guest) = self.machine.as_mut() else {
            return Ok(());
        };
        let log = guest.output(&["dmesg"])?;
        let verdict = console::report(&log).map_or(Verdict::Passed, Verdict::Failed);
        let name = self.name_of(LOG_TEST);
        self.machine = None;
        self.results.expect(1);
        self.add(name, started.elapsed(), verdict);
        Ok(())
    }
}

/// What a program says on `--list`; `None` of one that runs its tests instead.
fn listed(here: &Path, program: &str) -> Option<String> {
    let spec = Spec::new(here.join(program)).arg("--list");
    let names = child::output(&spec).ok();
    names.filter(|names| !names.starts_with("KTAP"))
}
