// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the control socket says of a device: all of it at one moment, and what changes.
//!
//! Types alone; it must not know requests, or where the figures come from.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

/// The device at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// What belongs to no FIFO.
    pub device: DeviceStatus,
    /// Every FIFO, in order.
    pub fifos: Vec<FifoStatus>,
    /// Every fault, in the order in which they were added.
    pub faults: Vec<FaultStatus>,
}

impl Status {
    /// Interrupts of all queues.
    pub fn interrupts(&self) -> u64 {
        let of_fifos = self
            .fifos
            .iter()
            .map(|fifo| fifo.rx.interrupts + fifo.tx.interrupts);
        self.device.control_interrupts + self.device.event_interrupts + of_fifos.sum::<u64>()
    }

    /// What was refused from the driver, on all queues.
    pub fn refused(&self) -> u64 {
        let of_fifos = self.fifos.iter().flat_map(|fifo| fifo.refused.values());
        self.device.refused.values().chain(of_fifos).sum()
    }
}

/// A fault at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultStatus {
    /// Its number.
    pub fault: u32,
    /// What goes wrong, as for `--fault`.
    pub spec: String,
    /// How often it could have struck.
    pub opportunities: u64,
    /// How often it did.
    pub strikes: u64,
    /// It never strikes again.
    pub over: bool,
}

/// What belongs to no FIFO.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Version of the daemon.
    pub version: String,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// A VMM is connected.
    pub connected: bool,
    /// VMMs that have connected so far.
    pub connections: u64,
    /// Interrupts for the control queue.
    pub control_interrupts: u64,
    /// Interrupts for the event queue.
    pub event_interrupts: u64,
    /// What was refused on these queues, by reason.
    pub refused: BTreeMap<String, u64>,
    /// What the daemon's process has given up.
    #[serde(default)]
    pub sandbox: String,
}

/// A FIFO at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FifoStatus {
    /// Its number.
    pub fifo: u16,
    /// As in its SPEC.
    pub kind: String,
    /// Bytes that each direction holds.
    pub capacity: usize,
    /// What its host side is like.
    pub host: HostSide,
    /// Peers that its host side has had so far.
    pub peers: u64,
    /// The driver is told that the host side has hung up.
    pub hangup: bool,
    /// It was hung up through the control socket.
    pub hangup_by_control: bool,
    /// It has failed and waits for a reset of the device.
    pub error: bool,
    /// From the host side to the driver.
    pub rx: DirectionStatus,
    /// From the driver to the host side.
    pub tx: DirectionStatus,
    /// What was refused from the driver, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// One direction of a FIFO at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionStatus {
    /// Bytes inside.
    pub level: usize,
    /// Bytes that came in so far.
    pub entered: u64,
    /// Bytes that went out or were discarded so far.
    pub left: u64,
    /// Messages to or from the driver that carried any.
    pub messages: u64,
    /// Interrupts for its queue.
    pub interrupts: u64,
}

/// What the host side of a FIFO is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostSide {
    /// There, and will be as long as the device.
    Lasting,
    /// Nobody was there yet.
    Awaited,
    /// A peer is there.
    Connected,
    /// A peer is there that sends nothing more.
    HalfClosed,
    /// The last peer is gone.
    Gone,
}

/// Something that happened, for a watcher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A VMM has come, or gone.
    Vmm {
        /// It is there.
        connected: bool,
        /// VMMs that have connected so far.
        connections: u64,
    },
    /// Bytes moved.
    Level {
        /// In which FIFO.
        fifo: u16,
        /// Bytes inside from the host side to the driver.
        rx: usize,
        /// Bytes inside from the driver to the host side.
        tx: usize,
        /// Bytes that came into rx since the event before.
        rx_entered: u64,
        /// Bytes that came into tx since the event before.
        tx_entered: u64,
    },
    /// The host side is like this now.
    Host {
        /// Of which FIFO.
        fifo: u16,
        /// What it is like.
        host: HostSide,
        /// Peers so far.
        peers: u64,
    },
    /// What the driver is told of the state has changed.
    State {
        /// Of which FIFO.
        fifo: u16,
        /// The host side has hung up.
        hangup: bool,
        /// The FIFO has failed.
        error: bool,
    },
    /// The driver sent what was refused.
    Refused {
        /// On which FIFO; `None` on the control or event queue.
        #[serde(skip_serializing_if = "Option::is_none")]
        fifo: Option<u16>,
        /// Why.
        reason: String,
        /// How often since the event before.
        count: u64,
    },
    /// A fault struck, was added, or strikes no more.
    Fault {
        /// Its number.
        fault: u32,
        /// What goes wrong.
        spec: String,
        /// How often it struck so far.
        strikes: u64,
        /// It never strikes again, or was taken away.
        over: bool,
    },
    /// Events that this watcher was too slow for.
    Lost {
        /// How many since the last one it got.
        lost: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number of its own for each place, so that none can be left out or counted twice.
    #[test]
    fn sums_are_those_of_all_queues() {
        let refused = |count| BTreeMap::from([("wrong-length".to_owned(), count)]);
        let direction = |interrupts| DirectionStatus {
            level: 0,
            entered: 0,
            left: 0,
            messages: 0,
            interrupts,
        };
        let fifo = |number: u16, rx, tx, count| FifoStatus {
            fifo: number,
            kind: "loopback".to_owned(),
            capacity: 1,
            host: HostSide::Lasting,
            peers: 0,
            hangup: false,
            hangup_by_control: false,
            error: false,
            rx: direction(rx),
            tx: direction(tx),
            refused: refused(count),
        };
        let status = Status {
            device: DeviceStatus {
                version: String::new(),
                uptime_ms: 0,
                connected: false,
                connections: 0,
                control_interrupts: 1,
                event_interrupts: 2,
                refused: refused(1),
                sandbox: String::new(),
            },
            fifos: vec![fifo(0, 4, 8, 2), fifo(1, 16, 32, 4)],
            faults: Vec::new(),
        };
        assert_eq!((status.interrupts(), status.refused()), (63, 7));
    }
}
