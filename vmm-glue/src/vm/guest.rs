// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A machine whose commands are programs of the project's: one at a time, without input, what they say kept until it is looked at.
//!
//! It must not know what is tested or measured.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use fifo_lab_agent::Command;
use fifo_lab_agent::Report;
use fifo_lab_agent::Request;
use fifo_lab_agent::Stdin;

use super::config::Config;
use super::config::Paths;
use super::machine;
use super::machine::Machine;
use super::session;
use super::session::Event;
use super::session::Outlet;
use crate::stages::System;
use crate::stages::environment_of;
use crate::stages::guest;

/// For the last bytes of a program, and for the kernel's log.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of a program's output that are kept until they are looked at: a guest cannot make the host keep more.
const SAID_MAX: usize = 16 << 20;

/// A machine and what its command says.
#[derive(Debug)]
pub struct Guest {
    /// The machine.
    pub machine: Machine,
    said: Arc<Mutex<Vec<u8>>>,
    stdout: Outlet,
    stderr: Outlet,
    errors: Arc<Mutex<Vec<u8>>>,
    system: System,
    /// All bytes that its commands have announced so far.
    announced: (u64, u64),
}

impl Guest {
    /// Boots one.
    pub fn boot(config: &Config, paths: &Paths) -> Result<Self> {
        let mut machine = machine::boot(config, paths)?;
        let Some([_stdin, stdout, stderr]) = machine.streams.take() else {
            anyhow::bail!("the machine has no streams")
        };
        let (said, errors) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(Mutex::new(Vec::new())),
        );
        let keep = |buffer: &Arc<Mutex<Vec<u8>>>| {
            let buffer = buffer.clone();
            move |bytes: &[u8]| {
                let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
                // What is too much is dropped, not waited for: the end of the program is still to come.
                let room = SAID_MAX.saturating_sub(buffer.len()).min(bytes.len());
                buffer.extend_from_slice(bytes.get(..room).unwrap_or_default());
                Ok(())
            }
        };
        let stdout = Outlet::new(stdout, &machine.events, keep(&said));
        let stderr = Outlet::new(stderr, &machine.events, keep(&errors));
        Ok(Self {
            machine,
            said,
            stdout,
            stderr,
            errors,
            system: config.system,
            announced: (0, 0),
        })
    }

    /// How many times as long everything takes as on the stock kernel of a machine with nothing else to do, judged by what has been so far.
    pub fn slowdown(&self) -> u32 {
        self.system.slowdown() * self.machine.slowdown()
    }

    /// Starts one of guest-tests' programs.
    pub fn start(&mut self, program: &str, argument: Option<String>) -> Result<()> {
        let argv = std::iter::once(format!("/{}/bin/{program}", guest::HOME))
            .chain(argument)
            .collect();
        self.request(argv)
    }

    /// Starts a command.
    pub fn request(&mut self, argv: Vec<String>) -> Result<()> {
        let command = Command {
            argv,
            cwd: "/root".to_owned(),
            stdin: Stdin::Null,
            env: environment_of(self.slowdown()),
        };
        self.machine.control.send(&Request::Run(command))
    }

    /// Waits for something to happen; the status if that was the command's end (with all it had to say).
    pub fn step(&mut self, limit: Duration) -> Result<Option<u8>> {
        match self.machine.events.next(limit)? {
            Some(Event::Report(Report::Exited {
                status,
                stdout,
                stderr,
            })) => {
                self.announced = (self.announced.0 + stdout, self.announced.1 + stderr);
                self.drain()?;
                Ok(Some(status))
            }
            Some(event) => self.machine.unless_over(&event).map(|()| None),
            None => Ok(None),
        }
    }

    fn drain(&mut self) -> Result<()> {
        let outlets = [
            (&self.stdout, self.announced.0),
            (&self.stderr, self.announced.1),
        ];
        let limit = ANSWER_LIMIT * self.slowdown();
        let machine = &mut self.machine;
        let arrived = session::drain(&outlets, limit, |left| match machine.events.next(left)? {
            Some(event) => machine.unless_over(&event),
            None => Ok(()),
        })?;
        if arrived {
            Ok(())
        } else {
            Err(machine.failure("the program's last output did not arrive"))
        }
    }

    /// Complete lines that have come, and at the end also an incomplete one.
    pub fn lines(&mut self, all: bool) -> Vec<String> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let end = if all {
            said.len()
        } else {
            said.iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |last| last + 1)
        };
        let bytes: Vec<u8> = said.drain(..end).collect();
        String::from_utf8_lossy(&bytes)
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// What its commands have said on standard error.
    pub fn take_errors(&mut self) -> String {
        let bytes =
            std::mem::take(&mut *self.errors.lock().unwrap_or_else(PoisonError::into_inner));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Runs a command and returns what it prints.
    pub fn output(&mut self, argv: &[&str]) -> Result<String> {
        self.request(argv.iter().map(|arg| (*arg).to_owned()).collect())?;
        let deadline = Instant::now() + ANSWER_LIMIT * self.slowdown();
        while self
            .step(deadline.saturating_duration_since(Instant::now()))?
            .is_none()
        {
            anyhow::ensure!(
                Instant::now() < deadline,
                "{} does not end in the guest",
                argv.join(" ")
            );
        }
        Ok(self.lines(true).join("\n"))
    }
}
