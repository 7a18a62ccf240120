// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo lab trace` with real machines. Ignored by plain `cargo test`; `cargo lab test` runs them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail as the test does"
)]

mod common;

use std::fs;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

use common::command;
use serde_json::Value;

/// A trace of this shell script in the guest: the lab's output, and the JSON.
fn trace(dir: &Path, options: &[&str], script: &str) -> (String, Value) {
    let file = dir.join("t.json");
    let all = ["-q", "trace", "-n", "-o", file.to_str().unwrap()];
    let output = command(&[&all, options, &["--", "sh", "-c", script]].concat())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    let json = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), json)
}

/// Names of a chain's events; each is checked to come no earlier than what led to it.
fn steps(json: &Value, chain: &Value) -> Vec<(String, u64)> {
    let event =
        |step: &Value| &json["events"][usize::try_from(step["event"].as_u64().unwrap()).unwrap()];
    let steps = chain["steps"].as_array().unwrap();
    let time = |step: &Value| event(step)["ns"].as_u64().unwrap();
    for step in steps {
        if let Some(after) = step["after"].as_u64() {
            let cause = &steps[usize::try_from(after).unwrap()];
            assert!(
                time(step) >= time(cause),
                "{} before {}",
                event(step),
                event(cause)
            );
        }
    }
    let name = |step: &Value| event(step)["name"].as_str().unwrap().to_owned();
    steps.iter().map(|step| (name(step), time(step))).collect()
}

fn has_in_order(steps: &[(String, u64)], wanted: &[&str]) {
    let mut rest = steps.iter();
    for name in wanted {
        assert!(
            rest.any(|(other, _)| other == name),
            "{name} is not there, or not in order: {steps:?}"
        );
    }
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_write_is_linked_to_the_handler_that_it_reaches() {
    let dir = tempfile::tempdir().unwrap();
    let script = "monitor & sleep 1; echo hello >/dev/globalfifo; sleep 1; exit 3";
    let (stdout, json) = trace(dir.path(), &[], script);
    assert!(
        stdout.contains("receive a signal from globalfifo"),
        "{stdout}"
    );
    assert_eq!(json["status"], 3);
    let chains = json["chains"].as_array().unwrap();
    assert_eq!(chains.len(), 1, "{chains:?}");
    assert_eq!(
        (&chains[0]["fifo"], &chains[0]["bytes"]),
        (&0.into(), &6.into())
    );
    let steps = steps(&json, &chains[0]);
    assert!(steps.is_sorted_by_key(|(_, time)| *time), "{steps:?}");
    let path = [
        "sys_write",
        "write",
        "kick",
        "pop",
        "push",
        "notify",
        "irq_handler_entry",
        "interrupt",
        "receive",
        "signal",
        "signal_generate",
        "signal_deliver",
    ];
    has_in_order(&steps, &path);
    assert!(steps.iter().any(|(name, _)| name == "send"), "{steps:?}");
    let interrupts = &json["interrupts"];
    assert!(interrupts["counted"].as_u64().unwrap() >= 1, "{interrupts}");
    assert_eq!(interrupts["traced"], interrupts["counted"], "{interrupts}");
}

/// Marks from guest to host (a message, which the daemon takes) and from host to guest (a notification,
/// which interrupts), sixty of each: on one clock none of them arrives before it was sent.
#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn no_mark_arrives_before_it_was_sent_in_either_direction() {
    let dir = tempfile::tempdir().unwrap();
    let script = "i=0; while [ $i -lt 60 ]; do echo mark >/dev/globalfifo; read mark </dev/globalfifo; i=$((i+1)); done; exit 3";
    let (_, json) = trace(dir.path(), &[], script);
    let chains = json["chains"].as_array().unwrap();
    assert_eq!(chains.len(), 60);
    let (mut there, mut back) = (0, 0);
    for chain in chains {
        let steps = steps(&json, chain);
        let time = |wanted: &str| {
            steps
                .iter()
                .find(|(name, _)| name == wanted)
                .map(|(_, time)| *time)
        };
        there += usize::from(time("write").zip(time("pop")).is_some());
        back += usize::from(time("notify").zip(time("irq_handler_entry")).is_some());
        assert!(steps.iter().any(|(name, _)| name == "read"), "{steps:?}");
    }
    // A reader that polls needs no interrupt.
    assert_eq!(there, 60);
    assert!(back >= 10, "{back} notifications led to interrupts");
    assert_eq!(json["inversions"]["count"], 0);
    assert_eq!(
        (&json["lost"]["guest"], &json["lost"]["daemon"]),
        (&0.into(), &0.into())
    );
    let bound = json["clock"]["error_bound_ns"].as_u64().unwrap();
    // What it is on a quiet machine is in docs/trace.md; a busy one may have it wider.
    assert!(bound > 1000 && bound < 5_000_000, "{bound}");
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn bytes_of_an_endpoint_are_linked_to_the_call_that_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in");
    fs::write(&input, "from the host\n").unwrap();
    let out = dir.path().join("out");
    let fifo = format!("file={},input={}", out.display(), input.display());
    let script = "head -n 1 /dev/globalfifo; echo back >/dev/globalfifo; exit 3";
    let (stdout, json) = trace(dir.path(), &["--fifo", &fifo], script);
    assert_eq!(stdout, "from the host\n");
    let chains = json["chains"].as_array().unwrap();
    let written: Vec<_> = chains.iter().map(|chain| steps(&json, chain)).collect();
    let last = written
        .iter()
        .find(|steps| steps.iter().any(|(name, _)| name == "write"));
    has_in_order(
        last.unwrap(),
        &["sys_write", "write", "pop", "endpoint-write"],
    );
}

