// SPDX-License-Identifier: GPL-2.0-only

//! The C entry points of a character device: they convert, and call [`FileOperations`].
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h), `struct file_operations`.

use super::{
    bindings,
    file_operations::{
        Direction,
        FileOperations,
        Mode,
        Open, //
    },
    kiocb::Request,
    module::this_module,
    open_file::{
        open_file,
        OpenFile,
        ProcessId, //
    },
    poll::PollTable,
    source::Source, //
};
use core::marker::PhantomData;
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    error::from_result,
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
    types::ForeignOwnable, //
};

/// The C entry points for a `T`: they convert, and call.
pub(super) struct Operations<T>(PhantomData<T>);

impl<T: Open> Operations<T> {
    pub(super) const TABLE: &'static bindings::file_operations = &bindings::file_operations {
        owner: this_module::<T::OwnerModule>().as_ptr(),
        open: Some(Self::open),
        release: Some(Self::release),
        read_iter: Some(Self::read_iter),
        write_iter: Some(Self::write_iter),
        poll: Some(Self::poll),
        unlocked_ioctl: Some(Self::ioctl),
        compat_ioctl: bindings::compat_ptr_ioctl,
        flush: Some(Self::flush),
        fsync: Some(Self::fsync),
        fasync: Some(Self::fasync),
        splice_read: Some(Self::splice_read),
        splice_write: Some(Self::splice_write),
        ..pin_init::zeroed()
    };

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
        // SAFETY: The VFS calls with a valid inode and file; the low 20 bits of a `dev_t` are the
        // minor.
        let (minor, mode) = unsafe { ((*inode).i_rdev & 0xf_ffff, Self::mode(file)) };
        from_result(|| {
            let (data, fasync) = T::open(minor, mode)?;
            // INVARIANT: A new file is on no list.
            let open = KBox::new(OpenFile { data, fasync }, GFP_KERNEL_ACCOUNT)?;
            // SAFETY: The VFS calls with a valid file that nobody else uses yet.
            unsafe {
                // A stream has no position: no seeking, and no lock that a waiting read would hold.
                bindings::stream_open(inode, file);
                (*file).f_mode |=
                    bindings::GLOBALFIFO_FMODE_NOWAIT | bindings::GLOBALFIFO_FMODE_CAN_ODIRECT;
                (*file).private_data = open.into_foreign();
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As for `open`, once, when nobody uses the file any more.
    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: `open` stored the box, and nobody uses the file any more.
        let open = unsafe { KBox::<OpenFile<T::File>>::from_foreign((*file).private_data) };
        // SAFETY: The file is still valid. The VFS has called `fasync` for this already where
        // FASYNC was set.
        unsafe { open.fasync.remove(file) };
        drop(open);
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
        let (open, request, iter) = unsafe {
            if is_copy_to_pipe(kiocb, iter) {
                (*kiocb).ki_flags |= bindings::GLOBALFIFO_IOCB_NOWAIT;
            }
            (
                open_file::<T::File>((*kiocb).ki_filp),
                Request::from_raw(kiocb),
                IovIterDest::from_raw(iter),
            )
        };
        if iter.is_empty() {
            return 0;
        }
        open.data().read(request, iter).into_raw()
    }

    /// # Safety
    ///
    /// An entry of `file_operations`: called with a valid kiocb of an open file, and a source.
    unsafe extern "C" fn write_iter(
        kiocb: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: The VFS calls with a valid kiocb and its file, and a source iterator.
        let (open, request, iter) = unsafe {
            (
                open_file::<T::File>((*kiocb).ki_filp),
                Request::from_raw(kiocb),
                IovIterSource::from_raw(iter),
            )
        };
        if iter.is_empty() {
            return 0;
        }
        open.data()
            .write(request, &mut Source::new(iter))
            .into_raw()
    }

    /// # Safety
    ///
    /// An entry of `file_operations`: called with an open file, a position, and a pipe that is
    /// locked unless it is the task's own, of `sendfile(2)`.
    unsafe extern "C" fn splice_read(
        file: *mut bindings::file,
        _position: *mut bindings::loff_t,
        pipe: *mut bindings::pipe_inode_info,
        length: usize,
        flags: c_uint,
    ) -> isize {
        // SAFETY: The arguments are the caller's own. A stream has no position to be moved.
        unsafe {
            bindings::globalfifo_splice_read(
                file,
                pipe,
                length,
                flags,
                Some(Self::wait_for_splice_read),
            )
        }
    }

    /// # Safety
    ///
    /// An entry of `file_operations`: called with a pipe, an open file and a position.
    unsafe extern "C" fn splice_write(
        pipe: *mut bindings::pipe_inode_info,
        file: *mut bindings::file,
        _position: *mut bindings::loff_t,
        length: usize,
        flags: c_uint,
    ) -> isize {
        // SAFETY: The arguments are the caller's own. A stream has no position to be moved.
        unsafe {
            bindings::globalfifo_splice_write(
                pipe,
                file,
                length,
                flags,
                Some(Self::wait_for_splice_write),
            )
        }
    }

    /// # Safety
    ///
    /// `file` is open with the operations of `T`.
    unsafe extern "C" fn wait_for_splice_read(
        file: *mut bindings::file,
        must_not_wait: bool,
    ) -> c_int {
        // SAFETY: By the safety requirements.
        unsafe { Self::wait_for_splice(file, Direction::Read, must_not_wait) }
    }

    /// # Safety
    ///
    /// `file` is open with the operations of `T`.
    unsafe extern "C" fn wait_for_splice_write(
        file: *mut bindings::file,
        must_not_wait: bool,
    ) -> c_int {
        // SAFETY: By the safety requirements.
        unsafe { Self::wait_for_splice(file, Direction::Write, must_not_wait) }
    }

    /// # Safety
    ///
    /// `file` is open with the operations of `T`.
    unsafe fn wait_for_splice(
        file: *mut bindings::file,
        direction: Direction,
        must_not_wait: bool,
    ) -> c_int {
        // SAFETY: By the safety requirements.
        let open = unsafe { open_file::<T::File>(file) };
        let waited = open.data().wait_for_splice(direction, must_not_wait);
        from_result(|| waited.map(|()| 0))
    }

    /// # Safety
    ///
    /// An entry of `file_operations`: called with an open file, and a table that is null or valid.
    unsafe extern "C" fn poll(
        file: *mut bindings::file,
        table: *mut bindings::poll_table,
    ) -> bindings::__poll_t {
        // SAFETY: The VFS calls with a valid file of ours, and a table that is null or valid.
        let (open, mode, file, table) = unsafe {
            (
                open_file::<T::File>(file),
                Self::mode(file),
                File::from_raw_file(file),
                PollTable::from_raw(table),
            )
        };
        open.data().poll(file, mode, &table).bits()
    }

    /// # Safety
    ///
    /// An entry of `file_operations`: called with an open file.
    unsafe extern "C" fn ioctl(file: *mut bindings::file, command: u32, argument: usize) -> c_long {
        // SAFETY: The VFS calls with a valid file of ours.
        let (open, file) = unsafe { (open_file::<T::File>(file), File::from_raw_file(file)) };
        from_result(|| Ok(open.data().ioctl(file, command, argument)? as c_long))
    }

    /// Called for each descriptor that is closed; passes on the last one of a process.
    ///
    /// # Safety
    ///
    /// An entry of `file_operations`: called with an open file.
    unsafe extern "C" fn flush(file: *mut bindings::file, owner: bindings::fl_owner_t) -> c_int {
        // SAFETY: The VFS calls with a valid file of ours. The table of descriptors is compared,
        // and looked into only if it is the current task's.
        let (open, has_others) = unsafe {
            (
                open_file::<T::File>(file),
                bindings::globalfifo_has_descriptor(file, owner),
            )
        };
        if !has_others {
            open.data().closed_by(ProcessId(owner as usize));
        }
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
        let open = unsafe { open_file::<T::File>(file) };
        from_result(|| open.data().fsync().map(|()| 0))
    }

    /// # Safety
    ///
    /// An entry of `file_operations`: called with an open file, or one about to be released.
    unsafe extern "C" fn fasync(fd: c_int, file: *mut bindings::file, on: c_int) -> c_int {
        // SAFETY: The VFS calls with a valid file of ours.
        let open = unsafe { open_file::<T::File>(file) };
        from_result(|| {
            // SAFETY: The file stays valid until `release`, which takes it off the list.
            if unsafe { open.fasync.set(fd, file, on) }? {
                open.data().fasync_changed(on != 0);
            }
            Ok(0)
        })
    }
}

/// Whether the pages to be read to are a pipe's: `splice` reads from a file with `O_DIRECT` so,
/// whatever its `splice_read` is, and with the pipe's lock held. A read that waited there would
/// hold up everybody at the pipe.
///
/// # Safety
///
/// Both are valid.
unsafe fn is_copy_to_pipe(kiocb: *const bindings::kiocb, iter: *const bindings::iov_iter) -> bool {
    // SAFETY: By the safety requirements.
    unsafe {
        u32::from((*iter).iter_type) == bindings::iter_type_ITER_BVEC
            && (*kiocb).ki_complete.is_none()
    }
}
