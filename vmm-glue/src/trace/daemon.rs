// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The daemon's part of a trace, by its control socket (docs/control.md). It must not know the guest.

use std::collections::HashSet;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use serde_json::Value;
use serde_json::json;

use super::event::Event;
use super::event::Place;

/// A daemon that takes longer for an answer is stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// A trace that goes on.
#[derive(Debug)]
pub struct Tracing {
    to: UnixStream,
    reader: JoinHandle<Result<Traced>>,
    /// FIFOs where what is written is read.
    pub loops: HashSet<u64>,
}

/// What the daemon has told.
#[derive(Debug, Default)]
pub struct Traced {
    /// In order of time.
    pub events: Vec<Event>,
    /// When its configuration space was read, in nanoseconds.
    pub config_reads: Vec<u64>,
    /// Events that the daemon dropped, for this reader was too slow.
    pub lost: u64,
}

impl Tracing {
    /// Begins.
    pub fn begin(path: &Path) -> Result<Self> {
        let failed = || format!("cannot use the control socket {}", path.display());
        let mut to = UnixStream::connect(path).with_context(failed)?;
        to.set_read_timeout(Some(PATIENCE)).with_context(failed)?;
        let mut from = BufReader::new(to.try_clone().with_context(failed)?);
        line(&mut from)?;
        let status = ask(&mut to, &mut from, &json!({"command": "status"}))?;
        let fifos = status.get("fifos").and_then(Value::as_array);
        let loops = fifos
            .into_iter()
            .flatten()
            .filter(|fifo| fifo.get("kind") == Some(&json!("loopback")))
            .filter_map(|fifo| fifo.get("fifo")?.as_u64())
            .collect();
        ask(&mut to, &mut from, &json!({"command": "trace"}))?;
        // From now on it is silent as long as nothing happens.
        to.set_read_timeout(None).with_context(failed)?;
        let reader = thread::spawn(move || collect(from));
        Ok(Self { to, reader, loops })
    }

    /// Ends with what has happened by now.
    pub fn end(mut self) -> Result<Traced> {
        say(&mut self.to, &json!({"command": "trace", "on": false}))?;
        let Ok(traced) = self.reader.join() else {
            anyhow::bail!("the reader of the daemon's trace has failed");
        };
        traced
    }
}

fn say(to: &mut UnixStream, request: &Value) -> Result<()> {
    to.write_all(format!("{request}\n").as_bytes())
        .context("the daemon does not listen")
}

fn ask(to: &mut UnixStream, from: &mut impl BufRead, request: &Value) -> Result<Value> {
    say(to, request)?;
    let answer = line(from)?;
    anyhow::ensure!(
        answer.get("ok") == Some(&json!(true)),
        "the daemon answers {request} with {answer}"
    );
    Ok(answer)
}

fn line(from: &mut impl BufRead) -> Result<Value> {
    let mut line = String::new();
    let count = from
        .read_line(&mut line)
        .context("the daemon does not answer")?;
    anyhow::ensure!(count > 0, "the daemon has ended");
    serde_json::from_str(&line).with_context(|| format!("the daemon says '{}'", line.trim()))
}

fn collect(mut from: impl BufRead) -> Result<Traced> {
    let mut traced = Traced::default();
    loop {
        let record = line(&mut from)?;
        match record.get("trace").and_then(Value::as_str) {
            Some("lost") => {}
            Some(name) => traced.add(name, &record),
            None => {
                traced.lost = record
                    .get("lost")
                    .and_then(Value::as_u64)
                    .unwrap_or_default();
                traced.config_reads.sort_unstable();
                return Ok(traced);
            }
        }
    }
}

impl Traced {
    fn add(&mut self, name: &str, record: &Value) {
        let Some(ns) = record.get("ns").and_then(Value::as_u64) else {
            return;
        };
        if name == "config" {
            self.config_reads.push(ns);
            return;
        }
        self.events.push(Event {
            ns,
            lasts: 0,
            place: Place::Daemon,
            cpu: None,
            pid: 0,
            name: name.into(),
            text: fields(record).into(),
        });
    }
}

/// All other fields: `fifo=0 bytes=6`.
fn fields(record: &Value) -> String {
    let fields = record.as_object().into_iter().flatten();
    let words: Vec<_> = fields
        .filter(|(name, _)| !matches!(name.as_str(), "ns" | "trace"))
        .map(|(name, value)| match value.as_str() {
            Some(text) => format!("{name}={text}"),
            None => format!("{name}={value}"),
        })
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_become_events_until_the_account() {
        let text = concat!(
            "{\"trace\":\"config\",\"ns\":5}\n",
            "{\"trace\":\"pop\",\"ns\":7,\"fifo\":1,\"position\":3,\"bytes\":2}\n",
            "{\"trace\":\"notify\",\"ns\":9,\"queue\":2,\"result\":\"sent\"}\n",
            "{\"trace\":\"lost\",\"lost\":4}\n",
            "{\"ok\":true,\"traced\":3,\"lost\":4}\n",
        );
        let traced = collect(text.as_bytes()).unwrap();
        assert_eq!((traced.lost, traced.config_reads.as_slice()), (4, &[5][..]));
        let [pop, notify] = traced.events.as_slice() else {
            panic!("{traced:?}");
        };
        assert!(pop.is_daemon("pop"));
        assert_eq!(
            (pop.ns, pop.number("fifo"), pop.number("position")),
            (7, Some(1), Some(3))
        );
        assert_eq!(notify.field("result"), Some("sent"));
        assert!(collect("{\"trace\":\"config\",\"ns\":5}\n".as_bytes()).is_err());
    }
}
