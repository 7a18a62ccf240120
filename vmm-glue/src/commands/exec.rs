// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab exec`: a command in a machine that stays.

use std::os::unix::net::UnixStream;

use anyhow::Result;
use fifo_lab_agent::Stdin;

use super::run::guest_command;
use crate::cli::ExecArgs;
use crate::exit;
use crate::stay::client;
use crate::stay::registry::Place;
use crate::stay::registry::Record;
use crate::stay::registry::Seen;
use crate::stay::registry::State;
use crate::tty;
use crate::ui;

/// Runs the command; the status is its own.
pub fn exec(args: &ExecArgs) -> Result<u8> {
    args.streams.env()?;
    let place = Place::of(&args.name)?;
    let (record, stream) = connect(&place)?;
    let mut command = guest_command(&args.streams, &args.command, &record.cwd, &record.trees)?;
    for (name, value) in record.env {
        command.env.entry(name).or_insert(value);
    }
    if matches!(command.stdin, Stdin::Terminal(_)) {
        ui::say("a terminal in the guest: Ctrl-] three times leaves it");
    }
    let status = client::run(stream, &command);
    tty::restore();
    match status.map_err(exit::as_machine)? {
        Some(status) => Ok(status),
        None => Err(exit::machine(format!(
            "the machine {} has gone while the command ran: {}",
            place.name,
            match place.seen() {
                Seen::Kept(State::Ended(why)) | Seen::Over(why) if place.is_known() => why,
                Seen::Unattended => "its keeper was killed".to_owned(),
                _ => "it was ended".to_owned(),
            }
        ))),
    }
}

/// The machine's record, and a way to its keeper.
fn connect(place: &Place) -> Result<(Record, UnixStream)> {
    let record = place.record();
    if let Some(record) = record
        && record.state == State::Running
        && let Ok(stream) = UnixStream::connect(record.socket())
    {
        return Ok((record, stream));
    }
    let name = &place.name;
    let why = if place.is_known() {
        match place.seen() {
            Seen::Kept(State::Starting | State::Running) => {
                format!(
                    "the machine {name} is still being started: try again when `cargo lab ps` says running"
                )
            }
            Seen::Unattended => format!(
                "the machine {name} takes no commands, its keeper was killed: end it by `cargo lab down {name}`, then start it by `cargo lab \
                 up {name}`"
            ),
            Seen::Kept(State::Ended(why)) | Seen::Over(why) => {
                format!(
                    "the machine {name} has ended: {why}\nstart it again by `cargo lab up {name}`"
                )
            }
        }
    } else {
        format!(
            "there is no machine called {name}: start it by `cargo lab up {name}`; `cargo lab ps` lists those that are there"
        )
    };
    Err(exit::machine(why))
}
