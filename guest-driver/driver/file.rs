// SPDX-License-Identifier: GPL-2.0-only

//! An open file of a FIFO: the file operations, in terms of [`Fifo`], and the page faults of its
//! requests.
//!
//! Page faults of a file's requests are taken one at a time, by a work of the file's own: a page
//! that never comes keeps nobody waiting but this file's other faults.

use super::{
    chain::Chain,
    fifo::{
        request::{
            Buffer,
            Memory, //
        },
        Fifo, //
    },
    watchdog::Watchdog, //
};
use crate::{
    kapi::{
        chardev::{
            opener_may_write,
            Direction,
            FileOperations,
            Mode,
            ProcessId, //
        },
        fasync::FasyncList,
        kiocb::{
            Cancel,
            FileId,
            Id,
            Outcome,
            Request, //
        },
        poll::PollTable,
        source::Source,
        wait::Events,
        workqueue::InUse, //
    },
    uapi, //
};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    fs::File,
    iov::IovIterDest,
    prelude::*,
    sync::{
        new_spinlock,
        Arc,
        ArcBorrow,
        SpinLock, //
    },
    uaccess::{
        UserPtr,
        UserSlice, //
    },
    workqueue::{
        impl_has_work,
        new_work,
        Work,
        WorkItem, //
    },
};

/// An open file.
#[pin_data]
pub(crate) struct FifoFile {
    fifo: Arc<Fifo>,
    _watched: Opened,
    /// Buffers to be faulted in. Process context; leaf.
    #[pin]
    to_fault_in: SpinLock<Chain<Buffer>>,
    #[pin]
    faults: Work<FifoFile>,
}

impl_has_work! {
    impl HasWork<Self> for FifoFile { self.faults }
}

impl FifoFile {
    /// Opens a FIFO: the file, and the list that `O_ASYNC` puts it on.
    pub(crate) fn open(fifo: Arc<Fifo>, mode: Mode) -> Result<(Arc<Self>, Arc<FasyncList>)> {
        let list = fifo.notifier.list_for(mode);
        let watched = Opened::new(&fifo.watchdog);
        let file = Arc::pin_init(
            pin_init!(Self {
                fifo,
                _watched: watched,
                to_fault_in <- new_spinlock!(Chain::new(), "FifoFile::to_fault_in"),
                faults <- new_work!("FifoFile::faults"),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        Ok((file, list))
    }

    /// Identity of the file.
    pub(crate) fn id(&self) -> FileId {
        FileId::of(self)
    }

    /// Queues a buffer to be faulted in. Its request goes back in line afterwards.
    pub(crate) fn fault_in(buffer: KBox<Buffer>) {
        let file = buffer.file.clone();
        file.to_fault_in.lock().push_back(buffer);
        let queue = file.fifo.queues.faults.clone();
        // An error says that it is to run already; it takes all buffers when it does.
        let _ = queue.queue().enqueue(file);
    }
}

impl WorkItem for FifoFile {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // A page may never come: then unloading is refused, rather than waits for it.
        let _in_use = InUse::new();
        loop {
            let next = this.to_fault_in.lock().pop_front();
            let Some(mut buffer) = next else {
                return;
            };
            let size = this.fifo.capacity as usize;
            let result = match &mut buffer.memory {
                Memory::Dest(memory, _) => memory.fault_in(size),
                Memory::Source(memory) => memory.fault_in(size),
            };
            this.fifo.as_arc_borrow().faulted_in(buffer, result);
        }
    }
}

/// One more open file, for the watchdog.
struct Opened(Arc<Watchdog>);

impl Opened {
    fn new(watchdog: &Arc<Watchdog>) -> Self {
        watchdog.as_arc_borrow().opened();
        Self(watchdog.clone())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.closed();
    }
}

/// Events that a descriptor of this mode can make use of.
fn events_of(mode: Mode) -> Events {
    let mut events = Events::ERR | Events::HUP;
    if mode.can_read() {
        events |= Events::IN;
    } else {
        events = events.without(Events::READ_HUP);
    }
    if mode.can_write() {
        events |= Events::OUT;
    }
    events
}

impl FileOperations for FifoFile {
    fn read<'a>(
        self: ArcBorrow<'_, Self>,
        request: Request<'a, Self>,
        to: &mut IovIterDest<'_>,
    ) -> Outcome<'a> {
        self.fifo.as_arc_borrow().read(self, request, to)
    }

    fn write<'a>(
        self: ArcBorrow<'_, Self>,
        request: Request<'a, Self>,
        from: &mut Source<'_, '_>,
    ) -> Outcome<'a> {
        self.fifo.as_arc_borrow().write(self, request, from)
    }

    fn wait_for_splice(
        self: ArcBorrow<'_, Self>,
        direction: Direction,
        must_not_wait: bool,
    ) -> Result {
        self.fifo
            .as_arc_borrow()
            .wait_for_splice(direction, must_not_wait)
    }

    fn poll(self: ArcBorrow<'_, Self>, file: &File, mode: Mode, table: &PollTable<'_>) -> Events {
        let fifo = self.fifo.as_arc_borrow();
        table.register(file, &fifo.notifier.wait);
        let wants_data = mode.can_read() && table.asks_for(Events::IN);
        fifo.readiness(wants_data).and(events_of(mode))
    }

    fn ioctl(
        self: ArcBorrow<'_, Self>,
        file: &File,
        command: u32,
        argument: usize,
    ) -> Result<isize> {
        match command {
            uapi::FIFO_CLEAR | uapi::IOC_CLEAR => {
                // Also through a descriptor for reading: textbooks do that.
                if !opener_may_write(file) {
                    return Err(EBADF);
                }
                self.fifo.as_arc_borrow().clear()?;
            }
            uapi::FIONREAD => {
                let level = i32::try_from(self.fifo.level()?).unwrap_or(i32::MAX);
                let to = UserPtr::from_addr(argument);
                UserSlice::new(to, size_of::<i32>())
                    .writer()
                    .write(&level)?;
            }
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }

    fn fsync(self: ArcBorrow<'_, Self>) -> Result {
        self.fifo.as_arc_borrow().flush()
    }

    fn closed_by(self: ArcBorrow<'_, Self>, process: ProcessId) {
        self.fifo
            .as_arc_borrow()
            .end_requests_of(self.id(), process);
    }
}

impl Cancel for FifoFile {
    fn cancel(self: ArcBorrow<'_, Self>, id: Id) {
        self.fifo.as_arc_borrow().cancel(id);
    }
}
