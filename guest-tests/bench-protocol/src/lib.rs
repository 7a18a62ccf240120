// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `cargo lab bench`, its program in the guest and its peers on the host say to each other.
//!
//! The lab gives the guest's program one [`Task`] as a JSON argument, and reads [`Line`]s of JSON from
//! its standard output. The streams that are measured carry [`peer`]'s jobs. This crate must not know
//! how anything is measured, nor what becomes of the figures.

pub mod peer;
pub mod processor;

pub use processor::Processor;

use serde::{Deserialize, Serialize};

/// Name of the virtio-serial port that is measured.
pub const SERIAL_PORT: &str = "bench.serial";
/// vsock port of the host's peer.
pub const VSOCK_PORT: u32 = 4242;

/// In place of a device node: a pipe within the guest.
pub const PIPE_PATH: &str = "pipe";

/// A thing to measure, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// What.
    pub work: Work,
    /// About how long it may take; what it has to set up comes on top.
    pub millis: u64,
}

/// A stream from the guest to a peer and back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// A FIFO; at its other end a peer on the host, or the FIFO itself.
    Fifo(String),
    /// The virtio-serial port [`SERIAL_PORT`], to a peer on the host.
    Serial,
    /// A vsock connection to [`VSOCK_PORT`] of the host.
    Vsock,
    /// A pipe (two, for a round trip), to a thread in the guest.
    Pipe,
}

/// How user code learns that a FIFO has data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notice {
    /// `read(2)` that waits.
    Read,
    /// `poll(2)`.
    Poll,
    /// `epoll_wait(2)`.
    Epoll,
    /// A handler of SIGIO.
    Sigio,
    /// A handler of a real-time signal (`F_SETSIG`).
    RealTimeSignal,
    /// `read(2)` of a signalfd for SIGIO.
    Signalfd,
    /// `io_getevents(2)` for a read of native AIO.
    Aio,
    /// A completion of io_uring for a read.
    Uring,
}

/// Who submits requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interface {
    /// Native AIO.
    Aio,
    /// io_uring.
    Uring,
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// It takes from the FIFO.
    Read,
    /// It gives to the FIFO.
    Write,
}

/// What waits in great numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Waiter {
    /// Reads of native AIO, over all FIFOs; an event completes one of them.
    Aio,
    /// Descriptors in one epoll; events come on a FIFO of which only one of them is.
    Epoll,
    /// Descriptors with O_ASYNC; events come on a FIFO of which only one of them is.
    Sigio,
    /// As `Epoll`, over all FIFOs: an event wakes all of a FIFO's.
    EpollCrowd,
    /// As `Sigio`, over all FIFOs and with a real-time signal: an event signals all of a FIFO's.
    SignalCrowd,
}

/// The works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Tell what machine this is.
    Machine,
    /// Messages of `size` bytes to an echo and back, one at a time.
    RoundTrip {
        /// Where.
        way: Way,
        /// Bytes of a message.
        size: usize,
    },
    /// Writes of `size` bytes to a sink, until it has all.
    Send {
        /// Where.
        way: Way,
        /// Bytes of a write.
        size: usize,
    },
    /// Reads of up to `size` bytes from a source.
    Receive {
        /// Where.
        way: Way,
        /// Most bytes of a read.
        size: usize,
    },
    /// Writes of `size` bytes, until the device has all; nobody reads them.
    Discard {
        /// A null FIFO.
        path: String,
        /// Bytes of a write.
        size: usize,
    },
    /// Reads of `size` bytes that the device makes itself.
    Generate {
        /// A zero FIFO.
        path: String,
        /// Bytes of a read.
        size: usize,
    },
    /// Writes of `size` bytes by one thread, read by another out of the same FIFO or pipe.
    Loopback {
        /// Which.
        way: Way,
        /// Bytes of a write and a read.
        size: usize,
    },
    /// From before a write by one thread until another's code knows of it.
    Notify {
        /// A loopback FIFO.
        path: String,
        /// How it comes to know.
        by: Notice,
    },
    /// Requests of 4 KiB, `depth` of them in flight.
    Depth {
        /// A zero FIFO for reads, a null FIFO for writes.
        path: String,
        /// Who submits them.
        by: Interface,
        /// What they do.
        direction: Direction,
        /// How many are in flight.
        depth: usize,
    },
    /// Events while `count` waiters wait.
    Waiters {
        /// Loopback FIFOs.
        paths: Vec<String>,
        /// What waits.
        by: Waiter,
        /// How many of them.
        count: usize,
    },
    /// `open(2)` and `close(2)` of a FIFO on which another process has reads waiting.
    OpenClose {
        /// A loopback FIFO.
        path: String,
        /// Reads of native AIO that wait, all of one other process and one open file.
        strangers: usize,
    },
    /// The other process of [`Work::OpenClose`]: submits reads, says [`Line::Ready`], and keeps
    /// them waiting until its standard input ends.
    Strangers {
        /// A loopback FIFO, empty.
        path: String,
        /// Reads of native AIO.
        count: usize,
    },
    /// Nothing.
    Idle,
}

/// What the guest's program says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// A measurement begins; one that was only a rehearsal is begun again.
    Begin,
    /// It is over.
    End,
    /// All reads of [`Work::Strangers`] wait.
    Ready,
    /// Its result: the last line.
    Measured(Measured),
    /// The answer to [`Work::Machine`].
    Machine(Machine),
}

/// One measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Messages, calls, requests or notifications.
    pub operations: u64,
    /// Bytes moved, in one direction.
    pub bytes: u64,
    /// How long it took.
    pub nanos: u64,
    /// Time that the guest's CPUs were not idle.
    pub guest_cpu_nanos: u64,
    /// Interrupts on the device's line; 0 for ways that are no FIFO.
    pub interrupts: u64,
    /// Nanoseconds of single operations, and how often each was seen.
    pub latencies: Vec<(u64, u64)>,
    /// Kernel memory (slab) for each waiter.
    pub waiter_bytes: Option<f64>,
}

/// The guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The kernel's release.
    pub kernel: String,
    /// Processor, clock source and mitigations, as the guest sees them.
    #[serde(default)]
    pub processor: Processor,
    /// Edition of the driver: `fast`, or what the driver itself names.
    #[serde(default)]
    pub edition: String,
    /// CPUs that are online.
    pub cpus: usize,
    /// The line of /proc/interrupts for the device of FIFO 0, without its counts.
    pub interrupt: String,
    /// The same for the measured virtio-serial port's device, one a vector.
    pub serial_interrupts: Vec<String>,
    /// FIFOs that there are.
    pub fifos: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_and_lines_come_back_equal() {
        let task = Task {
            work: Work::RoundTrip {
                way: Way::Fifo("/dev/globalfifo3".to_owned()),
                size: 64,
            },
            millis: 300,
        };
        let text = serde_json::to_string(&task).unwrap();
        assert_eq!(serde_json::from_str::<Task>(&text).unwrap(), task);
        for line in [Line::Begin, Line::Measured(Measured::default())] {
            let text = serde_json::to_string(&line).unwrap();
            assert!(!text.contains('\n'));
            assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
        }
    }
}
