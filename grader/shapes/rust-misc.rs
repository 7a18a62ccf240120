// SPDX-License-Identifier: GPL-2.0-only

//! A right driver in another shape: Rust, a misc device by the kernel crate's abstraction, one condition variable, bytes in a mutex. The
//! abstraction has neither poll nor fasync: its table of operations is copied, and those two are added.

use core::cell::UnsafeCell;
use kernel::bindings;
use kernel::error::to_result;
use kernel::fs::File;
use kernel::fs::Kiocb;
use kernel::iov::IovIterDest;
use kernel::iov::IovIterSource;
use kernel::miscdevice::MiscDevice;
use kernel::miscdevice::MiscDeviceOptions;
use kernel::miscdevice::MiscDeviceRegistration;
use kernel::new_mutex;
use kernel::new_poll_condvar;
use kernel::prelude::*;
use kernel::sync::poll::PollCondVar;
use kernel::sync::poll::PollTable;
use kernel::sync::Arc;
use kernel::sync::Mutex;
use kernel::types::ForeignOwnable;

const SIZE: usize = 4096;
const FIFO_CLEAR: u32 = 1;
const O_NONBLOCK: u32 = 0o4000;
const SIGIO: c_int = 29;
const POLL_IN: c_int = 1;
const POLL_OUT: c_int = 2;
const READABLE: u32 = 0x041; // EPOLLIN | EPOLLRDNORM
const WRITABLE: u32 = 0x104; // EPOLLOUT | EPOLLWRNORM

module! {
    type: Module,
    name: "rust_misc",
    authors: ["globalfifo"],
    description: "FIFO as a misc device in Rust",
    license: "GPL",
}

kernel::sync::global_lock! {
    // SAFETY: Initialised in `Module::init`, before the device can be opened.
    unsafe(uninit) static FIFO: Mutex<Option<Arc<Fifo>>> = None;
}

struct Bytes {
    mem: [u8; SIZE],
    len: usize,
}

/// Files with O_ASYNC; the kernel's functions for the list lock it.
struct Async(UnsafeCell<*mut bindings::fasync_struct>);

// SAFETY: Only `fasync_helper` and `kill_fasync` use the list, from any task.
unsafe impl Send for Async {}
// SAFETY: The same.
unsafe impl Sync for Async {}

#[pin_data]
struct Fifo {
    #[pin]
    bytes: Mutex<Bytes>,
    #[pin]
    changed: PollCondVar,
    files: Async,
}

impl Fifo {
    fn tell(&self, band: c_int) {
        self.changed.notify_all();
        // SAFETY: The list is one that `fasync_helper` keeps.
        unsafe { bindings::kill_fasync(self.files.0.get(), SIGIO, band) };
    }
}

/// Whether the caller does not want to wait.
fn is_impatient<T: ForeignOwnable>(kiocb: &Kiocb<'_, T>) -> bool {
    // SAFETY: The request is valid and has a file for as long as it is borrowed.
    unsafe { (*(*kiocb.as_raw()).ki_filp).f_flags & O_NONBLOCK != 0 }
}

#[vtable]
impl MiscDevice for Fifo {
    type Ptr = Arc<Self>;

