// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `vhost-device-fifo ctl PATH COMMAND`: the control socket for people and shell scripts.
//!
//! A client like any other: it knows the protocol and nothing of the device.

mod show;
mod top;

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;
use clap::Subcommand;
use clap::ValueEnum;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::top::TopArgs;
use crate::control::protocol;
use crate::control::protocol::Cleared;
use crate::control::protocol::Client;
pub use crate::control::protocol::ClientError;
use crate::control::protocol::Command;
use crate::control::protocol::Event;
use crate::control::protocol::FaultAdded;
use crate::control::protocol::Faults;
use crate::control::protocol::FaultsRemoved;
use crate::control::protocol::MAX_BYTES;
use crate::control::protocol::Metrics;
use crate::control::protocol::Pulled;
use crate::control::protocol::Pushed;
use crate::control::protocol::Status;

/// How long a full FIFO is left alone before it is asked again.
const FULL: Duration = Duration::from_millis(10);

/// Arguments of `ctl`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct CtlArgs {
    /// The control socket: what the daemon was given as --control
    #[arg(value_name = "PATH")]
    path: PathBuf,

    /// Print the daemon's answers as they are, one JSON object on a line
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: CtlCommand,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
enum CtlCommand {
    /// Show the device and its FIFOs: levels, counters, connections
    Status,
    /// Send bytes to the guest, as if the FIFO's host side had sent them
    Push {
        /// Number of the FIFO
        fifo: u16,
        /// What to send [default: standard input]
        text: Option<String>,
        /// While the FIFO is full, wait until the guest has read something
        #[arg(long)]
        wait: bool,
    },
    /// Take bytes that the guest has written and the FIFO's host side has not taken, and write
    /// them to standard output
    Pull {
        /// Number of the FIFO
        fifo: u16,
        /// Most bytes to take [default: all]
        #[arg(long, value_name = "BYTES")]
        max: Option<usize>,
    },
    /// Discard all bytes of a FIFO, in both directions
    Clear {
        /// Number of the FIFO
        fifo: u16,
    },
    /// Hang up the host side of a FIFO, or take that back
    Hangup {
        /// Number of the FIFO
        fifo: u16,
        /// Hang up, or take it back
        #[arg(default_value = "on")]
        state: Switch,
    },
    /// Have things go wrong, or see what does; not with a device from a package, which is built without fault injection
    #[command(subcommand)]
    Fault(FaultCommand),
    /// Tell what happens until Ctrl-C
    Watch {
        /// Numbers of the FIFOs to watch [default: all]
        fifos: Vec<u16>,
    },
    /// Tell every event of the data path with its time, until Ctrl-C: seconds of CLOCK_MONOTONIC
    Trace,
    /// Show levels and rates as they change: a panel with keys on a terminal, else a block of lines for each interval
    Top(TopArgs),
    /// Print all counters in Prometheus' text format
    Metrics,
}

/// What to do about faults.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
enum FaultCommand {
    /// Add a fault and print its number
    Add {
        /// What goes wrong, as for --fault: for instance drop-interrupt,p=0.1
        spec: String,
    },
    /// Show all faults, and how often they struck
    List,
    /// Take a fault away
    Remove {
        /// Its number
        fault: u32,
    },
    /// Take all faults away
    Clear,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Why `ctl` has failed.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// There is no daemon to ask, or it says no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Not all bytes fitted.
    #[error(
        "only {pushed} of {offered} bytes fitted, the others are not sent: use --wait to wait for the guest to read"
    )]
    Full {
        /// Bytes sent.
        pushed: usize,
        /// Bytes there were, as far as they were read.
        offered: usize,
    },
    /// Standard input or output.
    #[error("cannot {0}: {1}")]
    Stream(&'static str, io::Error),
}

impl CtlError {
    /// Whether whoever read the output has enough of it: no failure.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Stream(_, error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Carries out what the command line asks for.
///
/// # Errors
///
/// What is to be said on standard error.
pub fn run(args: &CtlArgs) -> Result<(), CtlError> {
    let mut session = Session {
        client: Client::connect(&args.path)?,
        json: args.json,
    };
    match &args.command {
        CtlCommand::Status => session.status(),
        CtlCommand::Push { fifo, text, wait } => {
            let mut source = source(text.as_deref())?;
            session.push(*fifo, &mut source, *wait)
        }
        CtlCommand::Pull { fifo, max } => session.pull(*fifo, max.unwrap_or(usize::MAX)),
        CtlCommand::Clear { fifo } => session.clear(*fifo),
        CtlCommand::Hangup { fifo, state } => session.quietly(Command::Hangup {
            fifo: *fifo,
            on: *state == Switch::On,
        }),
        CtlCommand::Fault(command) => session.fault(command),
        CtlCommand::Watch { fifos } => session.watch(fifos),
        CtlCommand::Trace => session.trace(),
        CtlCommand::Top(top) => top::run(session, top),
        CtlCommand::Metrics => session.metrics(),
    }
}

fn source(text: Option<&str>) -> Result<Box<dyn Read>, CtlError> {
    Ok(match text {
        Some(text) => Box::new(io::Cursor::new(text.as_bytes().to_vec())),
        None => {
            // Not through a buffer: bytes are sent as they come.
            let stdin = io::stdin().as_fd().try_clone_to_owned();
            Box::new(File::from(stdin.map_err(|error| {
                CtlError::Stream("use standard input", error)
            })?))
        }
    })
}

/// A connection, and how its answers are to be shown.
struct Session {
    client: Client,
    json: bool,
}

impl Session {
    fn status(&mut self) -> Result<(), CtlError> {
        let answer = self.ask(Command::Status {})?;
        self.show(answer, |status: Status| show::status(&status))
    }

