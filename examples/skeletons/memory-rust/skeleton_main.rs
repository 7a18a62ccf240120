// SPDX-License-Identifier: GPL-2.0-only

//! skeleton: a FIFO in the driver's own memory, as a character device.
//!
//! What is missing is marked TODO(RULE): that rule of `cargo lab grade` fails until it is there.
//! `cargo lab grade . --next` names the first one. [`kapi`] has the abstractions that this stands
//! on; O_ASYNC is theirs, all but the signal itself.

use crate::kapi::{
    chardev,
    fasync::FasyncList,
    file_operations::{
        Direction,
        FileOperations,
        Mode,
        Open, //
    },
    kiocb::{
        Outcome,
        Request, //
    },
    open_file::ProcessId,
    poll::PollTable,
    source::Source,
    wait::{
        new_poll_queue,
        Events,
        PollQueue, //
    },
};
use kernel::{
    faux,
    fs::File,
    iov::IovIterDest,
    prelude::*,
    sync::{
        global_lock,
        new_mutex,
        Arc,
        ArcBorrow,
        Mutex, //
    },
};

#[allow(dead_code, unused_imports, unused_macros, reason = "a part of it is used")]
mod kapi;

module! {
    type: Skeleton,
    name: "skeleton",
    authors: ["You"],
    description: "A FIFO in memory",
    license: "GPL",
}

/// Bytes that the FIFO holds.
const SIZE: usize = 4096;
/// Empties the FIFO: the number of textbooks.
const FIFO_CLEAR: u32 = 1;

/// The FIFO, which all open files have in common.
#[pin_data]
struct Fifo {
    /// The bytes in it, oldest first, with room for [`SIZE`]. Not locked while a task waits.
    #[pin]
    bytes: Mutex<KVec<u8>>,
    /// Tasks that wait for data or for space.
    #[pin]
    wait: PollQueue,
    /// Files with O_ASYNC.
    signals: Arc<FasyncList>,
}

impl Fifo {
    fn new() -> Result<Arc<Self>> {
        let bytes = KVec::with_capacity(SIZE, GFP_KERNEL)?;
        let signals = FasyncList::new()?;
        let init = pin_init!(Self {
            bytes <- new_mutex!(bytes, "Fifo::bytes"),
            wait <- new_poll_queue!("Fifo::wait"),
            signals,
        });
        Arc::pin_init(init, GFP_KERNEL)
    }
}

impl FileOperations for Fifo {
    fn read<'a>(
        self: ArcBorrow<'_, Self>,
        request: Request<'a, Self>,
        _to: &mut IovIterDest<'_>,
    ) -> Outcome<'a> {
        // TODO(read.data): `to.copy_to_iter` of the oldest bytes; the outcome is their number.
        // TODO(read.order): remove them from `self.bytes`.
        // TODO(read.zero): 0 would be the end of the file: without data a read waits.
        // TODO(read.blocks): without data, `self.wait.wait(WaitFor::Readable, Signals::Interrupt,
        // None, …)` without the lock, and look again: another may have been faster.
        // TODO(read.nonblock): EAGAIN where `request.must_not_wait()`.
        // TODO(read.fault): EFAULT if nothing can be copied, and then nothing is lost.
        // TODO(write.wakes): there is space now: `self.wait.wake(Events::OUT)`.
        request.answer(Err(EOPNOTSUPP))
    }

    fn write<'a>(
        self: ArcBorrow<'_, Self>,
        request: Request<'a, Self>,
        _from: &mut Source<'_, '_>,
    ) -> Outcome<'a> {
        // TODO(read.data): append the bytes; the outcome is their number.
        // TODO(read.wakes): `self.wait.wake(Events::IN)`.
        // TODO(write.short): take what fits.
        // TODO(write.blocks): wait while the FIFO is full.
        // TODO(write.nonblock): EAGAIN where `request.must_not_wait()`.
        // TODO(fasync.readable): `self.signals.signal(Band::In)`.
        request.answer(Err(EOPNOTSUPP))
    }

    fn wait_for_splice(self: ArcBorrow<'_, Self>, _direction: Direction, _now: bool) -> Result {
        Ok(())
    }

    fn poll(self: ArcBorrow<'_, Self>, file: &File, _mode: Mode, table: &PollTable<'_>) -> Events {
        table.register(file, &self.wait);
        // TODO(poll.readable): `Events::IN` while there is data.
        // TODO(poll.writable): `Events::OUT` while there is space.
        Events::NONE
    }

    fn ioctl(self: ArcBorrow<'_, Self>, _file: &File, command: u32, _: usize) -> Result<isize> {
        match command {
            // TODO(clear.empties): empty the FIFO.
            // TODO(clear.wakes): that makes space.
            FIFO_CLEAR => Err(EOPNOTSUPP),
            _ => Err(ENOTTY),
        }
    }

    fn fsync(self: ArcBorrow<'_, Self>) -> Result {
        Ok(())
    }

    fn closed_by(self: ArcBorrow<'_, Self>, _process: ProcessId) {}
}

/// What opens the node.
struct Opener;

impl Open for Opener {
    type File = Fifo;
    type OwnerModule = Skeleton;

    fn open(_minor: u32, _mode: Mode) -> Result<(Arc<Fifo>, Arc<FasyncList>)> {
        let fifo = FIFO.lock().clone().ok_or(ENODEV)?;
        let signals = fifo.signals.clone();
        Ok((fifo, signals))
    }
}

global_lock! {
    // SAFETY: Initialised by `Skeleton::init`, before the node can be opened.
    unsafe(uninit) static FIFO: Mutex<Option<Arc<Fifo>>> = None;
}

/// The module. Dropped from top to bottom.
struct Skeleton {
    _node: chardev::Node<Opener>,
    _parent: faux::Registration,
}

impl kernel::Module for Skeleton {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        // SAFETY: Once, and nobody uses it yet.
        unsafe { FIFO.init() };
        *FIFO.lock() = Some(Fifo::new()?);
        let parent = faux::Registration::new(c"skeleton", None)?;
        let chardev = chardev::Registration::<Opener>::new(c"skeleton")?;
        // Last: from here on it can be opened.
        let node = chardev
            .as_arc_borrow()
            .create_node(parent.as_ref().as_ref(), c"skeleton", 0)?;
        Ok(Self {
            _node: node,
            _parent: parent,
        })
    }
}

impl Drop for Skeleton {
    fn drop(&mut self) {
        // No file is open, or the module would not go.
        drop(FIFO.lock().take());
    }
}
