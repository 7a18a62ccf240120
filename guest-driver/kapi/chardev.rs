// SPDX-License-Identifier: GPL-2.0-only

//! Character devices with the file operations that asynchronous I/O needs.
//!
//! The kernel crate has misc devices only, without `poll`, `fasync`, `fsync` and splice. Here a
//! module reserves one major number and a device class for its lifetime ([`Registration`]) and
//! makes device nodes in it as devices come and go ([`Node`]).
//!
//! Each open file has an [`OpenFile`]: the driver's data, and the one [`FasyncList`] the file
//! belongs to. The file is taken off that list here, before the list's reference goes, whatever the
//! driver does.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/device/class.h`](srctree/include/linux/device/class.h).

use super::{
    bindings,
    fasync::FasyncList,
    kiocb::{
        Outcome,
        Request, //
    },
    operations::Operations,
    poll::PollTable,
    source::Source,
    wait::Events, //
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
    fs::File,
    iov::IovIterDest,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    types::ForeignOwnable,
    ModuleMetadata, //
};

/// Minor numbers of a registration.
pub(crate) const MINORS: u32 = 256;

/// The operations of an open file. `Self` is the driver's data of one open file.
///
/// Every method may run at any time until the file is released, also after the device is gone.
pub(crate) trait FileOperations: Sized + Send + Sync + 'static {
    /// `read(2)` and its kin. Zero-length reads do not get here.
    fn read<'a>(
        self: ArcBorrow<'_, Self>,
        request: Request<'a, Self>,
        to: &mut IovIterDest<'_>,
    ) -> Outcome<'a>;

    /// `write(2)` and its kin. Zero-length writes do not get here.
    fn write<'a>(
        self: ArcBorrow<'_, Self>,
        request: Request<'a, Self>,
        from: &mut Source<'_, '_>,
    ) -> Outcome<'a>;

    /// Whether a splice must wait before it can move a byte in `direction`; `must_not_wait` makes
    /// it `EAGAIN`. Called without the pipe's lock.
    fn wait_for_splice(
        self: ArcBorrow<'_, Self>,
        direction: Direction,
        must_not_wait: bool,
    ) -> Result;

    /// `poll(2)`: registers with `table`, then gives the events that hold.
    fn poll(self: ArcBorrow<'_, Self>, file: &File, mode: Mode, table: &PollTable<'_>) -> Events;

    /// `ioctl(2)`.
    fn ioctl(
        self: ArcBorrow<'_, Self>,
        file: &File,
        command: u32,
        argument: usize,
    ) -> Result<isize>;

    /// `fsync(2)` and `fdatasync(2)`.
    fn fsync(self: ArcBorrow<'_, Self>) -> Result;

    /// A process closed its last descriptor of this file.
    fn closed_by(self: ArcBorrow<'_, Self>, process: ProcessId);
}

/// What a new file is opened by.
pub(crate) trait Open: 'static {
    /// The data of an open file.
    type File: FileOperations;

    /// The module that the operations are part of.
    type OwnerModule: ModuleMetadata;

    /// Opens minor number `minor`: the data of the new file, and the list that `O_ASYNC` puts it
    /// on. Both are dropped once the file is released.
    fn open(minor: u32, mode: Mode) -> Result<(Arc<Self::File>, Arc<FasyncList>)>;
}

/// Direction of a splice, seen from the file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the file to a pipe.
    Read,
    /// From a pipe to the file.
    Write,
}

/// Mode in which a file was opened.
#[derive(Clone, Copy)]
pub(crate) struct Mode(pub(super) bindings::fmode_t);

impl Mode {
    /// Open for reading.
    pub(crate) fn can_read(self) -> bool {
        self.0 & bindings::GLOBALFIFO_FMODE_READ != 0
    }

    /// Open for writing.
    pub(crate) fn can_write(self) -> bool {
        self.0 & bindings::GLOBALFIFO_FMODE_WRITE != 0
    }
}

/// Identity of a table of descriptors (`struct files_struct`), and so of the process that has it.
/// Comparable, nothing more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessId(pub(super) usize);

impl ProcessId {
    /// That of the current task.
    pub(crate) fn of_current() -> Self {
        // SAFETY: May be called by any task.
        Self(unsafe { bindings::globalfifo_current_files() } as usize)
    }
}

/// Whether the task that opened `file` may write its node.
pub(crate) fn opener_may_write(file: &File) -> bool {
    // SAFETY: The file is valid.
    unsafe { bindings::globalfifo_opener_may_write(file.as_ptr()) }
}

/// An open file: what its `private_data` points to.
///
/// # Invariants
///
/// The file is on no [`FasyncList`] but `fasync`.
pub(crate) struct OpenFile<T> {
    pub(super) data: Arc<T>,
    pub(super) fasync: Arc<FasyncList>,
}

impl<T: FileOperations> OpenFile<T> {
    /// The driver's data.
    pub(super) fn data(&self) -> ArcBorrow<'_, T> {
        self.data.as_arc_borrow()
    }
}

/// The open file behind a `struct file`.
///
/// # Safety
///
/// `file` is open with the operations of `T`, and stays so for `'a`.
pub(super) unsafe fn open_file<'a, T: FileOperations>(
    file: *mut bindings::file,
) -> &'a OpenFile<T> {
    // SAFETY: `open` stored a box of that type, and `release` has not run.
    unsafe { <KBox<OpenFile<T>> as ForeignOwnable>::borrow((*file).private_data) }
}

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
