// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! docs/example.md: what a driver and the device write into each other's buffers, byte by byte, from
//! initialisation to a hang-up. Made by driving the device.

use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use virtio_fifo_protocol::virtio_fifo::CONTROL_QUEUE;
use virtio_fifo_protocol::virtio_fifo::CTRL_CLEAR;
use virtio_fifo_protocol::virtio_fifo::CTRL_GET_STATE;
use virtio_fifo_protocol::virtio_fifo::CtrlRequest;
use virtio_fifo_protocol::virtio_fifo::CtrlResponse;
use virtio_fifo_protocol::virtio_fifo::EVENT_QUEUE;
use virtio_fifo_protocol::virtio_fifo::RxHeader;
use virtio_fifo_protocol::virtio_fifo::STATE_HANGUP;
use virtio_fifo_protocol::virtio_fifo::State;
use virtio_fifo_protocol::virtio_fifo::TxHeader;
use virtio_fifo_protocol::virtio_fifo::rx_queue;
use virtio_fifo_protocol::virtio_fifo::tx_queue;

use crate::common::Driver;
use crate::common::Host;
use crate::common::Part;

/// A message's fields in order, and their bytes. Bytes behind them are payload.
type Fields = &'static [(&'static str, usize)];

const CONFIG: Fields = &[("magic", 4), ("version", 4), ("num_fifos", 4)];
const REQUEST: Fields = &[("type", 4), ("fifo", 4), ("tx_sent", 8)];
const RESPONSE: Fields = &[
    ("status", 4),
    ("reserved", 4),
    ("fifo", 4),
    ("flags", 4),
    ("capacity", 4),
    ("reserved", 4),
    ("rx_floor", 8),
    ("rx_end", 8),
    ("tx_accepted", 8),
    ("tx_limit", 8),
];
/// The state in a response.
const STATE: Fields = RESPONSE.split_at(2).1;
const TX: Fields = &[("offset", 8), ("rx_consumed", 8)];
const RX: Fields = &[("offset", 8), ("rx_floor", 8), ("tx_limit", 8)];

/// A driver that writes down what it does.
struct Recorder {
    driver: Driver,
    page: String,
}

impl Recorder {
    /// Begins a step: its heading and what happens in it.
    fn step(&mut self, title: &str, text: &str) {
        write!(self.page, "\n## {title}\n{text}\n").unwrap();
    }

    /// Writes down `bytes` of `what`.
    fn show(&mut self, what: &str, fields: Fields, bytes: &[u8]) {
        let mut lines = String::new();
        let mut rest = bytes;
        for (name, len) in fields {
            let (field, behind) = rest.split_at(*len);
            rest = behind;
            let mut value = [0; 8];
            value[..*len].copy_from_slice(field);
            let value = u64::from_le_bytes(value);
            writeln!(lines, "{:<24}{name} = {value}", hex(field)).unwrap();
        }
        if !rest.is_empty() {
            let payload = rest.escape_ascii();
            writeln!(lines, "{:<24}payload \"{payload}\"", hex(rest)).unwrap();
        }
        let len = bytes.len();
        write!(self.page, "\n{what}, {len} bytes:\n\n```\n{lines}```\n").unwrap();
    }

    /// The driver makes a chain of `parts` available and notifies; the device uses it. Its used length.
    fn exchange(&mut self, queue: u16, parts: &[Part]) -> u32 {
        let head = self.driver.add(queue, parts);
        self.driver.notify(queue);
        let (used, len) = self.driver.wait_used(queue);
        assert_eq!(used, head);
        len
    }

    /// What the device has written into `part`.
    fn written(&self, part: Part, len: u32) -> Vec<u8> {
        assert!(len <= part.len);
        self.driver.read(part.at, len as usize)
    }

    fn control(&mut self, kind: u32, tx_sent: u64) {
        let fifo = 0;
        let request = CtrlRequest {
            kind,
            fifo,
            tx_sent,
        };
        let request = request.to_bytes();
        let readable = self.driver.readable(&request);
        let writable = self.driver.writable(CtrlResponse::LEN as u32);
        let len = self.exchange(CONTROL_QUEUE, &[readable, writable]);
        self.show("The driver's readable part in controlq", REQUEST, &request);
        let response = self.written(writable, len);
        self.show("The device writes", RESPONSE, &response);
    }

    fn send(&mut self, header: TxHeader, payload: &[u8]) {
        let bytes = [&header.to_bytes()[..], payload].concat();
        let part = self.driver.readable(&bytes);
        let used = self.exchange(tx_queue(0), &[part]);
        self.show("The driver's buffer in tx0", TX, &bytes);
        writeln!(
            self.page,
            "\nThe device marks it used, with used length {used}: it has accepted it."
        )
        .unwrap();
    }

