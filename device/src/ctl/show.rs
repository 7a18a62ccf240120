// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What people get to see: tables and lines. It must not know where the words come from.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use crate::control::protocol::DeviceStatus;
use crate::control::protocol::Event;
use crate::control::protocol::FaultStatus;
use crate::control::protocol::FifoStatus;
use crate::control::protocol::HostSide;
use crate::control::protocol::Status;

const HEADINGS: [&str; 12] = [
    "FIFO", "KIND", "HOST", "STATE", "CAPACITY", "RX LEVEL", "RX BYTES", "RX IRQS", "TX LEVEL",
    "TX BYTES", "TX IRQS", "REFUSED",
];

const FAULT_HEADINGS: [&str; 5] = ["FAULT", "SPEC", "STATE", "OPPORTUNITIES", "STRIKES"];

/// Columns of words in each table; the others are numbers and stand on the right.
const WORDS: usize = 4;
const FAULT_WORDS: usize = 3;

/// The device in a line or two, its FIFOs in a table.
pub fn status(status: &Status) -> String {
    let rows: Vec<_> = status.fifos.iter().map(row).collect();
    let mut text = device(&status.device);
    text.push_str(&table(HEADINGS, &rows, WORDS));
    for fifo in &status.fifos {
        refused(&mut text, &format!("FIFO {}", fifo.fifo), &fifo.refused);
    }
    refused(
        &mut text,
        "control and event queues",
        &status.device.refused,
    );
    if !status.faults.is_empty() {
        text.push_str(&faults(&status.faults));
    }
    text
}

/// All faults in a table.
pub fn faults(faults: &[FaultStatus]) -> String {
    let rows: Vec<_> = faults
        .iter()
        .map(|fault| {
            let state = if fault.over { "over" } else { "active" };
            [
                fault.fault.to_string(),
                fault.spec.clone(),
                state.to_owned(),
                fault.opportunities.to_string(),
                fault.strikes.to_string(),
            ]
        })
        .collect();
    table(FAULT_HEADINGS, &rows, FAULT_WORDS)
}

fn device(device: &DeviceStatus) -> String {
    format!("{}; sandbox: {}\n", summary(device), device.sandbox)
}

/// The daemon's version, how long it has been there, and its VMMs.
pub fn summary(device: &DeviceStatus) -> String {
    let vmm = if device.connected {
        "a VMM is connected"
    } else {
        "no VMM is connected"
    };
    format!(
        "vhost-device-fifo {}, up {}; {vmm}, {} so far",
        device.version,
        duration(device.uptime_ms / 1000),
        device.connections,
    )
}

fn duration(seconds: u64) -> String {
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes} min {} s", seconds % 60),
        _ => format!("{hours} h {minutes} min"),
    }
}

/// State of a FIFO, as the device reports it to the driver.
pub fn state(fifo: &FifoStatus) -> &'static str {
    match (fifo.error, fifo.hangup, fifo.hangup_by_control) {
        (true, ..) => "error",
        (_, _, true) => "hung up by ctl",
        (_, true, _) => "hung up",
        _ => "ok",
    }
}

fn row(fifo: &FifoStatus) -> [String; HEADINGS.len()] {
    [
        fifo.fifo.to_string(),
        fifo.kind.clone(),
        host(fifo.host).to_owned(),
        state(fifo).to_owned(),
        fifo.capacity.to_string(),
        fifo.rx.level.to_string(),
        fifo.rx.entered.to_string(),
        fifo.rx.interrupts.to_string(),
        fifo.tx.level.to_string(),
        fifo.tx.entered.to_string(),
        fifo.tx.interrupts.to_string(),
        fifo.refused.values().sum::<u64>().to_string(),
    ]
}

/// What the host side of a FIFO is like.
pub fn host(host: HostSide) -> &'static str {
    match host {
        HostSide::Lasting => "built in",
        HostSide::Awaited => "awaited",
        HostSide::Connected => "connected",
        HostSide::HalfClosed => "half closed",
        HostSide::Gone => "gone",
    }
}

