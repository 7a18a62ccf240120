// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The control socket: what a person or a program on the host can see and do, and what a bad one
//! cannot.

use std::io::BufRead;
use std::io::BufReader;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rstest::rstest;
use serde_json::Value;
use serde_json::json;
use vhost_device_fifo::backend::FEATURES;
use virtio_fifo_protocol::virtio_fifo::STATE_HANGUP;
use virtio_fifo_protocol::virtio_fifo::TxHeader;
use virtio_fifo_protocol::virtio_fifo::tx_queue;

use crate::common::EVENT_IDX;
use crate::common::Host;

/// Only a hang takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

struct Client(BufReader<UnixStream>);

impl Client {
    fn new(host: &Host) -> Self {
        let mut client = Self::raw(host);
        let hello = client.line();
        assert_eq!(hello["hello"], "vhost-device-fifo");
        assert_eq!(hello["protocol"], 1);
        client
    }

    fn raw(host: &Host) -> Self {
        let stream = UnixStream::connect(host.control()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: '{line}'"))
    }

    fn ask(&mut self, request: &Value) -> Value {
        self.write(format!("{request}\n").as_bytes());
        self.line()
    }

    /// Asks for what must succeed.
    fn get(&mut self, request: &Value) -> Value {
        let answer = self.ask(request);
        assert_eq!(answer["ok"], true, "{request}: {answer}");
        answer
    }

    fn fifo(&mut self, index: usize) -> Value {
        self.get(&json!({"command": "status"}))["fifos"][index].clone()
    }

    /// Events up to the first of this kind, which is returned.
    fn event(&mut self, kind: &str) -> Value {
        loop {
            let event = self.line();
            if event["event"] == kind {
                return event;
            }
        }
    }

    fn check_works(&mut self) {
        assert_eq!(self.get(&json!({"command": "status", "id": 9}))["id"], 9);
    }
}

/// Levels, counters and connections are those of the device.
#[test]
fn status_tells_what_happened() {
    let host = Host::with_control(&["loopback", "null,capacity=64"]);
    let mut client = Client::new(&host);
    let status = client.get(&json!({"command": "status"}));
    assert_eq!(status["device"]["connected"], false);
    assert_eq!(status["device"]["connections"], 0);
    let mut driver = host.driver_with(FEATURES & !EVENT_IDX);
    driver.send(0, b"abc");
    driver.send(0, b"de");
    driver.barrier();
    let status = client.get(&json!({"command": "status"}));
    assert_eq!(status["device"]["connected"], true);
    assert_eq!(status["device"]["connections"], 1);
    assert!(status["device"]["control_interrupts"].as_u64().unwrap() >= 2);
    let [loopback, null] = [&status["fifos"][0], &status["fifos"][1]];
    assert_eq!(loopback["kind"], "loopback");
    assert_eq!(loopback["host"], "lasting");
    assert_eq!(loopback["rx"]["level"], 5);
    assert_eq!(loopback["tx"]["entered"], 5);
    assert_eq!(loopback["tx"]["messages"], 2);
    assert_eq!(loopback["tx"]["interrupts"], 2);
    assert_eq!(null["capacity"], 64);
    assert_eq!(null["tx"]["entered"], 0);
    let wrong = driver.tx_header(0);
    driver.send_raw(
        0,
        TxHeader {
            offset: 77,
            ..wrong
        },
        b"x",
    );
    let loopback = client.fifo(0);
    assert_eq!(loopback["refused"]["wrong-offset"], 1);
    assert_eq!(loopback["error"], true);
    assert_eq!(client.fifo(1)["error"], false);
    drop(driver);
    // The connection's end is noticed on another thread; it is there soon.
    while client.get(&json!({"command": "status"}))["device"]["connected"] == true {
        std::thread::yield_now();
    }
}

/// Bytes pushed reach the driver as if the host side had sent them, text or not, with an
/// interrupt; those that do not fit are not taken.
#[test]
fn push_reaches_the_driver() {
    let host = Host::with_control(&["null,capacity=8"]);
    let mut driver = host.driver_with(FEATURES & !EVENT_IDX);
    let mut client = Client::new(&host);
    driver.post_rx(0, 100);
    let answer = client.get(&json!({"command": "push", "fifo": 0, "text": "héy"}));
    assert_eq!((&answer["pushed"], &answer["free"]), (&json!(4), &json!(4)));
    assert_eq!(driver.receive(0).1, "héy".as_bytes());
    driver.barrier();
    assert_eq!(client.fifo(0)["rx"]["interrupts"], 1);
    let bytes = [0, 255, 10, 13, 0, 1];
    let answer = client.get(&json!({
        "command": "push", "fifo": 0, "base64": BASE64_STANDARD.encode(bytes)
    }));
    // DEV-4: the driver has not said that it consumed the first four.
    assert_eq!((&answer["pushed"], &answer["free"]), (&json!(4), &json!(0)));
    assert_eq!(driver.read_some(0, 100), bytes[..4]);
}

/// Bytes pushed before there is a VMM wait for it.
#[test]
fn push_before_the_vmm() {
    let host = Host::with_control(&["null"]);
    let mut client = Client::new(&host);
    client.get(&json!({"command": "push", "fifo": 0, "text": "early"}));
    assert_eq!(host.driver().read_some(0, 100), b"early");
}

/// Bytes that the host side does not take can be pulled, and are credit again.
#[test]
fn pull_takes_what_waits() {
    let host = Host::with_control(&["null,capacity=8"]);
    let mut driver = host.driver();
    let mut client = Client::new(&host);
    client.get(&json!({"command": "hangup", "fifo": 0}));
    driver.send(0, b"\x00\xff345678");
    let answer = client.get(&json!({"command": "pull", "fifo": 0, "max": 3}));
    assert_eq!(answer["base64"], BASE64_STANDARD.encode(b"\x00\xff3"));
    assert_eq!((&answer["pulled"], &answer["left"]), (&json!(3), &json!(5)));
    // DEV-16: the limit had been reached.
    driver.post_event();
    assert_eq!(driver.wait_event().tx_limit, 11);
    let answer = client.get(&json!({"command": "pull", "fifo": 0}));
    assert_eq!(answer["pulled"], 5);
    let answer = client.get(&json!({"command": "pull", "fifo": 0}));
    assert_eq!(
        (&answer["base64"], &answer["pulled"]),
        (&json!(""), &json!(0))
    );
}

/// DEV-16, DRV-10: a clear is told by an event, and what comes later follows it.
#[rstest]
fn clear_is_told(#[values("loopback", "null")] kind: &str) {
    let host = Host::with_control(&[kind]);
    let mut driver = host.driver();
    let mut client = Client::new(&host);
    let before = if kind == "null" {
        client.get(&json!({"command": "push", "fifo": 0, "text": "old"}));
        3
    } else {
        driver.send(0, b"old");
        3
    };
    let answer = client.get(&json!({"command": "clear", "fifo": 0}));
    assert_eq!(answer["cleared"], before);
    driver.post_event();
    let state = driver.wait_event();
    assert_eq!((state.rx_floor, state.rx_end), (3, 3));
    driver.streams[0].received = state.rx_floor;
    driver.streams[0].consumed = state.rx_floor;
    if kind == "null" {
        client.get(&json!({"command": "push", "fifo": 0, "text": "new"}));
    } else {
        driver.send(0, b"new");
    }
    let bytes = driver.read_some(0, 100);
    assert_eq!(bytes, b"new");
    assert_eq!(host.all_refused(), 0);
    // Nothing to discard, nothing to tell.
    driver.send(0, b"");
    assert_eq!(
        client.get(&json!({"command": "clear", "fifo": 0}))["cleared"],
        0
    );
    driver.post_event();
    driver.barrier();
    assert!(driver.try_event().is_none());
}

/// DEV-16, DRV-13: the driver learns that the host side has hung up, and that it is back.
#[rstest]
fn hangup_and_back(#[values("loopback", "null")] kind: &str) {
    let host = Host::with_control(&[kind]);
    let mut driver = host.driver();
    let mut client = Client::new(&host);
    for (on, flag) in [(true, STATE_HANGUP), (false, 0)] {
        driver.post_event();
        client.get(&json!({"command": "hangup", "fifo": 0, "on": on}));
        assert_eq!(driver.wait_event().flags & STATE_HANGUP, flag);
        let fifo = client.fifo(0);
        assert_eq!(
            (&fifo["hangup"], &fifo["hangup_by_control"]),
            (&json!(on), &json!(on))
        );
    }
}

/// A watcher is told of VMMs, bytes, states and refusals of the FIFOs it asked for.
#[test]
fn watch_tells_what_happens() {
    let host = Host::with_control(&["loopback", "null"]);
    let mut watcher = Client::new(&host);
    watcher.get(&json!({"command": "watch", "fifos": [0]}));
    let mut driver = host.driver();
    let event = watcher.event("vmm");
    assert_eq!(
        (&event["connected"], &event["connections"]),
        (&json!(true), &json!(1))
    );
    driver.send(0, b"abc");
    let event = watcher.event("level");
    assert_eq!(
        (&event["fifo"], &event["rx"], &event["rx_entered"]),
        (&json!(0), &json!(3), &json!(3))
    );
    // Nobody watches this one.
    driver.send(1, b"abc");
    let header = TxHeader {
        offset: 77,
        ..driver.tx_header(0)
    };
    driver.send_raw(0, header, b"x");
    let event = watcher.event("state");
    assert_eq!((&event["fifo"], &event["error"]), (&json!(0), &json!(true)));
    let event = watcher.event("refused");
    assert_eq!(
        (&event["fifo"], &event["reason"]),
        (&json!(0), &json!("wrong-offset"))
    );
    drop(driver);
    assert_eq!(watcher.event("vmm")["connected"], false);
    // It can still ask.
    watcher.write(b"{\"command\":\"status\",\"id\":\"s\"}\n");
    while watcher.line()["id"] != "s" {}
}

/// Faults come and go while the device is served, and what they did is told.
#[test]
#[cfg_attr(not(feature = "faults"), ignore = "needs fault injection")]
fn faults_come_and_go() {
    let host = Host::with_control(&["loopback", "null"]);
    let mut driver = host.driver_with(FEATURES & !EVENT_IDX);
    let mut client = Client::new(&host);
    let mut watcher = Client::new(&host);
    watcher.get(&json!({"command": "watch"}));
    let spec = "drop-interrupt,fifo=0,count=2,on=tx";
    let fault = client.get(&json!({"command": "fault-add", "spec": spec}))["fault"].clone();
    let drop_two = |driver: &mut crate::common::Driver| {
        driver.interrupts(tx_queue(0));
        for _ in 0..5 {
            let header = driver.tx_header(0);
            driver.post_tx(0, header, b"");
            driver.kick(tx_queue(0));
            driver.barrier();
        }
        driver.interrupts(tx_queue(0))
    };
    assert_eq!(drop_two(&mut driver), 3);
    let faults = client.get(&json!({"command": "fault-list"}))["faults"].clone();
    assert_eq!(
        faults,
        json!([{"fault": fault, "spec": faults[0]["spec"], "opportunities": 5, "strikes": 2, "over": true}])
    );
    while watcher.event("fault")["strikes"] != 2 {}
    client.get(&json!({"command": "fault-remove", "fault": fault}));
    assert_eq!(drop_two(&mut driver), 5);
    // A hang-up that lasts until its fault is taken away.
    driver.post_event();
    client.get(&json!({"command": "fault-add", "spec": "hang-up,fifo=1"}));
    assert_eq!(driver.wait_event().flags & STATE_HANGUP, STATE_HANGUP);
    driver.post_event();
    assert_eq!(client.get(&json!({"command": "fault-clear"}))["removed"], 1);
    assert_eq!(driver.wait_event().flags & STATE_HANGUP, 0);
    assert_eq!(
        client.get(&json!({"command": "fault-list"}))["faults"],
        json!([])
    );
}

/// As many faults as can be looked at each time, and no more.
#[test]
#[cfg_attr(not(feature = "faults"), ignore = "needs fault injection")]
fn faults_have_a_limit() {
    let host = Host::with_control(&["loopback"]);
    let mut client = Client::new(&host);
    let add = json!({"command": "fault-add", "spec": "slow,after=1h"});
    for _ in 0..64 {
        client.get(&add);
    }
    assert_eq!(client.ask(&add)["error"]["code"], "unsupported");
    assert_eq!(
        client.get(&json!({"command": "fault-clear"}))["removed"],
        64
    );
    client.get(&add);
}

/// `code`, of a build that has fault injection.
fn fault(code: &'static str) -> &'static str {
    if cfg!(feature = "faults") {
        code
    } else {
        "unsupported"
    }
}

/// What a client gets wrong is said to it, and the connection goes on.
#[rstest]
#[case(b"\n", "bad-json")]
#[case(b"status\n", "bad-json")]
#[case(b"{\"command\":\"status\"\n", "bad-json")]
#[case(b"\xff\xfe\x00\n", "bad-json")]
#[case(b"{\"command\":\"boom\"}\n", "unknown-command")]
#[case(b"{\"command\":\"status\",\"x\":1}\n", "bad-request")]
#[case(b"{\"command\":\"push\",\"fifo\":0}\n", "bad-request")]
#[case(b"{\"command\":\"push\",\"fifo\":0,\"base64\":\"!\"}\n", "bad-request")]
#[case(b"{\"command\":\"clear\",\"fifo\":1}\n", "no-such-fifo")]
#[case(b"{\"command\":\"watch\",\"fifos\":[0,31]}\n", "no-such-fifo")]
#[case(b"{\"command\":\"pull\",\"fifo\":0}\n", "unsupported")]
#[case(
    b"{\"command\":\"fault-add\",\"spec\":\"boom\"}\n",
    fault("bad-request")
)]
#[case(
    b"{\"command\":\"fault-add\",\"spec\":\"slow,fifo=3\"}\n",
    fault("no-such-fifo")
)]
#[case(
    b"{\"command\":\"fault-remove\",\"fault\":3}\n",
    fault("no-such-fault")
)]
#[case(b"{\"command\":\"fault-list\",\"x\":1}\n", "bad-request")]
fn bad_requests_are_answered(#[case] line: &[u8], #[case] code: &str) {
    let host = Host::with_control(&["loopback"]);
    let mut client = Client::new(&host);
    client.write(line);
    let answer = client.line();
    assert_eq!(
        (&answer["ok"], &answer["error"]["code"]),
        (&json!(false), &json!(code))
    );
    client.check_works();
    host.driver().check_serves(0);
}

