// SPDX-License-Identifier: GPL-2.0-only

//! The core's numbers: times, sizes and counts, with unit and reason.
//!
//! None of them is part of the protocol. Those of the fast edition are in `fast_tunables.rs`.

use kernel::time::Msecs;

/// Bound of `fsync` and of removal's wait for the device, in seconds. The device accepts at once
/// (DEV-10), so it is only reached when the device is dead or stopped.
pub(crate) const DRAIN_SECONDS: u8 = 5;

/// Files with `O_ASYNC` that an interrupt signals to; if there are more, the work queue does.
pub(crate) const SIGNALS: u32 = 64;

/// Times that memory is faulted in without a byte being copied before that is `EFAULT`: a page may
/// be taken away again, or not be there for the kernel at all (a shadow stack).
pub(crate) const FRUITLESS_FAULTS: u8 = 16;

/// Bound of a control request, in seconds.
pub(crate) const CONTROL_SECONDS: u8 = 10;

/// Messages to move in one hold of a FIFO's lock, each way, and pages to copy meanwhile: a device
/// that uses buffers as fast as they are posted does not keep a CPU for itself (DRV-17).
pub(crate) const BUDGET: usize = 64;

/// Events to take in one interrupt, for the same reason.
pub(crate) const EVENT_BUDGET: usize = 16;

/// Event buffers to post. The device needs one (specification, section 6.4); with some more, a
/// burst of changes of several FIFOs needs no round trip each.
pub(crate) const EVENT_BUFFERS: usize = 8;

/// Requests to complete, to cancel or to end in one hold of the lock or in one interrupt.
pub(crate) const REQUESTS: usize = 64;

/// Requests to serve before the work queue's other work gets its turn.
pub(crate) const JOBS: usize = 64;

/// Bytes after which a reader's turn ends early if the CPU is wanted: the copy of so much takes
/// some 10 µs natively.
pub(crate) const TURN: usize = 64 << 10;

/// Least and most payload that a message has room for, header included, in bytes. Small writes that
/// wait for room in the queue join one message of a page; larger pieces of memory than the most are
/// hard to get.
pub(crate) const MESSAGE: (usize, usize) = (4096, 32768);

/// Time that a line of requests is held for page faults of its first ones, in microseconds, and the
/// period in which that is the bound: a page that never comes costs others a sixteenth of the time.
/// The end of a hold is noticed by the watchdog, so it may be [`WATCHDOG_PERIOD`] longer.
pub(crate) const HOLD_MICROSECONDS: i64 = 1_000_000;
pub(crate) const PERIOD_MICROSECONDS: i64 = 16_000_000;

/// Time between two checks for lost interrupts (DRV-18), while a file is open.
pub(crate) const WATCHDOG_PERIOD: Msecs = 1000;

/// Time that an interrupt may take to arrive before it counts as lost.
pub(crate) const WATCHDOG_GRACE: Msecs = 100;