    fn open(file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Arc<Self>> {
        // SAFETY: The file is being opened; the inode is not looked at.
        to_result(unsafe { bindings::stream_open(core::ptr::null_mut(), file.as_ptr()) })?;
        FIFO.lock().clone().ok_or(ENODEV)
    }

    fn release(fifo: Arc<Self>, file: &File) {
        // SAFETY: The file is valid, and the list is this device's.
        unsafe { bindings::fasync_helper(-1, file.as_ptr(), 0, fifo.files.0.get()) };
    }

    fn read_iter(kiocb: Kiocb<'_, Arc<Self>>, iov: &mut IovIterDest<'_>) -> Result<usize> {
        let fifo = kiocb.file();
        if iov.is_empty() {
            return Ok(0);
        }
        let mut bytes = fifo.bytes.lock();
        while bytes.len == 0 {
            if is_impatient(&kiocb) {
                return Err(EAGAIN);
            }
            if fifo.changed.wait_interruptible(&mut bytes) {
                return Err(ERESTARTSYS);
            }
        }
        let count = iov.len().min(bytes.len);
        let copied = iov.copy_to_iter(&bytes.mem[..count]);
        let len = bytes.len;
        bytes.mem.copy_within(copied..len, 0);
        bytes.len -= copied;
        drop(bytes);
        if copied == 0 {
            return Err(EFAULT);
        }
        fifo.tell(POLL_OUT);
        Ok(copied)
    }

    fn write_iter(kiocb: Kiocb<'_, Arc<Self>>, iov: &mut IovIterSource<'_>) -> Result<usize> {
        let fifo = kiocb.file();
        if iov.is_empty() {
            return Ok(0);
        }
        let mut bytes = fifo.bytes.lock();
        while bytes.len == SIZE {
            if is_impatient(&kiocb) {
                return Err(EAGAIN);
            }
            if fifo.changed.wait_interruptible(&mut bytes) {
                return Err(ERESTARTSYS);
            }
        }
        let len = bytes.len;
        let end = SIZE.min(len + iov.len());
        let copied = iov.copy_from_iter(&mut bytes.mem[len..end]);
        bytes.len += copied;
        drop(bytes);
        if copied == 0 {
            return Err(EFAULT);
        }
        fifo.tell(POLL_IN);
        Ok(copied)
    }

    fn ioctl(
        fifo: <Arc<Self> as ForeignOwnable>::Borrowed<'_>,
        _file: &File,
        cmd: u32,
        _arg: usize,
    ) -> Result<isize> {
        if cmd != FIFO_CLEAR {
            return Err(ENOTTY);
        }
        fifo.bytes.lock().len = 0;
        fifo.tell(POLL_OUT);
        Ok(0)
    }
}

unsafe extern "C" fn poll(file: *mut bindings::file, table: *mut bindings::poll_table) -> u32 {
    // SAFETY: `open` has put an `Arc<Fifo>` there.
    let fifo = unsafe { <Arc<Fifo> as ForeignOwnable>::borrow((*file).private_data) };
    // SAFETY: Both are valid during the call.
    let (table, file) = unsafe { (PollTable::from_raw(table), File::from_raw_file(file)) };
    table.register_wait(file, &fifo.changed);
    let len = fifo.bytes.lock().len;
    (if len > 0 { READABLE } else { 0 }) | (if len < SIZE { WRITABLE } else { 0 })
}

unsafe extern "C" fn fasync(fd: c_int, file: *mut bindings::file, on: c_int) -> c_int {
    // SAFETY: `open` has put an `Arc<Fifo>` there.
    let fifo = unsafe { <Arc<Fifo> as ForeignOwnable>::borrow((*file).private_data) };
    // SAFETY: The file is valid, and the list is this device's.
    unsafe { bindings::fasync_helper(fd, file, on, fifo.files.0.get()) }
}

/// The registered device; both boxes stay where they are until it has been taken back.
struct Module {
    device: KBox<bindings::miscdevice>,
    _operations: KBox<bindings::file_operations>,
}

// SAFETY: Nothing but `drop` uses the pointers in it.
unsafe impl Send for Module {}
// SAFETY: The same.
unsafe impl Sync for Module {}

impl kernel::Module for Module {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        // SAFETY: Once, before anything uses it.
        unsafe { FIFO.init() };
        let fifo = Arc::pin_init(
            pin_init!(Fifo {
                bytes <- new_mutex!(Bytes { mem: [0; SIZE], len: 0 }),
                changed <- new_poll_condvar!(),
                files: Async(UnsafeCell::new(core::ptr::null_mut())),
            }),
            GFP_KERNEL,
        )?;
        *FIFO.lock() = Some(fifo);
        let options = MiscDeviceOptions { name: c"rustfifo" };
        let mut device = KBox::new(options.into_raw::<Fifo>(), GFP_KERNEL)?;
        // SAFETY: The abstraction's table is a constant.
        let mut operations = KBox::new(unsafe { *device.fops }, GFP_KERNEL)?;
        operations.poll = Some(poll);
        operations.fasync = Some(fasync);
        device.fops = &raw const *operations;
        // SAFETY: Device and operations stay until `drop`.
        to_result(unsafe { bindings::misc_register(&raw mut *device) })?;
        Ok(Self {
            device,
            _operations: operations,
        })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: It is registered.
        unsafe { bindings::misc_deregister(&raw mut *self.device) };
        *FIFO.lock() = None;
    }
}
