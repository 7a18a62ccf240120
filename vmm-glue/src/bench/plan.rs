// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is measured, in which order, and under which names.

use std::time::Duration;

use globalfifo_bench_protocol::Direction;
use globalfifo_bench_protocol::Interface;
use globalfifo_bench_protocol::Notice;
use globalfifo_bench_protocol::PIPE_PATH;
use globalfifo_bench_protocol::Task;
use globalfifo_bench_protocol::Waiter;
use globalfifo_bench_protocol::Way;
use globalfifo_bench_protocol::Work;
use serde::Deserialize;
use serde::Serialize;

use super::rounds::Bounds;

/// FIFOs of the device that is compared: what each is, in the order of their numbers.
pub const LOOPBACK: usize = 0;
/// See [`LOOPBACK`].
pub const NULL: usize = 1;
/// See [`LOOPBACK`].
pub const ZERO: usize = 2;
/// See [`LOOPBACK`]. Its other end is a peer on the host.
pub const HOST: usize = 3;
/// How many those are.
pub const FIFOS: usize = 4;
/// FIFOs of a second device, for great numbers of waiters: as many as a device can have.
pub const CROWD: usize = 31;

/// The device that all this is about.
pub const GLOBALFIFO: &str = "globalfifo";
/// Peers.
pub const SERIAL: &str = "virtio-serial";
/// See [`SERIAL`].
pub const VSOCK: &str = "vsock";
/// See [`SERIAL`].
pub const PIPE: &str = "pipe";
/// A FIFO of whose bytes the device disposes, or that it makes up.
pub const DEVICE_ALONE: &str = "globalfifo null/zero";

/// Kinds of work, in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// There and back, by size.
    RoundTrip,
    /// Guest to host, by size.
    Send,
    /// Host to guest, by size.
    Receive,
    /// Within the guest, by size.
    Loopback,
    /// How user code learns of an event.
    Notify,
    /// Asynchronous requests, by how many are in flight.
    Depth,
    /// Events, by how many wait.
    Waiters,
    /// Open and close, by how many reads of another process wait.
    OpenClose,
}

/// One thing to measure in every round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// Kind.
    pub group: Group,
    /// Size, depth or number of waiters; 0 where there is none.
    pub parameter: u64,
    /// Who or how: the name of a peer, or of a mechanism.
    pub way: String,
    /// What the guest is told.
    pub task: Task,
}

/// How much of everything.
#[derive(Debug, Clone)]
pub struct Extent {
    round_trip: &'static [usize],
    throughput: &'static [usize],
    depths: &'static [usize],
    waiters: &'static [usize],
    strangers: &'static [usize],
    millis: u64,
    /// For round trips, of which the slowest hundredth is to be told: each has to be made often.
    round_trip_millis: u64,
    /// Also beside vsock, of which no goal speaks.
    vsock: bool,
    /// Rounds of everything, and of what is undecided then.
    pub bounds: Bounds,
    /// How long an idle guest is watched, and how often; not at all in a quick run.
    pub idle: Option<(u64, usize)>,
}

impl Extent {
    /// Everything.
    pub const FULL: Self = Self {
        round_trip: &[1, 64, 1024, 4096, 16384, 65536],
        throughput: &[64, 512, 4096, 65536, 262_144, 1 << 20, 4 << 20],
        depths: &[1, 2, 4, 8, 16, 32, 64, 128, 256],
        waiters: &[1, 10, 100, 1000, 10_000],
        strangers: &[0, 1000, STRANGERS],
        millis: 400,
        round_trip_millis: 800,
        vsock: true,
        bounds: Bounds {
            most: 20,
            time: Duration::from_secs(30 * 60),
        },
        idle: Some((4000, 5)),
    };

    /// What the goals need.
    pub const QUICK: Self = Self {
        round_trip: &[64, 4096, 65536],
        throughput: &[64, 65536, 1 << 20],
        depths: &[1, 32],
        waiters: &[1, 10_000],
        strangers: &[0, STRANGERS],
        millis: 150,
        round_trip_millis: 500,
        vsock: false,
        bounds: Bounds {
            most: 20,
            time: Duration::from_secs(5 * 60),
        },
        idle: None,
    };
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::RoundTrip,
        Self::Send,
        Self::Receive,
        Self::Loopback,
        Self::Notify,
        Self::Depth,
        Self::Waiters,
        Self::OpenClose,
    ];

    /// In names.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundTrip => "round-trip",
            Self::Send => "send",
            Self::Receive => "receive",
            Self::Loopback => "loopback",
            Self::Notify => "notify",
            Self::Depth => "depth",
            Self::Waiters => "waiters",
            Self::OpenClose => "open-close",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::RoundTrip => "Round trip with an echo on the host",
            Self::Send => "Throughput, guest to host",
            Self::Receive => "Throughput, host to guest",
            Self::Loopback => "Throughput within the guest, thread to thread",
            Self::Notify => "Notification: from a write to the code that waits for it",
            Self::Depth => "Asynchronous requests of 4 KiB",
            Self::Waiters => "Cost of an event by number of waiters",
            Self::OpenClose => "Open and close beside reads of another process",
        }
    }
}

