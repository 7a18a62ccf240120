// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A client of the daemon's control socket, as far as a soak needs one. docs/control.md has the protocol.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::json;

/// A daemon that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection.
#[derive(Debug)]
pub struct Control {
    stream: BufReader<UnixStream>,
}

/// What the daemon counts.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// What belongs to no FIFO.
    device: Device,
    /// Every FIFO.
    fifos: Vec<Fifo>,
}

#[derive(Debug, Clone, Deserialize)]
struct Device {
    control_interrupts: u64,
    event_interrupts: u64,
    refused: std::collections::BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Deserialize)]
struct Fifo {
    rx: Direction,
    tx: Direction,
    refused: std::collections::BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Deserialize)]
struct Direction {
    entered: u64,
    interrupts: u64,
}

/// A fault at one moment.
#[derive(Debug, Clone, Deserialize)]
pub struct Fault {
    /// Its number.
    pub fault: u32,
    /// How often it struck.
    pub strikes: u64,
}

impl Status {
    /// Bytes that came into a FIFO from the driver, and from its host side.
    pub fn entered(&self, fifo: usize) -> (u64, u64) {
        self.fifos
            .get(fifo)
            .map_or((0, 0), |fifo| (fifo.tx.entered, fifo.rx.entered))
    }

    /// Of all queues.
    pub fn interrupts(&self) -> u64 {
        let of_fifos = self
            .fifos
            .iter()
            .map(|fifo| fifo.rx.interrupts + fifo.tx.interrupts);
        self.device.control_interrupts + self.device.event_interrupts + of_fifos.sum::<u64>()
    }

    /// What the device refused from the driver, which never should send such a thing.
    pub fn refused(&self) -> u64 {
        let of_fifos = self.fifos.iter().flat_map(|fifo| fifo.refused.values());
        self.device.refused.values().chain(of_fifos).sum()
    }
}

impl Control {
    /// Connects to the daemon.
    pub fn connect(path: &Path) -> Result<Self> {
        let failed = || format!("cannot use the control socket {}", path.display());
        let stream = UnixStream::connect(path).with_context(failed)?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .with_context(failed)?;
        let mut control = Self {
            stream: BufReader::new(stream),
        };
        let hello = control.line()?;
        anyhow::ensure!(
            hello.get("protocol") == Some(&json!(1)),
            "the daemon greets with {hello}"
        );
        Ok(control)
    }

    /// What there is to count.
    pub fn status(&mut self) -> Result<Status> {
        self.ask(&json!({"command": "status"}))
    }

    /// Adds a fault; its number.
    pub fn add_fault(&mut self, spec: &str) -> Result<u32> {
        #[derive(Deserialize)]
        struct Added {
            fault: u32,
        }
        let added: Added = self.ask(&json!({"command": "fault-add", "spec": spec}))?;
        Ok(added.fault)
    }

    /// All faults.
    pub fn faults(&mut self) -> Result<Vec<Fault>> {
        #[derive(Deserialize)]
        struct Faults {
            faults: Vec<Fault>,
        }
        let list: Faults = self.ask(&json!({"command": "fault-list"}))?;
        Ok(list.faults)
    }

    /// Takes a fault away.
    pub fn remove_fault(&mut self, fault: u32) -> Result<()> {
        self.ask::<Value>(&json!({"command": "fault-remove", "fault": fault}))
            .map(drop)
    }

    fn ask<T: DeserializeOwned>(&mut self, request: &Value) -> Result<T> {
        self.stream
            .get_mut()
            .write_all(format!("{request}\n").as_bytes())
            .context("the daemon does not listen")?;
        let answer = self.line()?;
        anyhow::ensure!(
            answer.get("ok") == Some(&json!(true)),
            "the daemon answers {request} with {answer}"
        );
        serde_json::from_value(answer).context("cannot understand the daemon")
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.stream
            .read_line(&mut line)
            .context("the daemon does not answer")?;
        serde_json::from_str(&line).with_context(|| format!("the daemon says '{}'", line.trim()))
    }
}
