// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab soak`: everything at once for some minutes; nothing may be lost.

use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use fifo_control::Client;

use crate::cli::SoakArgs;
use crate::scratch;
use crate::scratch::Scratch;
use crate::soak::account;
use crate::soak::account::Account;
use crate::soak::account::Said;
use crate::soak::account::Usage;
use crate::soak::faults::Faults;
use crate::soak::traffic::Traffic;
use crate::stages;
use crate::stages::System;
use crate::stages::guest;
use crate::stages::shop::Shop;
use crate::ui;
use crate::vm::config::Config;
use crate::vm::config::Paths;
use crate::vm::console;
use crate::vm::devices;
use crate::vm::guest::Guest;
use crate::vm::machine;

/// How often the user is told.
const TELL: Duration = Duration::from_secs(10);
/// How often faults are thought of.
const STEP: Duration = Duration::from_millis(100);
/// Longest wait for an answer of the daemon's, which a loaded machine keeps waiting too.
const PATIENCE: Duration = Duration::from_secs(20);
/// A guest's program that says nothing for this long hangs: it speaks every second. On the stock kernel, as all limits here.
const SILENCE: Duration = Duration::from_secs(120);
/// What the driver says when it trusts the device no more, which here has given it no reason to.
const FAILED: &str = "fails with EIO";
/// How long the last bytes may take.
const LAST_BYTES: Duration = Duration::from_secs(20);

/// Sets up, boots, soaks, accounts; 0 if nothing was lost.
pub fn soak(args: &SoakArgs) -> Result<u8> {
    let dir = Scratch::for_sockets(scratch::Kind::Soak)?;
    let data = dir.path().join("data");
    let config = args.config(&data)?;
    let wanted = args.wanted()?;
    machine::check(&config)?;
    let shop = Shop::open_for(config.system.arch)?;
    let ready = stages::set_up(&shop, &wanted)?;
    let seed = args.seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
    let title = format!(
        "soaking for {} min, seed {seed}, {} CPUs, {} kernel",
        args.minutes.as_secs_f64() / 60.0,
        config.smp,
        config.system.kernel.name()
    );
    ui::say(&title);
    let soak = Soak::start(&config, &Paths::new(&ready), &data, args.minutes, seed)?;
    let account = soak.run()?;
    let failures = account.failures();
    ui::print(&format!("{title}\n{}", account.text()));
    for failure in &failures {
        ui::error(failure);
    }
    Ok(u8::from(!failures.is_empty()))
}

/// A soak under way.
struct Soak {
    guest: Guest,
    control: Client,
    traffic: Traffic,
    faults: Faults,
    daemon: u32,
    system: System,
    started: Instant,
    /// What the guest said last of how far it is.
    said: Said,
    /// What the daemon had in use after the first round.
    first: Option<Usage>,
    troubles: Vec<String>,
}

impl Soak {
    fn start(
        config: &Config,
        paths: &Paths,
        data: &Path,
        time: Duration,
        seed: u64,
    ) -> Result<Self> {
        let mut guest = Guest::boot(config, paths)?;
        let control = Client::connect_within(&guest.machine.run.control(None), PATIENCE)?;
        let traffic = Traffic::start(data, seed)?;
        let daemon = guest.machine.pid_of(devices::FIFO)?;
        guest.request(vec![
            format!("/{}/bin/soak", guest::HOME),
            time.as_secs().to_string(),
            seed.to_string(),
        ])?;
        Ok(Self {
            guest,
            control,
            traffic,
            faults: Faults::new(seed),
            daemon,
            system: config.system,
            started: Instant::now(),
            said: Said::default(),
            first: None,
            troubles: Vec::new(),
        })
    }

    fn run(mut self) -> Result<Account> {
        let mut last_word = Instant::now();
        let mut told = Instant::now();
        loop {
            let ended = self.guest.step(STEP)?;
            for line in self.guest.lines(ended.is_some()) {
                last_word = Instant::now();
                self.hear(&line)?;
            }
            if let Some(status) = ended {
                return self.end(status);
            }
            let silence = self.system.limit(SILENCE);
            if last_word.elapsed() > silence {
                let what = format!("silent for {} s", silence.as_secs());
                return Err(self.guest.machine.failure(&what));
            }
            self.faults.act(&mut self.control)?;
            if told.elapsed() >= TELL {
                told = Instant::now();
                let status = self.control.status()?;
                let elapsed = self.started.elapsed();
                ui::say(&account::progress(
                    elapsed,
                    &self.said,
                    &status,
                    &self.faults,
                ));
            }
        }
    }

    /// A line of the guest's program.
    fn hear(&mut self, line: &str) -> Result<()> {
        let said = Said::parse(line);
        match said.word() {
            "progress" | "done" => self.said = said,
            "draining" => {
                // What is to be read now is to come without faults: their time is over.
                self.faults.end(&mut self.control)?;
                self.traffic.enough();
            }
            "failed" => {
                let faults = self.faults.now();
                self.troubles
                    .push(format!("the guest: {line}; faults at that time: {faults}"));
            }
            _ => self.troubles.push(format!("the guest: {line}")),
        }
        if self.first.is_none() && self.said.number("rounds") > 0 {
            self.first = Some(Usage::of(self.daemon)?);
        }
        Ok(())
    }

    fn end(mut self, status: u8) -> Result<Account> {
        self.faults.end(&mut self.control)?;
        self.traffic
            .wait_for(self.said.number("written"), self.system.limit(LAST_BYTES));
        let now = Usage::of(self.daemon)?;
        if status != 0 && self.troubles.is_empty() {
            self.troubles.push(format!(
                "the guest's program ended with status {status}: {}",
                self.guest.take_errors()
            ));
        }
        let trouble = self.traffic.trouble();
        self.troubles
            .extend(trouble.map(|trouble| format!("the host: {trouble}")));
        let log = self.guest.output(&["dmesg"])?;
        let mut complaints = console::complaints(&self.guest.machine.run.console());
        complaints.extend(console::complaints_in(&log));
        let of_driver = log.lines().filter(|line| line.contains(FAILED));
        complaints.extend(of_driver.map(str::to_owned));
        complaints.sort();
        complaints.dedup();
        self.troubles.extend(
            complaints
                .into_iter()
                .map(|line| format!("the guest's kernel says: {line}")),
        );
        if self.said.word() != "done" && self.troubles.is_empty() {
            self.troubles
                .push("the guest's program did not get to its end".to_owned());
        }
        Ok(Account {
            guest: self.said,
            status: self.control.status()?,
            moved: self.traffic.moved(),
            daemon: (self.first.unwrap_or(now), now),
            faults: (self.faults.added, self.faults.strikes),
            troubles: self.troubles,
        })
    }
}