impl Trial {
    fn new(group: Group, parameter: usize, way: &str, work: Work, millis: u64) -> Self {
        Self {
            group,
            parameter: parameter as u64,
            way: way.to_owned(),
            task: Task { work, millis },
        }
    }

    /// Its name, of which `--only` takes a part.
    pub fn name(&self) -> String {
        let group = self.group.name();
        if self.parameter == 0 {
            format!("{group}/{}", self.way)
        } else {
            format!("{group}/{}/{}", self.parameter, self.way)
        }
    }

    /// Whether it needs the vsock device.
    pub fn uses_vsock(&self) -> bool {
        self.way == VSOCK
    }
}

/// Bytes of a message of the round trips that are traced.
pub const TRACED: usize = 64;
/// For how long they go on, in milliseconds: a thousand of them and more.
const TRACED_MILLIS: u64 = 500;

/// The round trips that are traced, over the only FIFO of their machine.
pub fn traced() -> Task {
    Task {
        work: Work::RoundTrip {
            way: Way::Fifo(path(0)),
            size: TRACED,
        },
        millis: TRACED_MILLIS,
    }
}

/// Everything to measure in a round; with patterns, only what has one of them in its name. What is compared follows
/// one another.
pub fn trials(extent: &Extent, only: &[String]) -> Vec<Trial> {
    let mut trials = round_trips(extent);
    trials.extend(throughput(extent));
    trials.extend(notices(extent));
    trials.extend(depths(extent));
    trials.extend(waiters(extent));
    trials.extend(strangers(extent));
    trials.retain(|trial| {
        let name = trial.name();
        if only.is_empty() {
            extent.vsock || !trial.uses_vsock()
        } else {
            only.iter().any(|part| name.contains(part))
        }
    });
    trials
}

/// The device node of a FIFO.
pub fn path(fifo: usize) -> String {
    format!("/dev/globalfifo{fifo}")
}

