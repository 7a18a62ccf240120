// SPDX-License-Identifier: GPL-2.0-only

//! Character devices with the file operations that asynchronous I/O needs.
//!
//! The kernel crate has misc devices only, without `poll`, `fasync`, `fsync` and splice. Here a
//! module reserves one major number and a device class for its lifetime ([`Registration`]) and makes
//! device nodes in it as devices come and go ([`Node`]).
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/device/class.h`](srctree/include/linux/device/class.h).

use super::{
    bindings,
    iter::{
        Request,
        Source,
        UserBytes, //
    },
    wait::{
        Events,
        PollTable, //
    },
};
use core::{
    marker::PhantomData,
    ptr, //
};
use kernel::{
    device::Device,
    error::{
        from_err_ptr,
        from_result,
        to_result, //
    },
    ffi::{
        c_long,
        c_uint, //
    },
    fs::File,
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    types::ForeignOwnable, //
};

/// Minor numbers a registration has.
pub(crate) const MINORS: u32 = 256;

/// What can be done with an open file.
///
/// Every method may run at any time until the last file is closed, also after the device is gone.
pub(crate) trait FileOperations: Send + Sync + 'static {
    /// Finds what minor number `minor` stands for; an open file keeps it alive. With success there
    /// is one more open file.
    fn open(minor: u32) -> Result<Arc<Self>>
    where
        Self: Sized;

    /// An open file is gone.
    fn release(self: ArcBorrow<'_, Self>)
    where
        Self: Sized;

    /// `read(2)` and its kin. Zero-length reads do not get here. `EIOCBQUEUED` for a request that
    /// was put aside, see [`super::aio`].
    fn read(
        self: ArcBorrow<'_, Self>,
        request: &Request,
        to: &mut IovIterDest<'_>,
    ) -> Result<usize>
    where
        Self: Sized;

    /// `write(2)` and its kin. Zero-length writes do not get here. `EIOCBQUEUED` as for reads.
    fn write(
        self: ArcBorrow<'_, Self>,
        request: &Request,
        from: &mut Source<'_, '_>,
    ) -> Result<usize>
    where
        Self: Sized;

    /// A `write(2)` that need not wait for anything, not even for the memory that is written; how many bytes,
    /// or `None` if it is to be an ordinary [`FileOperations::write`].
    fn write_at_hand(self: ArcBorrow<'_, Self>, bytes: UserBytes) -> Option<usize>
    where
        Self: Sized;

    /// `poll(2)`: registers, then tells the events that hold.
    fn poll(self: ArcBorrow<'_, Self>, file: &File, table: &mut PollTable) -> Events
    where
        Self: Sized;

    /// `ioctl(2)`.
    fn ioctl(self: ArcBorrow<'_, Self>, mode: Mode, command: u32, argument: usize) -> Result<isize>
    where
        Self: Sized;

    /// `fsync(2)` and `fdatasync(2)`.
    fn fsync(self: ArcBorrow<'_, Self>) -> Result
    where
        Self: Sized;

    /// One of the descriptors of `file` is closed.
    fn flush(self: ArcBorrow<'_, Self>, file: &File)
    where
        Self: Sized;

    /// `fcntl(2)` with `O_ASYNC`, and the close of a file that had it set.
    fn fasync(&self, file: &File, mode: Mode, fd: i32, on: bool) -> Result;
}

/// How a file was opened.
#[derive(Clone, Copy)]
pub(crate) struct Mode(bindings::fmode_t);

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

/// Gives an int to user space, at the address that an ioctl got as its argument.
pub(crate) fn put_user_int(value: i32, address: usize) -> Result {
    // SAFETY: `put_user` checks the address.
    to_result(unsafe { bindings::globalfifo_put_user_int(value, address) })
}

/// A major number with [`MINORS`] minors whose files have the operations of `T`, and a device class.
///
/// # Invariants
///
/// `major` is registered with `operations`, a box made for `T`; `class` is a class of ours.
pub(crate) struct Registration<T: FileOperations> {
    name: &'static CStr,
    major: u32,
    class: *mut bindings::class,
    operations: *mut bindings::file_operations,
    _operations: PhantomData<T>,
}

// SAFETY: Registering and unregistering is not bound to a thread.
unsafe impl<T: FileOperations> Send for Registration<T> {}
// SAFETY: `create_node` may be called from several threads.
unsafe impl<T: FileOperations> Sync for Registration<T> {}

impl<T: FileOperations> Registration<T> {
    /// Registers a major number and a class under `name`.
    pub(crate) fn new(name: &'static CStr, module: &'static ThisModule) -> Result<Self> {
        // The operations' owner can only be set at run time; the table lives as long as the module.
        let operations = KBox::new(Operations::<T>::table(module), GFP_KERNEL)?;
        // SAFETY: `name` is a C string.
        let class = from_err_ptr(unsafe { bindings::class_create(name.as_char_ptr()) })?;
        let operations = KBox::into_raw(operations);
        // SAFETY: Name and operations stay valid until `drop`.
        let major =
            unsafe { bindings::__register_chrdev(0, 0, MINORS, name.as_char_ptr(), operations) };
        if let Err(error) = to_result(major.min(0)) {
            // SAFETY: Nothing uses the class or the operations.
            unsafe {
                bindings::class_destroy(class);
                drop(KBox::from_raw(operations));
            }
            return Err(error);
        }
        // INVARIANT: Both have just been registered.
        Ok(Self {
            name,
            major: major as u32,
            class,
            operations,
            _operations: PhantomData,
        })
    }

    /// Makes the device node for `minor`, called `name`.
    pub(crate) fn create_node(&self, parent: &Device, name: &CStr, minor: u32) -> Result<Node> {
        // SAFETY: By the type invariants the class exists; parent and name are valid. The module,
        // and so this registration, outlives every bound device and with it the node.
        unsafe {
            let devt = bindings::globalfifo_devt(self.major, minor);
            from_err_ptr(bindings::globalfifo_create_node(
                self.class,
                ptr::from_ref(parent).cast::<bindings::device>().cast_mut(),
                devt,
                name.as_char_ptr(),
            ))?;
            // INVARIANT: The node has just been made.
            Ok(Node {
                class: self.class,
                devt,
            })
        }
    }
}

impl<T: FileOperations> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants. An open file holds the module, so there is none, and an
        // open in progress takes its reference to the module before it looks at the operations.
        unsafe {
            bindings::__unregister_chrdev(self.major, 0, MINORS, self.name.as_char_ptr());
            bindings::class_destroy(self.class);
            drop(KBox::from_raw(self.operations));
        }
    }
}

/// A device node in /dev and in sysfs; removed on drop. Files that are open stay open.
///
/// # Invariants
///
/// `devt` is a device of `class`.
pub(crate) struct Node {
    class: *const bindings::class,
    devt: bindings::dev_t,
}

// SAFETY: Removing the node is not bound to a thread.
unsafe impl Send for Node {}
// SAFETY: There are no methods on `&Node`.
unsafe impl Sync for Node {}

impl Drop for Node {
    fn drop(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::device_destroy(self.class, self.devt) };
    }
}

/// What an open file stands for.
///
/// # Safety
///
/// `file` is open with the operations of `T`, and stays so for `'a`.
pub(super) unsafe fn file_data<'a, T: FileOperations>(
    file: *mut bindings::file,
) -> ArcBorrow<'a, T> {
    // SAFETY: `open` stored an `Arc<T>`, and `release` has not run.
    unsafe { <Arc<T> as ForeignOwnable>::borrow((*file).private_data) }
}

