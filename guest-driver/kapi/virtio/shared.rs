// SPDX-License-Identifier: GPL-2.0-only

//! What keeps the virtqueues of a device in existence: each [`Queue`](super::Queue) has a
//! reference.

use crate::kapi::bindings;
use core::ptr;
use kernel::{
    prelude::*,
    sync::{
        new_mutex,
        Mutex, //
    }, //
};

/// The queues of one device, as long as one of them exists.
///
/// # Invariants
///
/// The device's virtqueues exist, and `handler` is what its `priv` points to.
pub(super) struct Found {
    vdev: *mut bindings::virtio_device,
    handler: *mut c_void,
    release: unsafe fn(*mut c_void),
}

impl Found {
    /// # Safety
    ///
    /// The virtqueues of `vdev` have just been found, `handler` is what its `priv` points to and
    /// what `release` takes, and a reference to the device is given up.
    pub(super) unsafe fn new(
        vdev: *mut bindings::virtio_device,
        handler: *mut c_void,
        release: unsafe fn(*mut c_void),
    ) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            vdev,
            handler,
            release,
        }
    }
}

// SAFETY: The pointers are used where sleeping is allowed, by any thread.
unsafe impl Send for Found {}
// SAFETY: There are no methods on `&Found`; the device may be reset by any thread.
unsafe impl Sync for Found {}

impl Drop for Found {
    fn drop(&mut self) {
        // SAFETY: By the type invariants. The device is reset, and `del_vqs` frees the interrupts
        // first, which waits for callbacks that run: so nobody uses the handler after it. We hold a
        // device reference.
        unsafe {
            bindings::virtio_reset_device(self.vdev);
            bindings::globalfifo_del_vqs(self.vdev);
            (*self.vdev).priv_ = ptr::null_mut();
            (self.release)(self.handler);
            bindings::put_device(&raw mut (*self.vdev).dev);
        }
    }
}

/// What the queues of one device share.
#[pin_data]
pub(super) struct Shared {
    /// Whether the device has been reset since the queues were found. Held during the reset: who
    /// finds it done may free what was in a queue.
    #[pin]
    is_reset: Mutex<bool>,
    found: Found,
}

impl Shared {
    /// Of a device that has not been reset since.
    pub(super) fn new(found: Found) -> impl PinInit<Self> {
        pin_init!(Self {
            is_reset <- new_mutex!(false, "Shared::is_reset"),
            found,
        })
    }

    /// Resets the device if that has not been done: it uses no buffer any more. May sleep.
    pub(super) fn reset(&self) {
        let mut is_reset = self.is_reset.lock();
        if !*is_reset {
            // SAFETY: By the type invariants of `Found`.
            unsafe { bindings::virtio_reset_device(self.found.vdev) };
            *is_reset = true;
        }
    }
}