#[test]
fn a_line_too_long_is_refused_and_skipped() {
    let host = Host::with_control(&["loopback"]);
    let mut client = Client::new(&host);
    client.write(&vec![b'x'; 300_000]);
    client.write(b"\n");
    let answer = client.line();
    assert_eq!(answer["error"]["code"], "too-long");
    client.check_works();
    host.driver().check_serves(0);
}

/// Requests one byte at a time, many in one piece, and one without a newline before the end.
#[test]
fn requests_in_any_pieces() {
    let host = Host::with_control(&["loopback"]);
    let mut client = Client::new(&host);
    for byte in b"{\"command\":\"clear\",\"fifo\":0,\"id\":1}\n" {
        client.write(&[*byte]);
    }
    assert_eq!(client.line()["id"], 1);
    let many: String = (0..50)
        .map(|id| format!("{{\"command\":\"clear\",\"fifo\":0,\"id\":{id}}}\n"))
        .collect();
    client.write(many.as_bytes());
    for id in 0..50 {
        assert_eq!(client.line()["id"], id);
    }
    client.write(b"{\"command\":\"clear\",\"fifo\":0,\"id\":\"last\"}");
    client.0.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.line()["id"], "last");
    let mut rest = String::new();
    client.0.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

/// A client that asks and does not read is asked nothing more; nobody else notices. When it
/// reads, it gets every answer.
#[test]
fn a_client_that_does_not_read_waits() {
    let host = Host::with_control(&["loopback"]);
    let client = Client::new(&host);
    let stream = client.0.get_ref();
    stream.set_nonblocking(true).unwrap();
    let request = b"{\"command\":\"status\"}\n";
    let mut sent = 0;
    let mut stalled = 0;
    // Until the daemon has taken nothing for a while: it waits.
    while stalled < 20 {
        match (&*stream).write(&request[sent % request.len()..]) {
            Ok(count) => {
                sent += count;
                stalled = 0;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Client::new(&host).check_works();
                stalled += 1;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 16 << 20, "no end to what it takes");
    }
    host.driver().check_serves(0);
    stream.set_nonblocking(false).unwrap();
    let whole = sent / request.len();
    stream.shutdown(Shutdown::Write).unwrap();
    let lines: Vec<_> = client.0.lines().map(Result::unwrap).collect();
    // The last request may have been cut off.
    assert_eq!(lines.len(), whole + usize::from(sent % request.len() != 0));
    assert!(
        lines[..whole]
            .iter()
            .all(|line| line.starts_with("{\"ok\":true"))
    );
}

/// Clients that vanish leave nothing behind and harm nobody.
#[test]
fn clients_that_vanish() {
    let host = Host::with_control(&["loopback"]);
    let mut watcher = Client::new(&host);
    for round in 0..100 {
        let mut client = Client::raw(&host);
        match round % 4 {
            0 => {}
            1 => client.write(b"{\"command\":\"sta"),
            2 => client.write(b"{\"command\":\"watch\"}\n"),
            _ => client.write(&b"{\"command\":\"metrics\"}\n".repeat(100)),
        }
        drop(client);
        // At most as many as there is room for are there at a time.
        watcher.check_works();
    }
    host.driver().check_serves(0);
}

/// One client too many is told so; when another has gone, there is room.
#[test]
fn there_is_room_for_sixteen() {
    let host = Host::with_control(&["loopback"]);
    let mut clients: Vec<_> = (0..16).map(|_| Client::new(&host)).collect();
    let mut late = Client::raw(&host);
    let answer = late.line();
    assert_eq!(answer["error"]["code"], "busy");
    assert_eq!(late.0.read(&mut [0]).unwrap(), 0);
    clients.pop();
    loop {
        let mut client = Client::raw(&host);
        if client.line()["protocol"] == 1 {
            client.check_works();
            break;
        }
    }
    for client in &mut clients {
        client.check_works();
    }
}

/// Bytes of a host, a driver and clients, all at once: none is lost or out of order.
#[test]
fn pushes_in_a_row_arrive_in_a_row() {
    let host = Host::with_control(&["null,capacity=1000"]);
    let mut driver = host.driver();
    let mut client = Client::new(&host);
    let total = 20_000_usize;
    let byte = |at: usize| (at * 7 % 251) as u8;
    let pusher = std::thread::spawn(move || {
        let mut at = 0;
        while at < total {
            let bytes: Vec<u8> = (at..total.min(at + 300)).map(byte).collect();
            let answer = client.get(&json!({
                "command": "push", "fifo": 0, "base64": BASE64_STANDARD.encode(bytes)
            }));
            at += answer["pushed"].as_u64().unwrap() as usize;
        }
    });
    let mut at = 0;
    while at < total {
        for got in driver.read_some(0, 333) {
            assert_eq!(got, byte(at));
            at += 1;
        }
        driver.send(0, b"");
    }
    pusher.join().unwrap();
    assert_eq!(host.all_refused(), 0);
}
