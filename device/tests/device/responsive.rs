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

/// Most time of the median answer.
const IN_TIME: Duration = Duration::from_millis(50);
/// Answers measured. Half of them may be late because the machine is busy with other things.
const ANSWERS: usize = 31;
/// Only a hang takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the guest makes available over and over.
#[derive(Clone, Copy, Debug)]
enum Flood {
    /// Chains that are refused at their first descriptor.
    Empty,
    /// tx chains of all descriptors that there are, which are walked to their end.
    Long,
    /// The same, and requests to clear the FIFO they belong to, each of which has the device process
    /// the whole tx queue first (DEV-22).
    LongAndClear,
}

/// One chain of all descriptors of `queue`, each of which is read by the device.
fn link_all(driver: &mut Driver, queue: u16) {
    let count = driver.size(queue);
    let part = driver.readable(&[0; 64]);
    let table = driver.table(queue);
    for index in 0..count {
        let (flags, next) = if index + 1 < count {
            (NEXT, index + 1)
        } else {
            (0, 0)
        };
        driver.put_descriptor(table, index, part, flags, next);
    }
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
            link_all(&mut driver, tx_queue(fifo));
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
    let served = driver.used_count(tx_queue(0)) != at;
    drop(flooding);
    times.sort();
    let (median, longest) = (times[ANSWERS / 2], times[ANSWERS - 1]);
    println!("{flood:?}, {kind}: median {median:?}, longest {longest:?}");
    assert!(served, "the flood did not go on");
    assert!(median < IN_TIME, "median {median:?}, longest {longest:?}");
}
