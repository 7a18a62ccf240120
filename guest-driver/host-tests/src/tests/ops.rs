// SPDX-License-Identifier: GPL-2.0-only

//! What happens in a random schedule. Must not know what follows from it.

use crate::virtio_fifo::{STATE_HANGUP, STATE_RX_END};
use crate::world::Point;
use proptest::prelude::*;

/// Something that happens.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// The host writes and the device sends it, in pieces of at most so many bytes.
    HostWrites(u64, usize),
    /// The host reads.
    HostReads(u64),
    /// The device sends one message.
    Sends(usize),
    /// The device accepts so many messages.
    Accepts(u8),
    /// The device tells its state.
    Tells,
    /// The device tells that the other side is gone, sends no more, or is there.
    Flags(u32),
    Interrupts,
    /// Interrupts are lost, and the watchdog looks twice.
    LosesInterrupts,
    Work,
    Passes(i64),
    Reads(usize, Buffer),
    Writes(usize),
    BlocksInRead(usize, Buffer),
    BlocksInWrite(usize),
    Polls,
    SubmitsRead(usize, Buffer, usize),
    SubmitsWrite(usize, Buffer, usize),
    Cancels(usize),
    ClosesFile(usize),
    Clears,
    /// The device does not answer the clear.
    ClearsInVain,
    Suspends(Vec<Op>),
    /// Happens in the middle of something, when that comes to that point.
    At(Point, Box<Op>),
}

/// How much of a buffer is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Buffer {
    There,
    /// The second half has to be faulted in.
    Half,
    /// All of it has to be.
    Missing,
    /// Only the first half can be had.
    Cut,
}

fn point() -> impl Strategy<Value = Point> {
    prop_oneof![
        Just(Point::CopyToUser),
        Just(Point::CopyFromUser),
        Just(Point::Fault),
        Just(Point::Submitting),
        Just(Point::Asking),
        Just(Point::Sleep),
    ]
}

fn kind() -> impl Strategy<Value = Buffer> {
    prop_oneof![
        6 => Just(Buffer::There),
        1 => Just(Buffer::Half),
        1 => Just(Buffer::Missing),
        1 => Just(Buffer::Cut),
    ]
}

/// Of a call, which takes its page faults itself.
fn kind_of_call() -> impl Strategy<Value = Buffer> {
    prop_oneof![
        6 => Just(Buffer::There),
        1 => Just(Buffer::Half),
        2 => Just(Buffer::Missing),
    ]
}

fn of_device() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1..100_u64, 1..60_usize).prop_map(|(n, most)| Op::HostWrites(n, most)),
        3 => (1..100_u64).prop_map(Op::HostReads),
        2 => (1..100_usize).prop_map(Op::Sends),
        4 => (1..5_u8).prop_map(Op::Accepts),
        3 => Just(Op::Tells),
        6 => Just(Op::Interrupts),
        1 => Just(Op::LosesInterrupts),
        4 => Just(Op::Work),
        2 => (1..11_000_i64).prop_map(Op::Passes),
    ]
}

fn of_readiness() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1..80_usize, kind_of_call()).prop_map(|(n, kind)| Op::Reads(n, kind)),
        4 => (1..80_usize).prop_map(Op::Writes),
        2 => (1..80_usize, kind_of_call()).prop_map(|(n, kind)| Op::BlocksInRead(n, kind)),
        2 => (1..80_usize).prop_map(Op::BlocksInWrite),
        3 => Just(Op::Polls),
    ]
}

fn of_requests() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..2_usize, kind(), 2..80_usize).prop_map(|(f, k, n)| Op::SubmitsRead(f, k, n)),
        4 => (0..2_usize, kind(), 2..80_usize).prop_map(|(f, k, n)| Op::SubmitsWrite(f, k, n)),
        3 => (0..16_usize).prop_map(Op::Cancels),
        1 => (0..2_usize).prop_map(Op::ClosesFile),
    ]
}

fn of_life() -> impl Strategy<Value = Op> {
    let flags = prop_oneof![3 => Just(0), 1 => Just(STATE_HANGUP), 1 => Just(STATE_RX_END)];
    prop_oneof![
        3 => Just(Op::Clears),
        1 => Just(Op::ClearsInVain),
        2 => flags.prop_map(Op::Flags),
    ]
}

/// One thing, with so much weight on each kind.
fn simple(readiness: u32, requests: u32) -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => of_device(),
        readiness => of_readiness(),
        requests => of_requests(),
        1 => of_life(),
    ]
}

/// One thing, or one in the middle of another, or a reset of the device.
pub(super) fn op(readiness: u32, requests: u32) -> impl Strategy<Value = Op> {
    let simple = move || simple(readiness, requests);
    prop_oneof![
        12 => simple(),
        4 => (point(), simple()).prop_map(|(point, op)| Op::At(point, Box::new(op))),
        1 => proptest::collection::vec(simple_but_clears(readiness, requests), 0..4)
            .prop_map(Op::Suspends),
    ]
}

/// While the device is being reset, requests to it wait: no clear, and nothing that the device tells.
fn simple_but_clears(readiness: u32, requests: u32) -> impl Strategy<Value = Op> {
    prop_oneof![readiness => of_readiness(), requests => of_requests(), 1 => Just(Op::Work)]
}
