// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The driver's tracepoints: what a byte, a signal and a request leave in the kernel's trace, in this order.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use globalfifo_guest_tests::aio::{Context, Iocb};
use globalfifo_guest_tests::fifo::{CAPACITY, Fifo};
use globalfifo_guest_tests::harness::{self, SOON, Test, eventually};
use globalfifo_guest_tests::trace::{Event, Trace};
use globalfifo_guest_tests::{check, check_eq, signals, system};
use nix::errno::Errno;
use nix::libc::{self, O_ASYNC, O_NONBLOCK};

const TESTS: &[Test] = &[
    ("bytes_are_traced_from_write_to_read", bytes),
    ("a_signal_is_traced_with_its_band_and_files", signal),
    ("a_wake_up_is_traced_with_its_events", wake_up),
    ("a_read_request_is_traced_until_its_completion", request),
    (
        "a_write_request_is_traced_until_its_acceptance",
        write_request,
    ),
    ("a_cancelled_request_is_traced", cancel),
    ("a_tracepoint_that_is_off_records_nothing", off),
];

fn main() -> ExitCode {
    harness::main(TESTS)
}

/// The group, which is all events of the driver.
const GROUP: (&str, &str) = ("globalfifo", "");

/// Names of the events, without what they have in common, and their fields.
type Traced = (String, BTreeMap<String, String>);

/// `virtio3 fifo=0 position=0 bytes=6`
fn split(event: &Event) -> Result<Traced> {
    let name = event.name.strip_prefix("globalfifo_");
    let name = name.with_context(|| format!("an event of somebody else: {}", event.name))?;
    let mut words = event.text.split(' ');
    check_eq!(
        words.next().map(str::to_owned),
        Some(system::device_name()?)
    );
    let fields = words.map(|word| {
        let (field, value) = word.split_once('=').with_context(|| event.text.clone())?;
        Ok((field.to_owned(), value.to_owned()))
    });
    Ok((name.to_owned(), fields.collect::<Result<_>>()?))
}

/// What the driver did, which ends when `last` is there.
fn traced(trace: &Trace, last: &str) -> Result<Vec<Traced>> {
    let mut all = Vec::new();
    eventually(&format!("{last} in the trace"), || {
        all = trace
            .events()?
            .iter()
            .map(split)
            .collect::<Result<Vec<_>>>()?;
        Ok(all.iter().any(|(name, _)| name == last))
    })?;
    Ok(all)
}

/// Looks for events with these fields, in this order; others may come between. Their fields.
fn in_order(all: &[Traced], expected: &[(&str, &str)]) -> Result<Vec<BTreeMap<String, String>>> {
    let mut rest = all.iter();
    expected
        .iter()
        .map(|(name, fields)| {
            let has_all = |of: &BTreeMap<String, String>| {
                fields.split_whitespace().all(|field| {
                    field
                        .split_once('=')
                        .is_some_and(|(name, value)| of.get(name).is_some_and(|is| is == value))
                })
            };
            let found = rest.find(|(other, of)| other == name && has_all(of));
            let (_, fields) = found
                .with_context(|| format!("not there or not in order: {name} {fields}: {all:#?}"))?;
            Ok(fields.clone())
        })
        .collect()
}

fn number(fields: &BTreeMap<String, String>, name: &str) -> Result<i64> {
    let text = fields
        .get(name)
        .with_context(|| format!("no {name}: {fields:?}"))?;
    text.parse().with_context(|| format!("{name}={text}"))
}

fn bytes() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let trace = Trace::start(&[GROUP])?;
    fifo.write_all(b"hello")?;
    // So the bytes come by an interrupt, not by a reader who looks.
    fifo.wait_level(5)?;
    check_eq!(fifo.read(100)?, b"hello");
    let all = traced(&trace, "read")?;
    let events = in_order(
        &all,
        &[
            ("write", "fifo=0 bytes=5"),
            ("send", "fifo=0 messages=1"),
            ("interrupt", "queue=2"),
            ("receive", "fifo=0 messages=1"),
            ("read", "fifo=0 bytes=5"),
        ],
    )?;
    let [write, send, _, receive, read] = events.as_slice() else {
        unreachable!("as many as expected");
    };
    let begin = number(write, "position")?;
    check_eq!(number(send, "position")?, begin + 5);
    let read_from = number(read, "position")?;
    check_eq!(number(receive, "position")?, read_from + 5);
    // The loop's streams have the same positions.
    check_eq!(read_from, begin);
    // The device has the message once its buffer is used.
    let accepted = all.iter().filter(|(name, _)| name == "accept");
    for (_, fields) in accepted {
        check!(number(fields, "tx_accepted")? <= begin + 5);
    }
    Ok(())
}

