// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The event loop beside a guest that does its worst: the control socket answers in time.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::time::Instant;

use rstest::rstest;
use serde_json::Value;
use virtio_fifo_protocol::virtio_fifo::CONTROL_QUEUE;
use virtio_fifo_protocol::virtio_fifo::CTRL_CLEAR;
use virtio_fifo_protocol::virtio_fifo::CtrlRequest;
use virtio_fifo_protocol::virtio_fifo::CtrlResponse;
use virtio_fifo_protocol::virtio_fifo::EVENT_QUEUE;
use virtio_fifo_protocol::virtio_fifo::MAX_FIFOS;
use virtio_fifo_protocol::virtio_fifo::rx_queue;
use virtio_fifo_protocol::virtio_fifo::tx_queue;

use crate::common::Driver;
use crate::common::Host;
use crate::common::NEXT;

/// Most time of an answer.
const IN_TIME: Duration = Duration::from_millis(50);
/// Answers measured. The fastest has to be in time: all others may be late because the machine is busy, as here a device without
/// optimisation beside other tests is. What blocks the loop makes all of them late; how long it waits for a FIFO is counted, not
/// timed, in [`a_fifo_that_is_flooded_can_be_had_after_a_chain`].
const ANSWERS: usize = 32;
/// Descriptors of a long chain.
const LONG: u16 = 32;
/// Only a hang takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the guest makes available over and over.
#[derive(Clone, Copy, Debug)]
enum Flood {
    /// Chains that are refused at their first descriptor.
    Empty,
    /// tx chains of many descriptors, which are walked to their end.
    Long,
    /// The same, and requests to clear the FIFO they belong to, each of which has the device process
    /// the whole tx queue first (DEV-22).
    LongAndClear,
}

/// Requests to clear FIFO 0, of descriptors 0 and 1.
fn link_clear(driver: &mut Driver) {
    let request = CtrlRequest {
        kind: CTRL_CLEAR,
        fifo: 0,
        tx_sent: 0,
    };
    let request = driver.readable(&request.to_bytes());
    let response = driver.writable(CtrlResponse::LEN as u32);
    let table = driver.table(CONTROL_QUEUE);
    driver.put_descriptor(table, 0, request, NEXT, 1);
    driver.put_descriptor(table, 1, response, 0, 0);
}

/// Asks for the status; how long the answer took, and the answer.
fn status(client: &mut BufReader<UnixStream>) -> (Duration, Value) {
    let asked = Instant::now();
    client
        .get_mut()
        .write_all(b"{\"command\":\"status\"}\n")
        .unwrap();
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    (asked.elapsed(), serde_json::from_str(&line).unwrap())
}

/// DEV-26: every queue of the largest device is full all the time, and `status`, which looks at every
/// FIFO, is answered as if nothing were.
#[rstest]
fn status_is_answered_in_time_while_every_fifo_is_flooded(
    #[values(Flood::Empty, Flood::Long, Flood::LongAndClear)] flood: Flood,
    #[values("loopback", "null")] kind: &str,
) {
    let specs = vec![kind; usize::from(MAX_FIFOS)];
    let host = Host::with_control(&specs);
    let mut driver = host.driver();
    let fifos = 0..MAX_FIFOS;
    if !matches!(flood, Flood::Empty) {
        for fifo in fifos.clone() {
            driver.link_long(tx_queue(fifo), LONG);
        }
    }
    if matches!(flood, Flood::LongAndClear) {
        link_clear(&mut driver);
    }
    let stream = UnixStream::connect(host.control()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut client = BufReader::new(stream);
    client.read_line(&mut String::new()).unwrap();
    let (_, before) = status(&mut client);
    assert_eq!(before["fifos"].as_array().unwrap().len(), specs.len());

    let queues = fifos.flat_map(|fifo| [tx_queue(fifo), rx_queue(fifo)]);
    let queues: Vec<_> = [CONTROL_QUEUE, EVENT_QUEUE]
        .into_iter()
        .chain(queues)
        .collect();
    let flooding = driver.flood_all(&queues);
    // Every FIFO has seen some of it.
    for fifo in 0..MAX_FIFOS {
        driver.wait_interrupt(tx_queue(fifo));
    }
    let at = driver.used_count(tx_queue(0));
    let mut times: Vec<_> = (0..ANSWERS).map(|_| status(&mut client).0).collect();
    wait_for_more(&driver, at);
    drop(flooding);
    times.sort();
    assert!(times[0] < IN_TIME, "{times:?}");
}

/// Waits until more tx buffers of FIFO 0 have been used than `at`.
fn wait_for_more(driver: &Driver, at: u16) {
    let begun = Instant::now();
    while driver.used_count(tx_queue(0)) == at {
        assert!(begun.elapsed() < PATIENCE, "the flood does not go on");
        std::thread::yield_now();
    }
}

/// DEV-26: who waits for a FIFO, as the event loop does, waits for a chain and not for a pass of 128. Counted in chains, for
/// time depends on the machine; the median, for the thread may lose its CPU between count and lock.
#[test]
fn a_fifo_that_is_flooded_can_be_had_after_a_chain() {
    let host = Host::new(&["loopback"]);
    let mut driver = host.driver();
    driver.link_long(tx_queue(0), LONG);
    let flooding = driver.flood(tx_queue(0));
    driver.wait_interrupt(tx_queue(0));
    let mut waited: Vec<_> = (0..201)
        .map(|_| {
            // Within a pass, where the lock is taken.
            let before = driver.used_count(tx_queue(0));
            wait_for_more(&driver, before);
            let before = driver.used_count(tx_queue(0));
            let fifo = host.device.fifo(0).unwrap();
            let after = driver.used_count(tx_queue(0));
            drop(fifo);
            after.wrapping_sub(before)
        })
        .collect();
    drop(flooding);
    waited.sort();
    assert!(
        waited[waited.len() / 2] <= 4,
        "chains waited for: {waited:?}"
    );
}
