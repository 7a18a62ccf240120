// SPDX-License-Identifier: GPL-2.0-only

//! Character devices with the file operations that asynchronous I/O needs.
//!
//! The kernel crate has misc devices only, without `poll`, `fasync`, `fsync` and splice. Here a
//! module reserves one major number and a device class for its lifetime ([`Registration`]) and
//! makes device nodes in it as devices come and go ([`Node`]).
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/device/class.h`](srctree/include/linux/device/class.h).

use super::{
    bindings,
    file_operations::Open,
    operations::Operations, //
};
use core::{
    marker::PhantomData,
    ptr, //
};
use kernel::{
    device::Device,
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};

/// Minor numbers of a registration.
pub(crate) const MINORS: u32 = 256;

/// A major number with [`MINORS`] minors whose files are opened by a `T`, and a device class.
///
/// # Invariants
///
/// `major` is registered with the operations of `T`; `class` is a class of ours.
pub(crate) struct Registration<T: Open> {
    name: &'static CStr,
    major: u32,
    class: *mut bindings::class,
    _operations: PhantomData<T>,
}

// SAFETY: Registering and unregistering is not bound to a thread.
unsafe impl<T: Open> Send for Registration<T> {}
// SAFETY: `create_node` may be called from several threads.
unsafe impl<T: Open> Sync for Registration<T> {}

impl<T: Open> Registration<T> {
    /// Registers a major number and a class under `name`.
    pub(crate) fn new(name: &'static CStr) -> Result<Arc<Self>> {
        // SAFETY: `name` is a C string.
        let class = from_err_ptr(unsafe { bindings::class_create(name.as_char_ptr()) })?;
        // SAFETY: Name and operations are static.
        let major = unsafe {
            bindings::__register_chrdev(0, 0, MINORS, name.as_char_ptr(), Operations::<T>::TABLE)
        };
        if let Err(error) = to_result(major.min(0)) {
            // SAFETY: Nothing uses the class.
            unsafe { bindings::class_destroy(class) };
            return Err(error);
        }
        // INVARIANT: Both have just been registered.
        Ok(Arc::new(
            Self {
                name,
                major: major as u32,
                class,
                _operations: PhantomData,
            },
            GFP_KERNEL,
        )?)
    }

    /// Makes the device node for `minor`, called `name`.
    pub(crate) fn create_node(
        self: ArcBorrow<'_, Self>,
        parent: &Device,
        name: &CStr,
        minor: u32,
    ) -> Result<Node<T>> {
        // SAFETY: By the type invariants the class exists; parent and name are valid.
        let devt = unsafe {
            let devt = bindings::globalfifo_devt(self.major, minor);
            from_err_ptr(bindings::globalfifo_create_node(
                self.class,
                ptr::from_ref(parent).cast::<bindings::device>().cast_mut(),
                devt,
                name.as_char_ptr(),
            ))?;
            devt
        };
        // INVARIANT: The node has just been made.
        Ok(Node {
            registration: self.into(),
            devt,
        })
    }
}

impl<T: Open> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants. An open in progress takes its reference to the module
        // before it looks at the operations, which are static.
        unsafe {
            bindings::__unregister_chrdev(self.major, 0, MINORS, self.name.as_char_ptr());
            bindings::class_destroy(self.class);
        }
    }
}

/// A device node in /dev and in sysfs; removed on drop. Files that are open stay open.
///
/// # Invariants
///
/// `devt` is a device of the registration's class.
pub(crate) struct Node<T: Open> {
    registration: Arc<Registration<T>>,
    devt: bindings::dev_t,
}

impl<T: Open> Drop for Node<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::device_destroy(self.registration.class, self.devt) };
    }
}