fn signal() -> Result<()> {
    signals::block_sigio()?;
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let other = Fifo::open(O_NONBLOCK)?;
    let trace = Trace::start(&[GROUP])?;
    fifo.enable_signals(None)?;
    other.enable_signals(None)?;
    fifo.write(b"x")?;
    check!(signals::take(libc::SIGIO, SOON)?.is_some());
    let all = traced(&trace, "signal")?;
    in_order(
        &all,
        &[
            ("fasync", "fifo=0 on=1"),
            ("fasync", "fifo=0 on=1"),
            ("write", "bytes=1"),
            ("receive", "messages=1"),
            ("signal", "fifo=0 band=POLL_IN files=2"),
        ],
    )?;
    other.set_flags(O_ASYNC, false)?;
    drop(fifo);
    let all = traced(&trace, "signal")?;
    let off = all
        .iter()
        .filter(|(name, of)| name == "fasync" && of.get("on").is_some_and(|on| on == "0"));
    check_eq!(off.count(), 2);
    Fifo::open(0)?.clear()?;
    Ok(())
}

fn wake_up() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let trace = Trace::start(&[GROUP])?;
    fifo.write(b"x")?;
    let all = traced(&trace, "wake")?;
    in_order(
        &all,
        &[("receive", ""), ("wake", "fifo=0 events=IN|RDNORM")],
    )?;
    fifo.clear()?;
    Ok(())
}

fn request() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(1)?;
    let mut room = [0; 8];
    let mut read = Iocb::read(&fifo, &mut room);
    let trace = Trace::start(&[GROUP])?;
    context.submit(&mut read)?;
    fifo.write_all(b"12345")?;
    check_eq!(context.event()?.res, 5);
    let all = traced(&trace, "request_complete")?;
    let events = in_order(
        &all,
        &[
            ("request_queue", "fifo=0 want=data"),
            ("write", "bytes=5"),
            ("receive", ""),
            ("request_serve", "result=5"),
            ("request_complete", "result=5"),
        ],
    )?;
    same_request(&events, &[0, 3, 4])
}

/// The events with these numbers are of one request.
fn same_request(events: &[BTreeMap<String, String>], of: &[usize]) -> Result<()> {
    let ids = of
        .iter()
        .map(|n| number(events.get(*n).context("no event")?, "id"));
    let mut ids = ids.collect::<Result<Vec<_>>>()?;
    ids.dedup();
    check_eq!(ids.len(), 1);
    Ok(())
}

fn write_request() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    check_eq!(fifo.fill()?, CAPACITY);
    fifo.wait_level(CAPACITY)?;
    let waiting = Fifo::open(0)?;
    let context = Context::new(1)?;
    let mut write = Iocb::write(&waiting, b"later");
    let trace = Trace::start(&[GROUP])?;
    context.submit(&mut write)?;
    check_eq!(fifo.read(CAPACITY)?.len(), CAPACITY);
    check_eq!(context.event()?.res, 5);
    let all = traced(&trace, "request_complete")?;
    let request = in_order(
        &all,
        &[
            ("request_queue", "fifo=0 want=space"),
            ("request_serve", "result=5"),
            ("request_complete", "result=5"),
        ],
    )?;
    same_request(&request, &[0, 1, 2])?;
    // The reader's own event comes when it likes: what it made room for may be on its way before.
    in_order(&all, &[("request_queue", ""), ("read", "bytes=4096")])?;
    let sent = in_order(
        &all,
        &[
            ("request_queue", ""),
            ("write", "bytes=5"),
            ("request_serve", ""),
            ("send", "messages=1"),
            ("request_complete", ""),
        ],
    )?;
    let [_, write, _, send, _] = sent.as_slice() else {
        unreachable!("as many as expected");
    };
    let end = number(write, "position")? + 5;
    check_eq!(number(send, "position")?, end);
    let accepted = ("accept", format!("tx_accepted={end}"));
    in_order(
        &all,
        &[(accepted.0, &accepted.1), ("request_complete", "result=5")],
    )?;
    fifo.clear()?;
    Ok(())
}

fn cancel() -> Result<()> {
    let fifo = Fifo::open_empty(0)?;
    let context = Context::new(1)?;
    let mut room = [0; 8];
    let mut read = Iocb::read(&fifo, &mut room);
    let trace = Trace::start(&[GROUP])?;
    context.submit(&mut read)?;
    check_eq!(context.cancel(&mut read), Err(Errno::EINPROGRESS));
    let canceled = -i64::from(libc::ECANCELED);
    check_eq!(context.event()?.res, canceled);
    let all = traced(&trace, "request_complete")?;
    let result = format!("result={canceled}");
    let events = in_order(
        &all,
        &[
            ("request_queue", "want=data"),
            ("request_cancel", "fifo=0"),
            ("request_complete", &result),
        ],
    )?;
    same_request(&events, &[0, 1, 2])
}

fn off() -> Result<()> {
    let fifo = Fifo::open_empty(O_NONBLOCK)?;
    let trace = Trace::start(&[("globalfifo/globalfifo_read", "")])?;
    fifo.write(b"x")?;
    fifo.wait_level(1)?;
    fifo.read(1)?;
    let all = traced(&trace, "read")?;
    check_eq!(all.len(), 1);
    Ok(())
}