/// How many references there are to `file`: descriptors, and calls and requests in progress.
pub(crate) fn references(file: &File) -> usize {
    // SAFETY: The file is valid.
    unsafe { bindings::globalfifo_file_count(file.as_ptr()) }
}

/// The C entry points for a `T`: they convert, and call.
struct Operations<T>(PhantomData<T>);

impl<T: FileOperations> Operations<T> {
    fn table(module: &'static ThisModule) -> bindings::file_operations {
        bindings::file_operations {
            owner: module.as_ptr(),
            open: Some(Self::open),
            release: Some(Self::release),
            read_iter: Some(Self::read_iter),
            write: Some(Self::write),
            write_iter: Some(Self::write_iter),
            poll: Some(Self::poll),
            unlocked_ioctl: Some(Self::ioctl),
            compat_ioctl: bindings::compat_ptr_ioctl,
            flush: Some(Self::flush),
            fsync: Some(Self::fsync),
            fasync: Some(Self::fasync),
            splice_read: Some(Self::splice_read),
            splice_write: Some(bindings::iter_file_splice_write),
            ..pin_init::zeroed()
        }
    }

    /// # Safety
    ///
    /// `file` is a valid file.
    unsafe fn mode(file: *mut bindings::file) -> Mode {
        // SAFETY: By the safety requirements; these bits do not change after open.
        Mode(unsafe { (*file).f_mode })
    }

