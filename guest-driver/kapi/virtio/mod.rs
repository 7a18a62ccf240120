// SPDX-License-Identifier: GPL-2.0-only

//! Virtio: drivers, devices, virtqueues.
//!
//! [`driver`] registers a driver and takes the bus's calls, [`device`] brings a device up,
//! [`queue`] moves buffers, [`packet`] is a buffer, [`shared`] keeps queues in existence.
//!
//! A [`Queue`] owns the buffers that are in it and holds on to the device's queues, so that neither
//! can go while the other is in use. The first of a device's queues to be dropped resets the
//! device, the last deletes them all.
//!
//! C headers: [`include/linux/virtio.h`](srctree/include/linux/virtio.h),
//! [`include/linux/virtio_config.h`](srctree/include/linux/virtio_config.h).

mod device;
mod driver;
mod packet;
mod queue;
mod shared;

pub(crate) use device::{
    Device,
    FoundQueues,
    Handler, //
};
pub(crate) use driver::{
    Adapter,
    Driver,
    IdTable, //
};
pub(crate) use packet::Packet;
pub(crate) use queue::{
    MissedCheck,
    Queue,
    Refused, //
};
