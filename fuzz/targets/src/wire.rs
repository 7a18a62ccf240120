// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The wire format: any bytes are a message, and a message survives the way to bytes and back.

use virtio_fifo_protocol::virtio_fifo::Config;
use virtio_fifo_protocol::virtio_fifo::CtrlRequest;
use virtio_fifo_protocol::virtio_fifo::CtrlResponse;
use virtio_fifo_protocol::virtio_fifo::RxHeader;
use virtio_fifo_protocol::virtio_fifo::State;
use virtio_fifo_protocol::virtio_fifo::TxHeader;

use crate::input::Input;

/// Converts to and fro; `reserved` are the bytes that have no meaning and become 0.
macro_rules! check {
    ($message:ident, $bytes:expr, $reserved:expr) => {
        let message = $message::from_bytes($bytes);
        let mut expected = $bytes;
        expected[$reserved].fill(0);
        assert_eq!(message.to_bytes(), expected);
        assert_eq!($message::from_bytes(expected), message);
    };
}

/// A byte that says which message, then the message.
pub fn wire(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() % 6 {
        0 => {
            check!(Config, array(input), 0..0);
        }
        1 => {
            check!(TxHeader, array(input), 0..0);
        }
        2 => {
            check!(RxHeader, array(input), 0..0);
        }
        3 => {
            check!(State, array(input), 12..16);
        }
        4 => {
            check!(CtrlRequest, array(input), 0..0);
        }
        _ => {
            let mut bytes = array(input);
            // The state's reserved word; the response's own is checked.
            bytes[20..24].fill(0);
            check!(CtrlResponse, bytes, 4..8);
        }
    }
}

fn array<const N: usize>(mut input: Input<'_>) -> [u8; N] {
    std::array::from_fn(|_| input.u8())
}
