// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Messages of virtio-fifo: requests, tx and rx messages, events, and what the driver knows of the streams.

use std::time::Duration;
use std::time::Instant;

use virtio_fifo_protocol::virtio_fifo::CONTROL_QUEUE;
use virtio_fifo_protocol::virtio_fifo::CTRL_CLEAR;
use virtio_fifo_protocol::virtio_fifo::CTRL_GET_STATE;
use virtio_fifo_protocol::virtio_fifo::CTRL_OK;
use virtio_fifo_protocol::virtio_fifo::CtrlRequest;
use virtio_fifo_protocol::virtio_fifo::CtrlResponse;
use virtio_fifo_protocol::virtio_fifo::EVENT_QUEUE;
use virtio_fifo_protocol::virtio_fifo::RxHeader;
use virtio_fifo_protocol::virtio_fifo::State;
use virtio_fifo_protocol::virtio_fifo::TxHeader;
use virtio_fifo_protocol::virtio_fifo::rx_queue;
use virtio_fifo_protocol::virtio_fifo::tx_queue;

use crate::Driver;
use crate::PATIENCE_MS;

/// What the driver knows of the streams of one FIFO.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stream {
    /// Tx bytes sent.
    pub sent: u64,
    /// Rx bytes received.
    pub received: u64,
    /// Rx bytes the application has taken, whether reported or not.
    pub consumed: u64,
    /// The highest `tx_limit` heard of.
    pub tx_limit: u64,
}

impl Driver {
    /// A control request; `None` if its chain was refused.
    pub fn try_control(&mut self, kind: u32, fifo: u32, tx_sent: u64) -> Option<CtrlResponse> {
        let request = CtrlRequest {
            kind,
            fifo,
            tx_sent,
        };
        let request = self.readable(&request.to_bytes());
        let response = self.writable(CtrlResponse::LEN as u32);
        self.add(CONTROL_QUEUE, &[request, response]);
        self.notify(CONTROL_QUEUE);
        let (_, used) = self.wait_used(CONTROL_QUEUE);
        if used == 0 {
            return None;
        }
        assert_eq!(used as usize, CtrlResponse::LEN);
        let bytes = self.read(response.at, CtrlResponse::LEN);
        Some(CtrlResponse::from_bytes(bytes.try_into().unwrap()))
    }

    /// A control request that is answered.
    pub fn control(&mut self, kind: u32, fifo: u32, tx_sent: u64) -> CtrlResponse {
        self.try_control(kind, fifo, tx_sent).expect("refused")
    }

    /// Returns when the worker has looked at everything announced before. A new memory table waits
    /// for the worker; the worker may have taken that before the kicks, but the second one only
    /// after the batch of events that they are in.
    pub fn barrier(&mut self) {
        self.share_memory();
        self.share_memory();
    }

    /// The state of a FIFO.
    pub fn state(&mut self, fifo: u16) -> State {
        let response = self.control(CTRL_GET_STATE, fifo.into(), 0);
        assert_eq!(response.status, CTRL_OK);
        response.state
    }

    /// Asks for the state of a FIFO until it is as wanted.
    pub fn wait_state(&mut self, fifo: u16, wanted: impl Fn(&State) -> bool) -> State {
        let deadline = Instant::now() + Duration::from_millis(PATIENCE_MS.into());
        loop {
            let state = self.state(fifo);
            if wanted(&state) {
                return state;
            }
            assert!(
                Instant::now() < deadline,
                "no such state in time: {state:?}"
            );
            std::thread::yield_now();
        }
    }

    /// Clears a FIFO; the state afterwards.
    pub fn clear(&mut self, fifo: u16) -> State {
        let sent = self.streams[usize::from(fifo)].sent;
        let response = self.control(CTRL_CLEAR, fifo.into(), sent);
        assert_eq!(response.status, CTRL_OK);
        let stream = &mut self.streams[usize::from(fifo)];
        stream.consumed = response.state.rx_floor;
        stream.received = response.state.rx_floor;
        response.state
    }

    /// Makes a tx message available and waits for nothing.
    pub fn post_tx(&mut self, fifo: u16, header: TxHeader, payload: &[u8]) -> u16 {
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(payload);
        let part = self.readable(&bytes);
        self.add(tx_queue(fifo), &[part])
    }

    /// The header that the specification wants next.
    pub fn tx_header(&self, fifo: u16) -> TxHeader {
        let stream = self.streams[usize::from(fifo)];
        TxHeader {
            offset: stream.sent,
            rx_consumed: stream.consumed,
        }
    }

    /// Sends `payload` as one message, reports what was consumed, waits until it is accepted.
    pub fn send(&mut self, fifo: u16, payload: &[u8]) {
        self.post_tx(fifo, self.tx_header(fifo), payload);
        self.streams[usize::from(fifo)].sent += payload.len() as u64;
        self.notify(tx_queue(fifo));
        let (_, used) = self.wait_used(tx_queue(fifo));
        assert_eq!(used, 0, "used length of a tx buffer");
    }

