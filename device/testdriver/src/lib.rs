// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

#![doc = include_str!("../README.md")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test's helper fails as a test does"
)]

pub mod driver;
pub mod messages;
pub mod mischief;
pub mod queue;

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use vhost::vhost_user::message::VhostUserProtocolFeatures;

pub use crate::driver::Driver;
pub use crate::messages::Stream;
pub use crate::mischief::Mischief;

/// Only a hang takes this long.
const PATIENCE_MS: u16 = 20_000;

/// Features that [`Driver::connect`] usually asks for: VERSION_1, indirect descriptors, event indexes, and protocol features of vhost-user.
pub const FEATURES: u64 = 1 << 32 | INDIRECT_DESC | EVENT_IDX | 1 << 30;
/// Protocol features of vhost-user that a device has to offer.
pub const PROTOCOL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::CONFIG
    .union(VhostUserProtocolFeatures::MQ)
    .union(VhostUserProtocolFeatures::REPLY_ACK);

/// Feature bit VIRTIO_F_RING_EVENT_IDX, for tests that leave it out.
pub const EVENT_IDX: u64 = 1 << 29;
/// Feature bit VIRTIO_F_INDIRECT_DESC.
pub const INDIRECT_DESC: u64 = 1 << 28;

/// Guest address at which memory begins.
pub const RAM_START: u64 = 0x10_0000;
/// Bytes of guest memory.
pub const RAM_LEN: u64 = 16 << 20;
/// QEMU's address of guest address 0: any number, but not 0.
const VMM_OFFSET: u64 = 0x7000_0000_0000;
/// Space for the rings of one queue: descriptors, then available ring, then used ring.
const RINGS_LEN: u64 = 0x8000;
/// Where the available ring is in it.
const AVAIL_OFFSET: u64 = 0x4000;
/// Where the used ring is in it.
const USED_OFFSET: u64 = 0x6000;
/// Where the rings end and buffers begin.
const BUFFERS: u64 = RAM_START + 64 * RINGS_LEN;

/// Flag of a descriptor: another one follows.
pub const NEXT: u16 = 1;
/// Flag of a descriptor: the device writes.
pub const WRITE: u16 = 2;
/// Flag of a descriptor: it names a table.
pub const INDIRECT: u16 = 4;

/// One descriptor to be.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Guest address.
    pub at: u64,
    /// Bytes.
    pub len: u32,
    /// The device writes it.
    pub write: bool,
}

/// Waits until `fd` can be read; fails after a time that only a hang takes.
pub fn wait_readable(fd: &impl AsRawFd, what: &str) {
    // SAFETY: the descriptor outlives the call, for it is borrowed.
    let fd = unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) };
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut fds, PollTimeout::from(PATIENCE_MS)).unwrap();
    assert_eq!(ready, 1, "no {what} in time");
}