    /// Posts a buffer for the device to fill, in `queue`.
    fn post(&mut self, queue: u16, len: usize) -> Part {
        let part = self.driver.writable(len as u32);
        self.driver.add(queue, &[part]);
        self.driver.notify(queue);
        part
    }

    fn wait_written(&mut self, queue: u16, part: Part) -> Vec<u8> {
        let (_, len) = self.driver.wait_used(queue);
        self.written(part, len)
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.join(" ")
}

#[test]
fn the_example_in_bytes_is_what_the_device_does() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("peer");
    let host = Host::new(&[&format!("unix={},capacity=4096", socket.display())]);
    let driver = host.driver();
    let mut peer = UnixStream::connect(&socket).unwrap();
    let mut all = Recorder {
        driver,
        page: String::from(
            "<!-- SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause -->\n\
             <!-- Made by driving the device: `UPDATE_PAGES=1 cargo test -p vhost-device-fifo --test device example`. -->\n\
             # The device in bytes\n\n\
             What a driver and the device write into each other's buffers, from initialisation to a hang-up. \
             [The specification](virtio-fifo.md) explains the fields. All numbers are little-endian.\n\n\
             The device has one FIFO, `--fifo unix=PATH,capacity=4096`, and a program on the host is connected to it. \
             Its virtqueues are controlq (0), eventq (1), rx0 (2) and tx0 (3).\n",
        ),
    };
    all.driver.wait_state(0, |state| state.flags == 0);

    all.step("Initialise", "The driver reads configuration space, and then where the FIFO stands (sections 4, 5 and 6.5).");
    let config = all.driver.config(0, 12);
    all.show("Configuration space", CONFIG, &config);
    all.control(CTRL_GET_STATE, 0);
    let events = all.post(EVENT_QUEUE, State::LEN);
    let first = all.post(rx_queue(0), RxHeader::LEN + 64);
    let second = all.post(rx_queue(0), RxHeader::LEN + 64);
    write!(
        all.page,
        "\nIt posts one buffer of 48 bytes in eventq and two of 88 bytes in rx0.\n"
    )
    .unwrap();

    all.step(
        "Write",
        "A program in the guest writes \"hello\\n\" (section 6.2).",
    );
    let (offset, rx_consumed) = (0, 0);
    all.send(
        TxHeader {
            offset,
            rx_consumed,
        },
        b"hello\n",
    );
    let mut got = [0; 6];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello\n");
    all.driver.wait_state(0, |state| state.tx_limit == 6 + 4096);

    all.step(
        "Read",
        "The host's program has read that, and writes \"hi\\n\". The device fills the first buffer of rx0, and interrupts (section 6.3).",
    );
    peer.write_all(b"hi\n").unwrap();
    let message = all.wait_written(rx_queue(0), first);
    all.show("The device writes", RX, &message);
    write!(
        all.page,
        "\nThe host's program has made room: six more bytes may be sent. Once a program in the guest has read all three bytes, the driver says so \
         in a message of its own; with something to send, it would have been in that message.\n"
    )
    .unwrap();
    let (offset, rx_consumed) = (6, 3);
    all.send(
        TxHeader {
            offset,
            rx_consumed,
        },
        b"",
    );

    all.step(
        "Clear",
        "The host's program writes \"lost\", which the device puts into the second buffer of rx0. Before anybody reads it, a program in the guest \
         clears the FIFO (section 6.5).",
    );
    peer.write_all(b"lost").unwrap();
    let message = all.wait_written(rx_queue(0), second);
    all.show("The device writes", RX, &message);
    all.control(CTRL_CLEAR, 6);
    write!(
        all.page,
        "\nAll below `rx_floor` is discarded: the driver drops the four bytes that it holds, and takes the next message at offset 7.\n"
    )
    .unwrap();

    all.step("Hang-up", "The host's program closes its socket. The device fills the buffer in eventq (section 6.4).");
    drop(peer);
    let event = all.wait_written(EVENT_QUEUE, events);
    all.show("The device writes", STATE, &event);
    let state = State::from_bytes(event.try_into().unwrap());
    assert_eq!(
        (state.flags, state.rx_floor, state.rx_end),
        (STATE_HANGUP, 7, 7)
    );
    write!(
        all.page,
        "\n`flags` has STATE_HANGUP: all up to `rx_end` is read, so a read gives end of file, and a write fails with EPIPE.\n"
    )
    .unwrap();

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/example.md");
    if std::env::var_os("UPDATE_PAGES").is_some() {
        fs::write(&path, &all.page).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == all.page,
        "docs/example.md is behind: UPDATE_PAGES=1 cargo test -p vhost-device-fifo --test device example\n{}",
        all.page
    );
}