    fn push(&mut self, fifo: u16, source: &mut impl Read, wait: bool) -> Result<(), CtlError> {
        let mut buffer = vec![0; MAX_BYTES];
        let (mut pushed, mut offered) = (0, 0);
        loop {
            let count = source
                .read(&mut buffer)
                .map_err(|error| CtlError::Stream("read standard input", error))?;
            let mut rest = buffer.get(..count).unwrap_or_default();
            if rest.is_empty() {
                return Ok(());
            }
            offered += count;
            while !rest.is_empty() {
                let command = Command::Push {
                    fifo,
                    text: None,
                    base64: Some(protocol::encode(rest)),
                };
                let fitted = read::<Pushed>(self.ask(command)?)?.pushed;
                rest = rest.get(fitted..).unwrap_or_default();
                pushed += fitted;
                if !rest.is_empty() && !wait {
                    return Err(CtlError::Full { pushed, offered });
                }
                if fitted == 0 {
                    thread::sleep(FULL);
                }
            }
        }
    }

    fn pull(&mut self, fifo: u16, mut most: usize) -> Result<(), CtlError> {
        loop {
            let max = most.min(MAX_BYTES);
            let answer = read::<Pulled>(self.ask(Command::Pull { fifo, max })?)?;
            let bytes = answer
                .bytes()
                .map_err(|error| ClientError::Answer(error.message))?;
            if !self.json {
                write_out(&bytes)?;
            }
            most = most.saturating_sub(bytes.len());
            if bytes.is_empty() || most == 0 || answer.left == 0 {
                return Ok(());
            }
        }
    }

    fn clear(&mut self, fifo: u16) -> Result<(), CtlError> {
        let answer = self.ask(Command::Clear { fifo })?;
        self.show(answer, |Cleared { cleared }| {
            format!("{cleared} bytes discarded\n")
        })
    }

    fn fault(&mut self, command: &FaultCommand) -> Result<(), CtlError> {
        match command {
            FaultCommand::Add { spec } => {
                let spec = spec.clone();
                let answer = self.ask(Command::FaultAdd { spec })?;
                self.show(answer, |FaultAdded { fault }| format!("{fault}\n"))
            }
            FaultCommand::List => {
                let answer = self.ask(Command::FaultList {})?;
                self.show(answer, |Faults { faults }| show::faults(&faults))
            }
            FaultCommand::Remove { fault } => self.quietly(Command::FaultRemove { fault: *fault }),
            FaultCommand::Clear => {
                let answer = self.ask(Command::FaultClear {})?;
                self.show(answer, |FaultsRemoved { removed }| {
                    format!("{removed} removed\n")
                })
            }
        }
    }

    fn metrics(&mut self) -> Result<(), CtlError> {
        let answer = self.ask(Command::Metrics {})?;
        self.show(answer, |Metrics { metrics }| metrics)
    }

    fn watch(&mut self, fifos: &[u16]) -> Result<(), CtlError> {
        self.ask(Command::Watch {
            fifos: fifos.to_vec(),
        })?;
        loop {
            let event = self.client.next_event()?;
            if self.json {
                write_out(format!("{event}\n").as_bytes())?;
            } else {
                write_out(show::event(&read::<Event>(event)?).as_bytes())?;
            }
        }
    }

    fn trace(&mut self) -> Result<(), CtlError> {
        self.ask(Command::Trace { on: true })?;
        loop {
            let event = self.client.next_event()?;
            if self.json {
                write_out(format!("{event}\n").as_bytes())?;
            } else {
                write_out(show::traced(&event).as_bytes())?;
            }
        }
    }

    fn quietly(&mut self, command: Command) -> Result<(), CtlError> {
        self.ask(command).map(drop)
    }

    /// Shows an answer to people; the others have it already.
    fn show<T: DeserializeOwned>(
        &self,
        answer: Value,
        words: impl FnOnce(T) -> String,
    ) -> Result<(), CtlError> {
        if self.json {
            return Ok(());
        }
        write_out(words(read(answer)?).as_bytes())
    }

    fn ask(&mut self, command: Command) -> Result<Value, CtlError> {
        let answer = self.client.ask(command)?;
        if self.json {
            write_out(format!("{answer}\n").as_bytes())?;
        }
        Ok(answer)
    }
}

fn read<T: DeserializeOwned>(answer: Value) -> Result<T, CtlError> {
    Ok(protocol::read(answer)?)
}

fn write_out(bytes: &[u8]) -> Result<(), CtlError> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|error| CtlError::Stream("write to standard output", error))
}
