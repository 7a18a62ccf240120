// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Events for a client that traces, and how many it was too slow for.
//!
//! This file must not know sockets, or what an event means.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::protocol::Traced;
use crate::trace::Record;
use crate::trace::Subscription;
use crate::trace::Tracer;

/// Events that are written down at a time.
const BATCH: usize = 256;

/// A line for a client that traces.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Line {
    /// What happened.
    Event(Record),
    /// Events were dropped before the next one.
    Lost {
        /// `lost`
        trace: &'static str,
        /// How many.
        lost: u64,
    },
}

/// A trace that one client reads.
#[derive(Debug)]
pub struct Tracing {
    subscription: Subscription,
    told: Traced,
    /// `id` of the request to end it.
    id: Option<Value>,
}

impl Tracing {
    /// Begins with what happens from now on.
    pub fn new(tracer: &Arc<Tracer>) -> Self {
        Self {
            subscription: tracer.subscribe(),
            told: Traced::default(),
            id: None,
        }
    }

    /// Ends with what has happened by now; `id` is that of the request.
    pub fn end(&mut self, id: Option<Value>) {
        self.subscription.end();
        self.id = id;
    }

    /// The next lines; none when the client has them all.
    pub fn lines(&mut self) -> Vec<Line> {
        let (lost, records) = self.subscription.take(BATCH);
        self.told.traced += records.len() as u64;
        self.told.lost += lost;
        let lost = (lost > 0).then_some(Line::Lost {
            trace: "lost",
            lost,
        });
        lost.into_iter()
            .chain(records.into_iter().map(Line::Event))
            .collect()
    }

    /// Whether there is enough to be worth a turn of its own, before the next tick.
    pub fn has_much(&self) -> bool {
        self.subscription.left() >= BATCH as u64 || self.subscription.is_ending()
    }

    /// Whether the request to end it waits for its answer.
    pub fn is_ending(&self) -> bool {
        self.subscription.is_ending()
    }

    /// The answer to the request to end it, once the client has every event: its `id`, and the account.
    pub fn ended(&mut self) -> Option<(Option<Value>, Traced)> {
        let over = self.subscription.is_ending() && self.subscription.left() == 0;
        over.then(|| (self.id.take(), self.told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::CAPACITY;
    use crate::trace::What;

    #[test]
    fn a_client_is_told_what_was_dropped_before_the_next_event() {
        let tracer = Arc::new(Tracer::default());
        let mut tracing = Tracing::new(&tracer);
        for _ in 0..CAPACITY + 3 {
            tracer.record(|| What::Config);
        }
        let lines = tracing.lines();
        let first = serde_json::to_value(&lines[0]).unwrap();
        assert_eq!(first, serde_json::json!({"trace": "lost", "lost": 3}));
        let second = serde_json::to_value(&lines[1]).unwrap();
        assert_eq!(second["trace"], "config");
        assert_eq!(lines.len(), BATCH + 1);
        tracing.end(None);
        assert_eq!(tracing.ended(), None);
        while !tracing.lines().is_empty() {}
        let (traced, lost) = (CAPACITY as u64, 3);
        assert_eq!(tracing.ended(), Some((None, Traced { traced, lost })));
    }
}
