// SPDX-License-Identifier: GPL-2.0-only

//! globalfifo: the Linux driver of the virtio-fifo device.
//!
//! Each interrupt of the device becomes SIGIO, a wake-up, or a completed request of a file of
//! `/dev/globalfifo0` and on. `docs/virtio-fifo.md` specifies the device; [`virtio_fifo`] is its
//! wire format, the same source that the device is built from.
//!
//! - [`kapi`]: safe abstractions over C interfaces, and all unsafe code but the initialisation of a
//!   static here and in [`registry`].
//! - [`driver`]: the driver's logic, safe Rust.
//! - [`registry`]: minor numbers, device nodes, debugfs.
//! - [`trace`]: the driver's tracepoints.

use crate::{
    driver::FifoDriver,
    kapi::{
        module,
        virtio, //
    },
    registry::Registry, //
};
use kernel::{
    driver::Registration,
    prelude::*,
    InPlaceModule, //
};

mod driver;
mod kapi;
mod registry;
mod trace;
mod uapi;
#[expect(
    dead_code,
    unreachable_pub,
    reason = "shared with the device, which uses the other half"
)]
#[path = "../protocol/src/virtio_fifo.rs"]
mod virtio_fifo;

module! {
    type: GlobalFifo,
    name: "globalfifo",
    authors: ["The globalfifo authors"],
    description: "FIFO device with interrupt, asynchronous notification and asynchronous I/O",
    license: "GPL",
    alias: ["virtio:d00000025v*"],
    params: {
        virtio_id: u32 {
            default: crate::virtio_fifo::DEFAULT_DEVICE_ID,
            description: "Virtio device id to serve (default: that of docs/virtio-fifo.md)",
        },
    },
}

const _: () = assert!(
    virtio_fifo::DEFAULT_DEVICE_ID == 0x25,
    "the alias above has the default device id in hexadecimal"
);

/// The module: dropped from top to bottom, so the driver goes first.
#[pin_data]
struct GlobalFifo {
    #[pin]
    _driver: Registration<virtio::Adapter<FifoDriver<Registry>>>,
    _registry: Registry,
}

impl InPlaceModule for GlobalFifo {
    fn init(this: &'static ThisModule) -> impl PinInit<Self, Error> {
        let id = module::parameter(module_parameters::virtio_id.value());
        try_pin_init!(Self {
            // SAFETY: Called once, by the module's initialisation, before the driver is registered.
            _registry: unsafe { Registry::start(c"globalfifo", id) }?,
            _driver <- Registration::new(c"globalfifo", this),
        })
    }
}
