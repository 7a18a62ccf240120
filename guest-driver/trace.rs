// SPDX-License-Identifier: GPL-2.0-only

//! The tracepoints of the driver, as `trace.h` defines them; docs/tracing.md explains each.
//!
//! Must not know a FIFO's state: who calls says what happened.

use crate::kapi::tracepoint::tracepoints;
use kernel::{
    device::Device,
    prelude::*,
    sync::aref::ARef, //
};

/// Names the device in its tracepoints.
pub(crate) struct DeviceTracer {
    device: ARef<Device>,
}

impl DeviceTracer {
    /// Of `device`.
    pub(crate) fn new(device: &Device) -> Self {
        Self {
            device: device.into(),
        }
    }
}

/// Names the FIFO in its tracepoints.
#[derive(Clone)]
pub(crate) struct Tracer {
    device: ARef<Device>,
    fifo: u16,
}

impl Tracer {
    /// Of FIFO `fifo` of `device`.
    pub(crate) fn new(device: &Device, fifo: u16) -> Self {
        Self {
            device: device.into(),
            fifo,
        }
    }
}

/// What a deferred request waits for.
#[derive(Clone, Copy)]
pub(crate) enum Want {
    Data = 0,
    Space = 1,
    Acceptance = 2,
}

/// Result of a request, as the kernel's C code has it.
pub(crate) fn raw(result: Result<usize>) -> i64 {
    match result {
        Ok(bytes) => bytes as i64,
        Err(error) => error.to_errno().into(),
    }
}

tracepoints! {
    impl DeviceTracer() {
        /// Virtqueue `queue` interrupts.
        fn interrupt(queue: u32) = globalfifo_interrupt;
    }
}

tracepoints! {
    impl Tracer(fifo) {
        /// Messages were taken from the rx queue, up to `position`.
        fn receive(messages: u64, position: u64) = globalfifo_receive;
        /// Messages were posted to the tx queue, up to `position`.
        fn send(messages: u64, position: u64) = globalfifo_send;
        /// The device has accepted all below.
        fn accept(tx_accepted: u64) = globalfifo_accept;
        /// The device takes bytes up to a higher limit.
        fn credit(tx_limit: u64, credit: u64) = globalfifo_credit;
        /// Bytes were read, from `position` on.
        fn read(position: u64, bytes: u64) = globalfifo_read;
        /// Bytes were written, from `position` on.
        fn write(position: u64, bytes: u64) = globalfifo_write;
        /// Those who wait for these events are woken.
        fn wake(events: u32) = globalfifo_wake;
        /// A file asks for signals, or does no more.
        fn fasync(on: u32) = globalfifo_fasync;
        /// The owners of so many files are signalled.
        fn signal(band: u32, files: u32) = globalfifo_signal;
        /// A request was deferred, and waits for a [`Want`].
        fn request_queue(id: u64, want: u32) = globalfifo_request_queue;
        /// A request has its bytes, or an error.
        fn request_serve(id: u64, result: i64) = globalfifo_request_serve;
        /// A request is completed.
        fn request_complete(id: u64, result: i64) = globalfifo_request_complete;
        /// A request is to be cancelled.
        fn request_cancel(id: u64) = globalfifo_request_cancel;
        /// The queues are gone for the time of a reset.
        fn suspend() = globalfifo_suspend;
        /// The queues are back.
        fn resume() = globalfifo_resume;
    }
}
