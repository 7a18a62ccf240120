// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device for tests of what shows one.

use crate::control::protocol::DeviceStatus;
use crate::control::protocol::DirectionStatus;
use crate::control::protocol::FaultStatus;
use crate::control::protocol::FifoStatus;
use crate::control::protocol::HostSide;
use crate::control::protocol::Status;

/// One with so many FIFOs, all empty, and no fault.
pub fn status(fifos: u16) -> Status {
    Status {
        device: DeviceStatus {
            version: "1.2.3".to_owned(),
            uptime_ms: 5_000,
            connected: true,
            connections: 1,
            control_interrupts: 0,
            event_interrupts: 0,
            refused: [].into(),
            sandbox: String::new(),
        },
        fifos: (0..fifos).map(fifo).collect(),
        faults: Vec::new(),
    }
}

fn fifo(fifo: u16) -> FifoStatus {
    let empty = DirectionStatus {
        level: 0,
        entered: 0,
        left: 0,
        messages: 0,
        interrupts: 0,
    };
    FifoStatus {
        fifo,
        kind: "null".to_owned(),
        capacity: 4096,
        host: HostSide::Lasting,
        peers: 0,
        hangup: false,
        hangup_by_control: false,
        error: false,
        rx: empty,
        tx: empty,
        refused: [].into(),
    }
}

/// A fault that has struck so often.
pub fn fault(spec: &str, strikes: u64) -> FaultStatus {
    FaultStatus {
        fault: 1,
        spec: spec.to_owned(),
        opportunities: strikes,
        strikes,
        over: false,
    }
}
