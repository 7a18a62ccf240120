// SPDX-License-Identifier: GPL-2.0-only

//! A virtio device: configuration space, status, and its virtqueues.

use super::{
    queue::Queue,
    shared::{
        Found,
        Shared, //
    }, //
};
use crate::kapi::bindings;
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    device,
    error::to_result,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    types::{
        ForeignOwnable,
        Opaque, //
    },
};

/// A bound virtio device, `struct virtio_device`.
#[repr(transparent)]
pub(crate) struct Device(Opaque<bindings::virtio_device>);

impl Device {
    /// # Safety
    ///
    /// `vdev` is valid for `'a`.
    pub(super) unsafe fn from_raw<'a>(vdev: *mut bindings::virtio_device) -> &'a Self {
        // SAFETY: `Self` is transparent over `struct virtio_device`.
        unsafe { &*vdev.cast() }
    }

    fn as_raw(&self) -> *mut bindings::virtio_device {
        self.0.get()
    }

    /// The generic device: parent of what the driver creates, and where messages go.
    pub(crate) fn as_dev(&self) -> &device::Device {
        // SAFETY: The embedded `struct device` is as valid as `self`.
        unsafe { device::Device::from_raw(&raw mut (*self.as_raw()).dev) }
    }

    /// Reads the 4 bytes at `offset` of configuration space, in one access. `ENXIO` when the device
    /// has none.
    pub(crate) fn config_u32(&self, offset: u32) -> Result<[u8; 4]> {
        let mut bytes = [0; 4];
        // SAFETY: The device is valid and there is room for 4 bytes.
        to_result(unsafe {
            bindings::globalfifo_get_config_u32(self.as_raw(), offset, bytes.as_mut_ptr().cast())
        })?;
        Ok(bytes)
    }

    /// Whether the device offers a feature, or, once features are negotiated, has it.
    pub(crate) fn has_feature(&self, bit: u32) -> bool {
        // SAFETY: The device is valid.
        unsafe { bindings::globalfifo_has_feature(self.as_raw(), bit) }
    }

    /// Sets DRIVER_OK: the driver is ready.
    pub(crate) fn ready(&self) {
        // SAFETY: The device is valid.
        unsafe { bindings::globalfifo_device_ready(self.as_raw()) };
    }

    /// Stops the device for good, as the virtio core does at shutdown: its queues are broken and no
    /// interrupt handler runs any more.
    pub(crate) fn stop(&self) {
        // SAFETY: The device is valid.
        unsafe { bindings::virtio_device_shutdown(self.as_raw()) };
    }

    /// Finds the virtqueues called `names`; `handler` gets their interrupts from now on.
    ///
    /// # Errors
    ///
    /// `EBUSY` while queues of the device exist.
    pub(crate) fn find_queues<H: Handler>(
        &self,
        names: &[&'static CStr],
        handler: Arc<H>,
    ) -> Result<FoundQueues> {
        let vdev = self.as_raw();
        // SAFETY: `priv` is the driver's to use, and the bus calls a driver's methods one at a
        // time.
        if !unsafe { (*vdev).priv_ }.is_null() {
            return Err(EBUSY);
        }
        let mut raw = KVec::from_elem(ptr::null_mut(), names.len(), GFP_KERNEL)?;
        let mut c_names = KVec::with_capacity(names.len(), GFP_KERNEL)?;
        for name in names {
            c_names.push(name.as_char_ptr(), GFP_KERNEL)?;
        }
        let handler = handler.into_foreign();
        // SAFETY: No queue exists, so no callback can run yet.
        unsafe { (*vdev).priv_ = handler };
        // SAFETY: There are so many names and as much room, and the callback fits the handler's
        // type.
        let found = to_result(unsafe {
            bindings::globalfifo_find_vqs(
                vdev,
                names.len() as u32,
                c_names.as_ptr(),
                raw.as_mut_ptr(),
                Some(interrupt::<H>),
            )
        });
        if let Err(error) = found {
            // SAFETY: Made by `into_foreign` above, and with no queue there is no other user.
            unsafe {
                (*vdev).priv_ = ptr::null_mut();
                drop(Arc::<H>::from_foreign(handler));
            }
            return Err(error);
        }
        let release: unsafe fn(*mut c_void) = release_handler::<H>;
        // SAFETY: The device is bound, so it holds a reference to itself that we may double. The
        // queues have just been found, with this handler.
        let found = unsafe {
            bindings::get_device(&raw mut (*vdev).dev);
            Found::new(vdev, handler, release)
        };
        let shared = Arc::pin_init(Shared::new(found), GFP_KERNEL)?;
        Ok(FoundQueues { shared, raw })
    }
}

/// Gets the interrupts of a device's virtqueues.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Queue `index` may have used buffers. Called in hard interrupt context. What it does has to
    /// be bounded, whatever the device does.
    ///
    /// With MSI-X, several CPUs call at once for different queues. With INTx the queues of a device
    /// take turns, under a lock of virtio-pci's.
    fn queue_interrupt(self: ArcBorrow<'_, Self>, index: u32)
    where
        Self: Sized;
}

/// # Safety
///
/// A `vq_callback_t`: called for a queue that [`Device::find_queues`] found with this `H`.
unsafe extern "C" fn interrupt<H: Handler>(vq: *mut bindings::virtqueue) {
    // SAFETY: Callbacks come for queues that exist; while they do, `priv` is the foreign form of an
    // `Arc<H>`, set by `find_queues` and released by `Found::drop` after the queues are gone.
    let (handler, index) = unsafe {
        (
            <Arc<H> as ForeignOwnable>::borrow((*(*vq).vdev).priv_),
            (*vq).index,
        )
    };
    handler.queue_interrupt(index);
}

/// # Safety
///
/// `handler` was made by `Arc::<H>::into_foreign` and is not used again.
unsafe fn release_handler<H: Handler>(handler: *mut c_void) {
    // SAFETY: By the safety requirements.
    drop(unsafe { Arc::<H>::from_foreign(handler) });
}

/// The virtqueues of a device, before each goes to its user.
pub(crate) struct FoundQueues {
    shared: Arc<Shared>,
    raw: KVec<*mut bindings::virtqueue>,
}

impl FoundQueues {
    /// Takes queue `index`; `None` when there is none, or it has been taken.
    pub(crate) fn take<M: Send>(&mut self, index: u16) -> Option<Queue<M>> {
        let slot = self.raw.get_mut(usize::from(index))?;
        let vq = NonNull::new(core::mem::replace(slot, ptr::null_mut()))?;
        // SAFETY: Each queue is taken once, and `shared` keeps it in existence.
        Some(unsafe { Queue::new(vq, self.shared.clone()) })
    }
}