    /// Sends a message as it is and waits until it is used.
    pub fn send_raw(&mut self, fifo: u16, header: TxHeader, payload: &[u8]) {
        self.post_tx(fifo, header, payload);
        self.notify(tx_queue(fifo));
        assert_eq!(self.wait_used(tx_queue(fifo)).1, 0);
    }

    /// Posts an rx buffer with room for `payload` bytes.
    pub fn post_rx(&mut self, fifo: u16, payload: u32) {
        let part = self.writable(RxHeader::LEN as u32 + payload);
        let head = self.add(rx_queue(fifo), &[part]);
        self.posted
            .insert((rx_queue(fifo), head), (part.at, part.len));
        self.notify(rx_queue(fifo));
    }

    /// Waits for the next rx message; its bytes count as consumed.
    pub fn receive(&mut self, fifo: u16) -> (RxHeader, Vec<u8>) {
        let used = self.wait_used(rx_queue(fifo));
        self.received(fifo, used)
    }

    /// The next rx message if there is one.
    pub fn try_receive(&mut self, fifo: u16) -> Option<(RxHeader, Vec<u8>)> {
        let used = self.used(rx_queue(fifo))?;
        Some(self.received(fifo, used))
    }

    fn received(&mut self, fifo: u16, (head, used): (u16, u32)) -> (RxHeader, Vec<u8>) {
        let (at, len) = self.posted.remove(&(rx_queue(fifo), head)).unwrap();
        // DEV-13: never an empty payload, never beyond the buffer.
        assert!(used as usize > RxHeader::LEN && used <= len, "{used}");
        let mut bytes = self.read(at, used as usize);
        let payload = bytes.split_off(RxHeader::LEN);
        let header = RxHeader::from_bytes(bytes.try_into().unwrap());
        let stream = &mut self.streams[usize::from(fifo)];
        // DEV-14
        assert_eq!(header.offset, stream.received, "offset of an rx message");
        stream.received += payload.len() as u64;
        stream.consumed = stream.received;
        // DEV-20
        assert!(header.tx_limit >= stream.tx_limit, "tx_limit decreased");
        stream.tx_limit = header.tx_limit;
        (header, payload)
    }

    /// Sends all of `bytes`, in pieces for which there is credit.
    pub fn send_all(&mut self, fifo: u16, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let sent = self.streams[usize::from(fifo)].sent;
            let state = self.wait_state(fifo, |state| state.tx_limit > sent);
            let len = (state.tx_limit - sent).min(bytes.len() as u64);
            let (now, later) = bytes.split_at(len as usize);
            self.send(fifo, now);
            bytes = later;
        }
    }

    /// Reads exactly `len` bytes, and reports them.
    pub fn read_exact(&mut self, fifo: u16, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let most = (len - bytes.len()).min(60_000);
            bytes.extend(self.read_some(fifo, most as u32));
            self.send(fifo, &[]);
        }
        bytes
    }

    /// Posts an rx buffer and waits for what comes in it.
    pub fn read_some(&mut self, fifo: u16, payload: u32) -> Vec<u8> {
        self.post_rx(fifo, payload);
        self.receive(fifo).1
    }

    /// Posts an event buffer.
    pub fn post_event(&mut self) {
        let part = self.writable(State::LEN as u32);
        let head = self.add(EVENT_QUEUE, &[part]);
        self.posted.insert((EVENT_QUEUE, head), (part.at, part.len));
        self.notify(EVENT_QUEUE);
    }

    /// Waits for the next event.
    pub fn wait_event(&mut self) -> State {
        let (head, used) = self.wait_used(EVENT_QUEUE);
        self.event(head, used)
    }

    /// The next event if there is one.
    pub fn try_event(&mut self) -> Option<State> {
        let (head, used) = self.used(EVENT_QUEUE)?;
        Some(self.event(head, used))
    }

    fn event(&mut self, head: u16, used: u32) -> State {
        assert_eq!(used as usize, State::LEN);
        let (at, _) = self.posted.remove(&(EVENT_QUEUE, head)).unwrap();
        State::from_bytes(self.read(at, State::LEN).try_into().unwrap())
    }

    /// As [`Driver::check_serves`] where the control queue is out of order.
    pub fn check_serves_without_control(&mut self, fifo: u16) {
        let bytes = format!("still here {fifo}").into_bytes();
        self.send(fifo, &bytes);
        assert_eq!(self.read_some(fifo, 100), bytes);
        self.send(fifo, &[]);
    }

    /// Proves that a FIFO serves: bytes go in and come out, and nothing is left.
    pub fn check_serves(&mut self, fifo: u16) {
        let bytes = format!("still here {fifo}").into_bytes();
        self.send(fifo, &bytes);
        assert_eq!(self.read_some(fifo, 100), bytes);
        self.send(fifo, &[]);
        let state = self.state(fifo);
        assert_eq!(state.rx_floor, state.rx_end);
    }
}