    /// # Safety
    ///
    /// An entry of `file_operations`: the VFS calls it with a valid inode, and a new file of it.
    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: The VFS calls with a valid inode; the low 20 bits of a `dev_t` are the minor.
        let minor = unsafe { (*inode).i_rdev } & 0xf_ffff;
        from_result(|| {
            let this = T::open(minor)?;
            // SAFETY: The VFS calls with a valid file that nobody else uses yet.
            unsafe {
                // A stream has no position: no seeking, and no lock that a waiting read would hold.
                bindings::stream_open(inode, file);
                (*file).f_mode |=
                    bindings::GLOBALFIFO_FMODE_NOWAIT | bindings::GLOBALFIFO_FMODE_CAN_ODIRECT;
                (*file).private_data = this.into_foreign();
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As for `open`, once, when nobody uses the file any more.
    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: `open` stored an `Arc<T>`, and nobody uses the file any more.
        let this = unsafe { Arc::<T>::from_foreign((*file).private_data) };
        this.as_arc_borrow().release();
        0
    }

    /// # Safety
    ///
    /// An entry of `file_operations`: called with a valid kiocb of an open file, and a destination.
    unsafe extern "C" fn read_iter(
        kiocb: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: The VFS calls with a valid kiocb and its file, and a destination iterator.
        let (this, request, iter) = unsafe {
            (
                file_data::<T>((*kiocb).ki_filp),
                Request::from_raw(kiocb),
                IovIterDest::from_raw(iter),
            )
        };
        from_result(|| {
            if iter.is_empty() {
                return Ok(0);
            }
            Ok(this.read(&request, iter)? as isize)
        })
    }

    /// # Safety
    ///
    /// An entry of `file_operations`: called with a valid kiocb of an open file, and a source.
    unsafe extern "C" fn write_iter(
        kiocb: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: The VFS calls with a valid kiocb and its file, and a source iterator.
        let (this, request, iter) = unsafe {
            (
                file_data::<T>((*kiocb).ki_filp),
                Request::from_raw(kiocb),
                IovIterSource::from_raw(iter),
            )
        };
        from_result(|| {
            if iter.is_empty() {
                return Ok(0);
            }
            Ok(this.write(&request, &mut Source::new(iter))? as isize)
        })
    }

    /// The VFS comes here first for a plain `write(2)`, and so does not have to make a kiocb and an iterator of
    /// a small one.
    ///
    /// # Safety
    ///
    /// An entry of `file_operations`: called with an open file, and a range of user addresses.
    unsafe extern "C" fn write(
        file: *mut bindings::file,
        from: *const c_char,
        length: usize,
        _position: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: The VFS calls with an open file, and has checked the range.
        let (this, bytes) = unsafe { (file_data::<T>(file), UserBytes::new(from, length)) };
        match this.write_at_hand(bytes) {
            Some(written) => written as isize,
            // SAFETY: The arguments are the caller's own; the file has a `write_iter`.
            None => unsafe { bindings::globalfifo_write_by_iter(file, from, length) },
        }
    }

    /// # Safety
    ///
    /// An entry of `file_operations`: called with an open file, a position, and a locked pipe with
    /// room.
    unsafe extern "C" fn splice_read(
        file: *mut bindings::file,
        position: *mut bindings::loff_t,
        pipe: *mut bindings::pipe_inode_info,
        length: usize,
        flags: c_uint,
    ) -> isize {
        if flags & bindings::GLOBALFIFO_SPLICE_F_NONBLOCK != 0 {
            // SAFETY: The arguments are the caller's own. A stream has no position to be moved.
            return unsafe { bindings::globalfifo_splice_read_nowait(file, pipe, length) };
        }
        // SAFETY: The arguments are the caller's own.
        unsafe { bindings::copy_splice_read(file, position, pipe, length, flags) }
    }

    /// # Safety
    ///
    /// An entry of `file_operations`: called with an open file, and a table that is null or valid.
    unsafe extern "C" fn poll(
        file: *mut bindings::file,
        table: *mut bindings::poll_table,
    ) -> bindings::__poll_t {
        // SAFETY: The VFS calls with a valid file of ours, and a table that is null or valid.
        let (this, file, mut table) = unsafe {
            (
                file_data::<T>(file),
                File::from_raw_file(file),
                PollTable::from_raw(table),
            )
        };
        this.poll(file, &mut table).bits()
    }

    /// # Safety
    ///
    /// An entry of `file_operations`: called with an open file.
    unsafe extern "C" fn ioctl(file: *mut bindings::file, command: u32, argument: usize) -> c_long {
        // SAFETY: The VFS calls with a valid file of ours.
        let (this, mode) = unsafe { (file_data::<T>(file), Self::mode(file)) };
        from_result(|| Ok(this.ioctl(mode, command, argument)? as c_long))
    }

    /// # Safety
    ///
    /// An entry of `file_operations`: called with an open file.
    unsafe extern "C" fn flush(file: *mut bindings::file, _owner: bindings::fl_owner_t) -> c_int {
        // SAFETY: The VFS calls with a valid file of ours.
        let (this, file) = unsafe { (file_data::<T>(file), File::from_raw_file(file)) };
        this.flush(file);
        0
    }

    /// # Safety
    ///
    /// An entry of `file_operations`: called with an open file.
    unsafe extern "C" fn fsync(
        file: *mut bindings::file,
        _start: bindings::loff_t,
        _end: bindings::loff_t,
        _datasync: c_int,
    ) -> c_int {
        // SAFETY: The VFS calls with a valid file of ours.
        let this = unsafe { file_data::<T>(file) };
        from_result(|| this.fsync().map(|()| 0))
    }

    /// # Safety
    ///
    /// An entry of `file_operations`: called with an open file, or one about to be released.
    unsafe extern "C" fn fasync(fd: c_int, file: *mut bindings::file, on: c_int) -> c_int {
        // SAFETY: The VFS calls with a valid file of ours.
        let (this, mode, file) = unsafe {
            (
                file_data::<T>(file),
                Self::mode(file),
                File::from_raw_file(file),
            )
        };
        from_result(|| this.fasync(file, mode, fd, on != 0).map(|()| 0))
    }
}