fn to_host() -> [(&'static str, Way); 3] {
    [
        (GLOBALFIFO, Way::Fifo(path(HOST))),
        (SERIAL, Way::Serial),
        (VSOCK, Way::Vsock),
    ]
}

fn round_trips(extent: &Extent) -> Vec<Trial> {
    let ways = || to_host().into_iter().chain([(PIPE, Way::Pipe)]);
    let sizes = extent.round_trip.iter();
    sizes
        .flat_map(|size| {
            ways().map(|(name, way)| {
                let work = Work::RoundTrip { way, size: *size };
                Trial::new(
                    Group::RoundTrip,
                    *size,
                    name,
                    work,
                    extent.round_trip_millis,
                )
            })
        })
        .collect()
}

fn throughput(extent: &Extent) -> Vec<Trial> {
    let millis = extent.millis;
    let mut trials = Vec::new();
    for size in extent.throughput.iter().copied() {
        for (name, way) in to_host() {
            let work = Work::Send { way, size };
            trials.push(Trial::new(Group::Send, size, name, work, millis));
        }
        let work = Work::Discard {
            path: path(NULL),
            size,
        };
        trials.push(Trial::new(Group::Send, size, DEVICE_ALONE, work, millis));
        for (name, way) in to_host() {
            let work = Work::Receive { way, size };
            trials.push(Trial::new(Group::Receive, size, name, work, millis));
        }
        let work = Work::Generate {
            path: path(ZERO),
            size,
        };
        trials.push(Trial::new(Group::Receive, size, DEVICE_ALONE, work, millis));
        for (name, way) in [(GLOBALFIFO, Way::Fifo(path(LOOPBACK))), (PIPE, Way::Pipe)] {
            let work = Work::Loopback { way, size };
            trials.push(Trial::new(Group::Loopback, size, name, work, millis));
        }
    }
    trials
}

/// The ways of learning of an event, and their names.
pub const NOTICES: [(Notice, &str); 8] = [
    (Notice::Read, "read"),
    (Notice::Poll, "poll"),
    (Notice::Epoll, "epoll"),
    (Notice::Sigio, "SIGIO"),
    (Notice::RealTimeSignal, "real-time signal"),
    (Notice::Signalfd, "signalfd"),
    (Notice::Aio, "libaio"),
    (Notice::Uring, "io_uring"),
];

/// The same of a pipe: what the kernel and the guest's CPU take for it where no device has a part in it.
pub const PIPE_NOTICES: [(Notice, &str); 2] = [
    (Notice::Read, "read of a pipe"),
    (Notice::Sigio, "SIGIO of a pipe"),
];

fn notices(extent: &Extent) -> Vec<Trial> {
    let trial = |path: String, (by, name): (Notice, &str)| {
        let work = Work::Notify { path, by };
        Trial::new(Group::Notify, 0, name, work, extent.millis)
    };
    let fifo = NOTICES.map(|notice| trial(path(LOOPBACK), notice));
    let pipe = PIPE_NOTICES.map(|notice| trial(PIPE_PATH.to_owned(), notice));
    fifo.into_iter().chain(pipe).collect()
}

/// Interfaces and directions of asynchronous requests, and their names.
pub const REQUESTS: [(Interface, Direction, &str); 4] = [
    (Interface::Aio, Direction::Write, "libaio write"),
    (Interface::Aio, Direction::Read, "libaio read"),
    (Interface::Uring, Direction::Write, "io_uring write"),
    (Interface::Uring, Direction::Read, "io_uring read"),
];

fn depths(extent: &Extent) -> Vec<Trial> {
    let mut trials = Vec::new();
    for depth in extent.depths.iter().copied() {
        for (by, direction, name) in REQUESTS {
            let fifo = match direction {
                Direction::Read => ZERO,
                Direction::Write => NULL,
            };
            let work = Work::Depth {
                path: path(fifo),
                by,
                direction,
                depth,
            };
            trials.push(Trial::new(Group::Depth, depth, name, work, extent.millis));
        }
    }
    trials
}

/// Kinds of waiters, and their names.
pub const WAITERS: [(Waiter, &str); 5] = [
    (Waiter::Aio, "libaio reads"),
    (Waiter::Epoll, "epoll, others idle"),
    (Waiter::Sigio, "SIGIO, others idle"),
    (Waiter::EpollCrowd, "epoll, all woken"),
    (Waiter::SignalCrowd, "signal, all signalled"),
];

fn waiters(extent: &Extent) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (by, name) in WAITERS {
        for count in extent.waiters.iter().copied() {
            let work = Work::Waiters {
                paths: (FIFOS..FIFOS + CROWD).map(path).collect(),
                by,
                count,
            };
            trials.push(Trial::new(Group::Waiters, count, name, work, extent.millis));
        }
    }
    trials
}

/// Name of the one way of [`Group::OpenClose`].
pub const OPEN_CLOSE: &str = "open and close";
/// Reads of another process in the goal about them.
pub const STRANGERS: usize = 20_000;

fn strangers(extent: &Extent) -> Vec<Trial> {
    let counts = extent.strangers.iter().copied();
    counts
        .map(|strangers| {
            let path = path(FIFOS);
            let work = Work::OpenClose { path, strangers };
            Trial::new(Group::OpenClose, strangers, OPEN_CLOSE, work, extent.millis)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_trial_has_a_name_of_its_own() {
        for extent in [Extent::FULL, Extent::QUICK] {
            let trials = trials(&extent, &[]);
            let names: HashSet<String> = trials.iter().map(Trial::name).collect();
            assert_eq!(names.len(), trials.len());
        }
    }

    #[test]
    fn a_pattern_is_a_part_of_the_name() {
        let only = |pattern: &str| trials(&Extent::QUICK, &[pattern.to_owned()]);
        let names: Vec<String> = only("round-trip/64/").iter().map(Trial::name).collect();
        let expected = [GLOBALFIFO, SERIAL, VSOCK, PIPE].map(|way| format!("round-trip/64/{way}"));
        assert_eq!(names, expected);
        assert!(only("vsock").iter().all(Trial::uses_vsock));
        assert!(only("no such thing").is_empty());
    }

    #[test]
    fn a_quick_run_measures_no_other_things_than_a_full_one() {
        let full: HashSet<String> = trials(&Extent::FULL, &[]).iter().map(Trial::name).collect();
        let quick = trials(&Extent::QUICK, &[]);
        assert!(quick.iter().all(|trial| full.contains(&trial.name())));
    }
}
