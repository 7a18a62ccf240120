// SPDX-License-Identifier: GPL-2.0-only

//! An open file, and the buffers of its deferred requests.
//!
//! Page faults of a file's requests are taken one at a time, by a work of the file's own: a page
//! that never comes keeps nobody waiting but this file's other faults.

use super::Fifo;
use crate::{
    driver::{
        tunables::FRUITLESS_FAULTS,
        watchdog::Watchdog, //
    },
    kapi::{
        fasync::FasyncList,
        file_operations::Mode,
        kiocb::{
            FileId,
            Id, //
        },
        lock::{
            new_spinlock_irq,
            SpinLockIrq, //
        },
        user_memory::{
            Dest,
            Src,
            UserMemory, //
        },
        workqueue::InUse, //
    }, //
};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
    sync::{
        Arc,
        ArcBorrow, //
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
    pub(crate) fifo: Arc<Fifo>,
    _watched: Opened,
    /// Buffers to be faulted in, by the numbers of their requests, which all wait for that: a page
    /// that never comes has no more than these behind it. Process context, and AIO's cancel; leaf.
    #[pin]
    to_fault_in: SpinLockIrq<RBTree<Id, KBox<Buffer>>>,
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
                to_fault_in <- new_spinlock_irq!(RBTree::new(), "FifoFile::to_fault_in"),
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
        let id = buffer.id;
        match RBTreeNodeReservation::new(GFP_KERNEL) {
            Ok(place) => {
                file.to_fault_in.lock().insert(place.into_node(id, buffer));
            }
            Err(_) => {
                let fifo = file.fifo.as_arc_borrow();
                return fifo.faulted_in(buffer, Err(ENOMEM));
            }
        }
        // Cancelled before it was here.
        if !file.fifo.is_faulting(id) {
            return file.as_arc_borrow().forget(id);
        }
        let queue = file.fifo.queues.faults.clone();
        // An error says that it is to run already; it takes all buffers when it does.
        let _ = queue.queue().enqueue(file);
    }

    /// Request `id` has ended, if it waited for its buffer: that is not faulted in.
    pub(crate) fn forget(self: ArcBorrow<'_, Self>, id: Id) {
        let buffer = self.to_fault_in.lock().remove(&id);
        drop(buffer);
    }

    /// As [`FifoFile::forget`], for all requests that have ended.
    pub(crate) fn forget_ended(self: ArcBorrow<'_, Self>) {
        let mut from = 0;
        while let Some(id) = self.next_to_fault_in(from) {
            if !self.fifo.is_faulting(id) {
                self.forget(id);
            }
            from = id + 1;
        }
    }

    fn next_to_fault_in(&self, from: Id) -> Option<Id> {
        let buffers = self.to_fault_in.lock();
        let first = buffers.cursor_lower_bound(&from)?;
        Some(*first.current().0)
    }

    fn take_first(&self) -> Option<KBox<Buffer>> {
        let mut buffers = self.to_fault_in.lock();
        let first = buffers.cursor_front_mut()?;
        Some(first.remove_current().1.to_key_value().1)
    }
}

impl WorkItem for FifoFile {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // A page may never come: then unloading is refused, rather than waits for it.
        let _in_use = InUse::new();
        loop {
            let Some(mut buffer) = this.take_first() else {
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

/// Buffer of a request, apart from it: the server has it while it serves the request.
pub(crate) struct Buffer {
    /// Number of the request.
    pub(crate) id: Id,
    /// File of the request, whose work faults the buffer in.
    pub(crate) file: Arc<FifoFile>,
    pub(crate) memory: Memory,
    /// The buffer has been faulted in once: what is still missing is not there.
    pub(crate) was_faulted_in: bool,
    /// Page faults since the last byte was copied.
    fruitless_faults: u8,
    /// Position of the rx stream at which a read has to go on that met a page fault.
    pub(crate) resumes_at: Option<u64>,
}

/// Pinned memory of a read: [`Pinned`] in the fast edition, nothing in the teaching edition.
#[cfg(GLOBALFIFO_FAST)]
pub(crate) type Pinning = crate::kapi::pinned::Pinned;
#[cfg(not(GLOBALFIFO_FAST))]
pub(crate) type Pinning = ();

/// Addresses of a buffer.
pub(crate) enum Memory {
    /// Destination of a read.
    Dest(UserMemory<Dest>, Pinning),
    /// Source of a write.
    Source(UserMemory<Src>),
}

impl Buffer {
    /// The buffer of a request that has no number yet.
    pub(crate) fn new(file: Arc<FifoFile>, memory: Memory) -> Result<KBox<Self>> {
        let buffer = Self {
            id: 0,
            file,
            memory,
            was_faulted_in: false,
            fruitless_faults: 0,
            resumes_at: None,
        };
        Ok(KBox::new(buffer, GFP_KERNEL_ACCOUNT)?)
    }

    /// Notes a page fault after so many bytes. What is pinned begins elsewhere than the rest.
    pub(crate) fn note_fault(&mut self, bytes: usize) {
        self.fruitless_faults = match bytes {
            0 => self.fruitless_faults.saturating_add(1),
            _ => 0,
        };
        #[cfg(GLOBALFIFO_FAST)]
        if let Memory::Dest(_, pinned) = &mut self.memory {
            pinned.release();
        }
    }

    /// Whether to give up: what is faulted in can still not be copied to or from.
    pub(crate) fn gives_up(&self) -> bool {
        self.fruitless_faults >= FRUITLESS_FAULTS
    }
}
