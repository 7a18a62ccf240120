// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab ps`: the machines that stay.

use std::time::Duration;
use std::time::UNIX_EPOCH;

use anyhow::Result;

use crate::stay::registry;
use crate::stay::registry::Record;
use crate::stay::registry::Seen;
use crate::stay::registry::State;
use crate::ui;

const HEAD: [&str; 6] = ["NAME", "STATE", "SINCE", "PID", "COMMANDS", "IDLE"];

/// Lists them, those whose keeper was killed and those that have ended by themselves, too.
pub fn ps() -> Result<u8> {
    let mut rows = vec![HEAD.map(str::to_owned)];
    let mut reasons = Vec::new();
    for place in registry::all()? {
        let (state, why) = match place.seen() {
            Seen::Kept(State::Starting) => ("starting", None),
            Seen::Kept(State::Running) => ("running", None),
            Seen::Unattended => ("unattended", None),
            Seen::Kept(State::Ended(why)) | Seen::Over(why) => ("ended", Some(why)),
        };
        let record = place.record();
        // A machine that has just been ended is not there any more.
        if !place.is_known() {
            continue;
        }
        if let Some(why) = why.as_deref().and_then(|why| why.lines().next()) {
            reasons.push(format!("{} has ended: {why}", place.name));
        }
        rows.push(row(&place.name, state, record.as_ref()));
    }
    for line in lines(&rows) {
        ui::print(&line);
    }
    reasons.iter().for_each(|reason| ui::say(reason));
    Ok(0)
}

fn row(name: &str, state: &str, record: Option<&Record>) -> [String; 6] {
    let none = || "-".to_owned();
    let is_there = state == "running" || state == "unattended";
    let since = record.map_or_else(none, |record| {
        humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(record.since))
            .to_string()
    });
    let pid = record
        .filter(|_| state == "running" || state == "starting")
        .map_or_else(none, |record| record.pid.to_string());
    let running = record.filter(|_| state == "running");
    let commands = running.map_or_else(none, |record| record.commands.to_string());
    let idle = record
        .filter(|record| is_there && (record.commands == 0 || state != "running"))
        .map_or_else(none, |record| {
            let idle = registry::now().saturating_sub(record.used);
            humantime::format_duration(Duration::from_secs(idle)).to_string()
        });
    [
        name.to_owned(),
        state.to_owned(),
        since,
        pid,
        commands,
        idle,
    ]
}

/// Columns of equal width, but for the last.
fn lines(rows: &[[String; 6]]) -> Vec<String> {
    let mut widths = [0; 6];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    rows.iter()
        .map(|row| {
            let cells = row.iter().zip(widths);
            let line: Vec<String> = cells
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            line.join("  ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_is_known_and_columns_are_aligned() {
        let mut record = Record::new();
        record.pid = 12;
        record.since = 0;
        let running = row("x", "running", Some(&record));
        assert_eq!(running[2..5], ["1970-01-01T00:00:00Z", "12", "0"]);
        assert_ne!(running[5], "-");
        record.commands = 2;
        assert_eq!(row("x", "running", Some(&record))[4..], ["2", "-"]);
        let unattended = row("long-name", "unattended", Some(&record));
        assert_eq!(unattended[3..5], ["-", "-"]);
        let ended = row("x", "ended", None);
        assert_eq!(ended[2..], ["-", "-", "-", "-"]);
        let lines = lines(&[HEAD.map(str::to_owned), running, unattended]);
        let at = |line: &String| line.find("running").or(line.find("unattended"));
        assert_eq!(at(&lines[1]), at(&lines[2]));
    }
}