/// Headings and rows in columns; the first `words` of these on the left, the others are numbers and stand on the right.
pub fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]], words: usize) -> String {
    let widths: Vec<_> = headings
        .iter()
        .enumerate()
        .map(|(at, heading)| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(String::len);
            cells.max().unwrap_or_default().max(heading.len())
        })
        .collect();
    let mut text = String::new();
    let headings = headings.map(str::to_owned);
    for row in std::iter::once(&headings).chain(rows) {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let written = if at < words {
                write!(line, "{cell:width$}  ")
            } else {
                write!(line, "{cell:>width$}  ")
            };
            debug_assert!(written.is_ok());
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn refused(text: &mut String, place: &str, reasons: &BTreeMap<String, u64>) {
    let reasons: Vec<_> = reasons
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    if !reasons.is_empty() {
        text.push_str(&format!("{place}: refused {}\n", reasons.join(", ")));
    }
}

/// One line for an event of a trace: seconds, what, and its fields.
pub fn traced(event: &Value) -> String {
    let number = |name| event.get(name).and_then(Value::as_u64);
    let what = event.get("trace").and_then(Value::as_str).unwrap_or("?");
    if let ("lost", Some(lost)) = (what, number("lost")) {
        return format!("{lost} events lost: this client was too slow\n");
    }
    let ns = number("ns").unwrap_or_default();
    let (seconds, rest) = (ns / 1_000_000_000, ns % 1_000_000_000);
    let mut line = format!("{seconds:>7}.{rest:09}  {what:<15}");
    for (name, value) in event.as_object().into_iter().flatten() {
        if name != "trace" && name != "ns" {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            line.push_str(&format!(" {name}={value}"));
        }
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

/// One line for what happened.
pub fn event(event: &Event) -> String {
    match event {
        Event::Vmm {
            connected,
            connections,
        } => {
            let what = if *connected { "connected" } else { "gone" };
            format!("VMM {what}, {connections} so far\n")
        }
        Event::Level {
            fifo,
            rx,
            tx,
            rx_entered,
            tx_entered,
        } => format!(
            "FIFO {fifo}: rx holds {rx} bytes, {rx_entered} new; tx holds {tx} bytes, {tx_entered} new\n"
        ),
        Event::Host {
            fifo,
            host: side,
            peers,
        } => format!(
            "FIFO {fifo}: host side {}, {peers} peers so far\n",
            host(*side)
        ),
        Event::State {
            fifo,
            hangup,
            error,
        } => {
            let state = match (error, hangup) {
                (true, _) => "has failed",
                (_, true) => "is hung up",
                _ => "is in order",
            };
            format!("FIFO {fifo}: {state}\n")
        }
        Event::Refused {
            fifo: Some(fifo),
            reason,
            count,
        } => format!("FIFO {fifo}: refused {reason}, {count} times\n"),
        Event::Refused { reason, count, .. } => {
            format!("control and event queues: refused {reason}, {count} times\n")
        }
        Event::Fault {
            fault,
            spec,
            strikes,
            over,
        } => {
            let state = if *over { ", is over" } else { "" };
            format!("fault {fault}, {spec}: struck {strikes} times{state}\n")
        }
        Event::Lost { lost } => format!("{lost} events lost: this watcher was too slow\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::control::Service;
    use crate::device::Device;
    use crate::fifo::ResetPolicy;
    use crate::refusal::Refusal;
    use crate::spec::PartialSpec;

    #[test]
    fn a_table_whose_columns_stand_under_their_headings() {
        let spec: PartialSpec = "null".parse().unwrap();
        let device =
            Arc::new(Device::new(&[spec.with_default(70_000)], ResetPolicy::Keep).unwrap());
        device.fifo(0).unwrap().push(b"abc").unwrap();
        device.refuse("event", Refusal::WrongLength);
        let text = status(&Service::new(device).status());
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].contains("no VMM is connected"), "{text}");
        for (heading, value) in [
            ("RX LEVEL", "       3"),
            ("RX BYTES", "       3"),
            ("CAPACITY", "   70000"),
        ] {
            let at = lines[1].find(heading).unwrap();
            assert_eq!(&lines[2][at..at + heading.len()], value, "{text}");
        }
        assert_eq!(lines[3], "control and event queues: refused wrong-length 1");
    }

    #[test]
    fn a_traced_event_is_seconds_what_and_fields() {
        let event =
            serde_json::json!({"trace": "push", "ns": 12_000_000_034_u64, "fifo": 1, "bytes": 5});
        assert_eq!(
            traced(&event),
            "     12.000000034  push            bytes=5 fifo=1\n"
        );
        let event = serde_json::json!({"trace": "lost", "lost": 7});
        assert_eq!(traced(&event), "7 events lost: this client was too slow\n");
    }

    #[test]
    fn times_are_short() {
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(61), "1 min 1 s");
        assert_eq!(duration(7260), "2 h 1 min");
    }
}