/// A program of the guest's, compiled by `cargo lab cc`.
fn compile(dir: &Path, name: &str, libraries: &[&str]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/trace/{name}.c"));
    let to = dir.join(name);
    let args = ["-q", "cc", source.to_str().unwrap()];
    let output = command(&[&args, libraries, &["-o", to.to_str().unwrap()]].concat())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A peer of a `unix=` FIFO: once the guest's program has written that its request waits, it sends what the request then gets. The path
/// from that byte to the completion is one chain, over the daemon and the driver.
fn a_peers_byte_completes(name: &str, libraries: &[&str], path: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    compile(dir.path(), name, libraries);
    let socket = dir.path().join("u");
    let listener = UnixListener::bind(&socket).unwrap();
    let peer = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 6]).unwrap();
        stream.write_all(b"from the peer").unwrap();
        // Until the guest has gone: a peer that closes hangs up.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let fifo = format!("unix={},connect", socket.display());
    let script = format!("./{name} && exit 3");
    let share = dir.path().display().to_string();
    let options = ["--fifo", &fifo, "--share", &share];
    let (stdout, json) = trace(dir.path(), &options, &script);
    assert_eq!(stdout, "from the peer\n");
    peer.join().unwrap();
    let chains = json["chains"].as_array().unwrap();
    let chains: Vec<_> = chains.iter().map(|chain| steps(&json, chain)).collect();
    let from_peer: Vec<_> = chains
        .iter()
        .filter(|steps| steps[0].0 == "endpoint-read")
        .collect();
    assert_eq!(from_peer.len(), 1, "{chains:?}");
    has_in_order(from_peer[0], path);
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_byte_of_a_peer_is_linked_to_the_completion_of_native_aio() {
    let path = [
        "endpoint-read",
        "push",
        "receive",
        "read",
        "request_complete",
    ];
    a_peers_byte_completes("aio", &["-laio"], &path);
}

#[test]
#[ignore = "boots a machine: run by `cargo lab test`"]
fn a_byte_of_a_peer_is_linked_to_the_completion_of_io_uring() {
    let path = [
        "endpoint-read",
        "push",
        "receive",
        "read",
        "io_uring_complete",
    ];
    a_peers_byte_completes("uring", &["-luring"], &path);
}

#[test]
fn what_cannot_be_traced_is_said_before_anything_is_started() {
    let cache = tempfile::tempdir().unwrap();
    for (args, part) in [
        (&["trace"][..], "<CMD>"),
        (&["trace", "-o", "t.png", "--", "true"], ".pftrace"),
        (
            &["trace", "-o", "/no/such/t.json", "--", "true"],
            "no folder /no/such",
        ),
        (&["trace", "--fifo", "none", "--", "true"], "no device"),
    ] {
        let output = command(args)
            .env("XDG_CACHE_HOME", cache.path())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(part), "{args:?}: {stderr}");
    }
}
