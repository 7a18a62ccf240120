// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `trace` of the control socket: the data path's events and their order, over a real socket and rings.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::time::ClockId;
use nix::time::clock_gettime;
use serde_json::Value;
use serde_json::json;
use virtio_fifo_protocol::virtio_fifo::rx_queue;
use virtio_fifo_protocol::virtio_fifo::tx_queue;

use crate::common::Host;

/// Only a hang takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

struct Tracer(BufReader<UnixStream>);

impl Tracer {
    fn begin(host: &Host) -> Self {
        let stream = UnixStream::connect(host.control()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut tracer = Self(BufReader::new(stream));
        tracer.line();
        tracer.say(&json!({"command": "trace"}));
        assert_eq!(tracer.line(), json!({"ok": true}));
        tracer
    }

    fn say(&mut self, request: &Value) {
        let line = format!("{request}\n");
        self.0.get_mut().write_all(line.as_bytes()).unwrap();
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: '{line}'"))
    }

    /// Every event until now.
    fn end(mut self) -> Vec<Value> {
        self.say(&json!({"command": "trace", "on": false, "id": "end"}));
        let mut events = Vec::new();
        loop {
            let line = self.line();
            if line["id"] == "end" {
                assert_eq!(line["traced"], events.len(), "{line}");
                assert_eq!(line["lost"], 0);
                // Others are answered again.
                self.say(&json!({"command": "status"}));
                assert_eq!(self.line()["ok"], true);
                return events;
            }
            events.push(line);
        }
    }
}

fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    let [seconds, rest] = [now.tv_sec(), now.tv_nsec()].map(|part| u64::try_from(part).unwrap());
    seconds * 1_000_000_000 + rest
}

/// Asserts that these come in this order, with times that do not fall; others may come between.
fn in_order(events: &[Value], expected: &[Value]) {
    let mut ordered: Vec<_> = events.iter().collect();
    ordered.sort_by_key(|event| event["ns"].as_u64());
    let mut rest = ordered.iter();
    for wanted in expected {
        let has_all = |event: &Value| {
            let mut fields = wanted.as_object().unwrap().iter();
            fields.all(|(name, value)| event[name] == *value)
        };
        assert!(
            rest.any(|event| has_all(event)),
            "not there or not in order: {wanted}: {events:#?}"
        );
    }
}

#[test]
fn a_message_through_a_loop_is_traced_from_its_kick_to_the_notification() {
    let host = Host::with_control(&["loopback", "loopback"]);
    let mut driver = host.driver();
    driver.send(1, b"before");
    // A kick of before would have the message pushed before the traced one.
    driver.barrier();
    let before = now();
    let tracer = Tracer::begin(&host);
    driver.post_rx(1, 100);
    assert_eq!(driver.receive(1).1, b"before");
    // The device notifies only past `used_event`.
    driver.set_used_event(rx_queue(1), driver.seen(rx_queue(1)));
    driver.post_rx(1, 100);
    driver.send(1, b"hello");
    assert_eq!(driver.receive(1).1, b"hello");
    // A notification is recorded once it has gone out.
    driver.barrier();
    let events = tracer.end();
    let after = now();
    let (rx, tx) = (rx_queue(1), tx_queue(1));
    in_order(
        &events,
        &[
            json!({"trace": "kick", "queue": rx}),
            json!({"trace": "push", "fifo": 1, "position": 0, "bytes": 6}),
            json!({"trace": "notify", "queue": rx, "result": "sent"}),
            json!({"trace": "pop", "fifo": 1, "position": 6, "bytes": 5}),
            json!({"trace": "push", "fifo": 1, "position": 6, "bytes": 5}),
            json!({"trace": "notify", "queue": rx, "result": "sent"}),
        ],
    );
    in_order(&events, &[json!({"trace": "notify", "queue": tx})]);
    for event in &events {
        let ns = event["ns"].as_u64().unwrap();
        assert!(ns >= before && ns <= after, "{event}");
    }
}

#[test]
fn bytes_of_an_endpoint_are_traced_in_both_directions() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let host = Host::with_control(&[&format!("unix={}", path.display())]);
    let mut driver = host.driver();
    let mut peer = UnixStream::connect(&path).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    driver.wait_state(0, |state| state.flags == 0);
    // What serves an earlier kick may find what was not announced yet.
    driver.barrier();
    let tracer = Tracer::begin(&host);
    driver.send(0, b"question");
    let mut room = [0; 8];
    peer.read_exact(&mut room).unwrap();
    driver.post_rx(0, 100);
    peer.write_all(b"answer").unwrap();
    assert_eq!(driver.receive(0).1, b"answer");
    driver.barrier();
    in_order(
        &tracer.end(),
        &[
            json!({"trace": "kick", "queue": tx_queue(0)}),
            json!({"trace": "pop", "position": 0, "bytes": 8}),
            json!({"trace": "endpoint-write", "fifo": 0, "position": 0, "bytes": 8}),
            json!({"trace": "endpoint-read", "fifo": 0, "position": 0, "bytes": 6}),
            json!({"trace": "push", "position": 0, "bytes": 6}),
            json!({"trace": "notify", "queue": rx_queue(0)}),
        ],
    );
}

#[test]
#[cfg_attr(not(feature = "faults"), ignore = "needs fault injection")]
fn what_happens_to_a_fifo_is_traced() {
    let host = Host::with_control(&["null"]);
    let mut driver = host.driver();
    let tracer = Tracer::begin(&host);
    host.fault("drop-interrupt,fifo=0,on=rx,count=1");
    let mut control = Tracer::begin(&host);
    control.say(&json!({"command": "push", "fifo": 0, "text": "abc"}));
    while control.line()["ok"] != true {}
    driver.post_rx(0, 100);
    driver.barrier();
    control.say(&json!({"command": "hangup", "fifo": 0}));
    while control.line()["ok"] != true {}
    driver.clear(0);
    driver.config(0, 4);
    driver.reset();
    drop(driver);
    drop(control);
    let events = tracer.end();
    in_order(
        &events,
        &[
            json!({"trace": "endpoint-read", "position": 0, "bytes": 3}),
            json!({"trace": "push", "bytes": 3}),
            json!({"trace": "state", "fifo": 0, "from": 0, "to": 2}),
            json!({"trace": "clear", "fifo": 0, "bytes": 3}),
            json!({"trace": "config"}),
        ],
    );
    in_order(
        &events,
        &[json!({"trace": "notify", "queue": rx_queue(0), "result": "withheld"})],
    );
    in_order(
        &events,
        &[json!({"trace": "fault", "fault": 1, "kind": "drop-interrupt", "strikes": 1})],
    );
    in_order(&events, &[json!({"trace": "reset", "fifo": 0})]);
}

#[test]
fn a_notification_that_the_driver_does_not_want_is_traced_as_suppressed() {
    let host = Host::with_control(&["loopback"]);
    let mut driver =
        host.driver_with(vhost_device_fifo::backend::FEATURES & !crate::common::EVENT_IDX);
    driver.set_avail_flags(rx_queue(0), 1);
    let tracer = Tracer::begin(&host);
    driver.post_rx(0, 100);
    driver.send(0, b"quiet");
    driver.barrier();
    assert_eq!(driver.try_receive(0).unwrap().1, b"quiet");
    let suppressed = json!({"trace": "notify", "queue": rx_queue(0), "result": "suppressed"});
    in_order(&tracer.end(), &[suppressed]);
}
