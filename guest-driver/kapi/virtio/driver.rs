// SPDX-License-Identifier: GPL-2.0-only

//! A virtio driver: what the virtio bus calls.

use super::device::Device;
use crate::kapi::bindings;
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    mem::offset_of, //
};
use kernel::{
    device,
    driver,
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    types::Opaque, //
};

/// `VIRTIO_DEV_ANY_ID`.
const ANY_VENDOR: u32 = 0xffff_ffff;

/// The one device id a driver serves, which a module parameter may choose.
#[repr(transparent)]
pub(crate) struct IdTable(UnsafeCell<[bindings::virtio_device_id; 2]>);

// SAFETY: Written only by `set`, before the driver that reads it is registered.
unsafe impl Sync for IdTable {}

impl IdTable {
    /// A table of one id.
    pub(crate) const fn new(device: u32) -> Self {
        Self(UnsafeCell::new(Self::entries(device)))
    }

    const fn entries(device: u32) -> [bindings::virtio_device_id; 2] {
        [
            bindings::virtio_device_id {
                device,
                vendor: ANY_VENDOR,
            },
            bindings::virtio_device_id {
                device: 0,
                vendor: 0,
            },
        ]
    }

    /// Replaces the id.
    ///
    /// # Safety
    ///
    /// No driver that uses the table is registered, and no other thread calls this.
    pub(crate) unsafe fn set(&self, device: u32) {
        // SAFETY: By the safety requirements, nobody else accesses the table.
        unsafe { *self.0.get() = Self::entries(device) };
    }
}

/// A virtio driver. All methods run in process context, under the lock of the device, one at a
/// time.
pub(crate) trait Driver: Sized + Send + Sync + 'static {
    /// Data of a bound device; dropped after [`Driver::remove`].
    type Data: Send + Sync + 'static;

    /// Device-specific feature bits that the driver knows, in ascending order.
    const FEATURES: &'static [c_uint];

    /// The id this driver serves.
    fn id_table() -> &'static IdTable;

    /// Whether the device is one for this driver: before its features are negotiated. An error
    /// leaves it alone.
    fn validate(device: &Device) -> Result;

    /// A device appeared. All that would have to be undone belongs into the initialiser: it is not
    /// run when there is no memory for what it makes.
    fn probe(device: &Device) -> impl PinInit<Self::Data, Error>;

    /// The device goes, or is taken away. Every queue must be dropped on return.
    fn remove(device: &Device, data: &Self::Data);

    /// The device is about to be reset (suspend, hibernation, reset of the PCI function). Every
    /// queue must be dropped on success.
    fn freeze(device: &Device, data: &Self::Data) -> Result;

    /// The opposite of a successful [`Driver::freeze`]: the device has been reset and its features
    /// negotiated.
    fn restore(device: &Device, data: &Self::Data) -> Result;

    /// The machine goes down: stop the device, keep its data. No open file goes away.
    fn shutdown(device: &Device, data: &Self::Data);
}

/// Makes a [`Driver`] known to the virtio bus; used with [`driver::Registration`].
pub(crate) struct Adapter<T: Driver>(PhantomData<T>);

// SAFETY:
// - `bindings::virtio_driver` is a C type declared as `repr(C)`.
// - `T::Data` is the type of the driver's device private data.
// - `struct virtio_driver` embeds a `struct device_driver` at that offset.
unsafe impl<T: Driver> driver::DriverLayout for Adapter<T> {
    type DriverType = bindings::virtio_driver;
    type DriverData<'bound> = T::Data;
    const DEVICE_DRIVER_OFFSET: usize = offset_of!(Self::DriverType, driver);
}

// SAFETY: A call to `unregister` for a given instance of `DriverType` is valid if a preceding call
// to `register` has been successful.
unsafe impl<T: Driver> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        driver: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        let driver = driver.get();
        // SAFETY: It is safe to set the fields of `struct virtio_driver` on initialisation.
        unsafe {
            (*driver).driver.name = name.as_char_ptr();
            (*driver).id_table = core::ptr::from_ref(T::id_table()).cast();
            (*driver).feature_table = T::FEATURES.as_ptr();
            (*driver).feature_table_size = T::FEATURES.len() as c_uint;
            (*driver).validate = Some(Self::validate);
            (*driver).probe = Some(Self::probe);
            (*driver).remove = Some(Self::remove);
            (*driver).freeze = Some(Self::freeze);
            (*driver).restore = Some(Self::restore);
            (*driver).reset_prepare = Some(Self::reset_prepare);
            (*driver).reset_done = Some(Self::reset_done);
            (*driver).shutdown = Some(Self::shutdown);
        }
        // SAFETY: `driver` is a valid `struct virtio_driver`, pinned until it is unregistered.
        to_result(unsafe { bindings::__register_virtio_driver(driver, module.as_ptr()) })
    }

    unsafe fn unregister(driver: &Opaque<Self::DriverType>) {
        // SAFETY: By the safety requirements, `driver` is registered.
        unsafe { bindings::unregister_virtio_driver(driver.get()) };
    }
}

impl<T: Driver> Adapter<T> {
    extern "C" fn validate(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The bus calls with a valid device, which stays valid for the call.
        let device = unsafe { Device::from_raw(vdev) };
        from_result(|| T::validate(device).map(|()| 0))
    }

    extern "C" fn probe(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The bus calls with a valid device, of which no other driver has anything any
        // more; one may have left a pointer behind.
        unsafe { (*vdev).priv_ = core::ptr::null_mut() };
        // SAFETY: As for `validate`.
        let device = unsafe { Device::from_raw(vdev) };
        // SAFETY: As above; `dev` is its embedded `struct device`, and the bus is in probe.
        let core =
            unsafe { &*(&raw mut (*vdev).dev).cast::<device::Device<device::CoreInternal<'_>>>() };
        from_result(|| {
            core.set_drvdata(T::probe(device))?;
            Ok(0)
        })
    }

    extern "C" fn remove(vdev: *mut bindings::virtio_device) {
        // SAFETY: The bus calls with a valid device that was probed.
        let (device, data) = unsafe { Self::bound(vdev) };
        T::remove(device, data);
    }

    extern "C" fn freeze(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: As for `remove`.
        let (device, data) = unsafe { Self::bound(vdev) };
        from_result(|| T::freeze(device, data).map(|()| 0))
    }

    extern "C" fn restore(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: As for `remove`.
        let (device, data) = unsafe { Self::bound(vdev) };
        from_result(|| T::restore(device, data).map(|()| 0))
    }

    extern "C" fn reset_prepare(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The bus calls with a valid device.
        unsafe { Self::if_bound(vdev, T::freeze) }
    }

    extern "C" fn reset_done(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: As above.
        unsafe { Self::if_bound(vdev, T::restore) }
    }

    /// Calls `what` under the device's lock, which a reset of the PCI function does not take, if
    /// the device is still this driver's. The lock of the PCI device is held already, as when it is
    /// removed.
    ///
    /// # Safety
    ///
    /// `vdev` is valid.
    unsafe fn if_bound(
        vdev: *mut bindings::virtio_device,
        what: impl FnOnce(&Device, &T::Data) -> Result,
    ) -> c_int {
        // SAFETY: By the safety requirements.
        let dev = unsafe { &raw mut (*vdev).dev };
        // SAFETY: As above.
        unsafe { bindings::globalfifo_device_lock(dev) };
        // SAFETY: A driver of this bus, which the lock keeps bound, is a `struct virtio_driver`.
        let reset_prepare = unsafe {
            let driver = (*dev).driver.cast_const();
            (!driver.is_null()).then(|| {
                let driver = driver.byte_sub(offset_of!(bindings::virtio_driver, driver));
                (*driver.cast::<bindings::virtio_driver>()).reset_prepare
            })
        };
        let ours: unsafe extern "C" fn(*mut bindings::virtio_device) -> c_int = Self::reset_prepare;
        let is_ours = reset_prepare
            .flatten()
            .is_some_and(|theirs| core::ptr::fn_addr_eq(theirs, ours));
        let result = from_result(|| {
            if is_ours {
                // SAFETY: This driver has probed the device, and the lock keeps it bound.
                let (device, data) = unsafe { Self::bound(vdev) };
                what(device, data)?;
            }
            Ok(0)
        });
        // SAFETY: Taken above.
        unsafe { bindings::globalfifo_device_unlock(dev) };
        result
    }

    extern "C" fn shutdown(vdev: *mut bindings::virtio_device) {
        // SAFETY: As for `remove`.
        let (device, data) = unsafe { Self::bound(vdev) };
        T::shutdown(device, data);
    }

    /// # Safety
    ///
    /// `vdev` is valid for `'a`, was probed by this driver and is not unbound before `'a` ends.
    unsafe fn bound<'a>(vdev: *mut bindings::virtio_device) -> (&'a Device, &'a T::Data) {
        // SAFETY: By the safety requirements; `probe` stored a `T::Data`.
        unsafe {
            let core = (&raw mut (*vdev).dev).cast::<device::Device<device::CoreInternal<'_>>>();
            let data = Pin::get_ref((*core).drvdata_borrow::<T::Data>());
            (Device::from_raw(vdev), data)
        }
    }
}
