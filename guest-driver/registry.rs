// SPDX-License-Identifier: GPL-2.0-only

//! Which minor number stands for which FIFO, and what the module shows of them: device nodes and
//! debugfs folders.

use crate::{
    driver::{
        self,
        Fifo, //
    },
    kapi::{
        chardev,
        virtio::IdTable,
        workqueue::{
            Urgency,
            WorkQueue, //
        },
    },
    virtio_fifo::DEFAULT_DEVICE_ID,
};
use kernel::{
    debugfs,
    device::Device,
    prelude::*,
    str::CString,
    sync::{
        global_lock,
        Arc, //
    },
};

/// The device id served; see the module parameter `virtio_id`.
pub(crate) static ID_TABLE: IdTable = IdTable::new(DEFAULT_DEVICE_ID);

struct Inner {
    /// By minor number.
    fifos: KVec<Option<Arc<Fifo>>>,
    shown: Option<KBox<Shown>>,
}

/// Where work is done.
#[derive(Clone)]
pub(crate) struct Queues {
    /// Requests, for which a process waits.
    pub(crate) requests: Arc<WorkQueue>,
    /// What a device leaves to do, which may be without end.
    pub(crate) rest: Arc<WorkQueue>,
}

struct Shown {
    queues: Queues,
    chardev: chardev::Registration<Fifo>,
    debugfs: debugfs::Dir,
}

global_lock! {
    // SAFETY: Initialised by `Registry::start` before anything else can use it: the character
    // device and the virtio driver are registered after that.
    unsafe(uninit) static REGISTRY: Mutex<Inner> = Inner {
        fifos: KVec::new(),
        shown: None,
    };
}

/// The registry's existence: everything in it is gone when this is dropped.
pub(crate) struct Registry(());

impl Registry {
    /// Reserves minor numbers, the class and the debugfs folder under `name`, and takes the device
    /// id.
    ///
    /// # Safety
    ///
    /// Called once, from the module's initialisation, before the driver is registered.
    pub(crate) unsafe fn start(
        name: &'static CStr,
        module: &'static ThisModule,
        device_id: u32,
    ) -> Result<Self> {
        // SAFETY: By the safety requirements, once.
        unsafe { REGISTRY.init() };
        // SAFETY: By the safety requirements, before the driver that uses it is registered.
        unsafe { ID_TABLE.set(device_id) };
        let chardev = chardev::Registration::new(name, module)?;
        let debugfs = debugfs::Dir::new(name);
        let queues = Queues {
            requests: Arc::new(WorkQueue::new(name, Urgency::Soon)?, GFP_KERNEL)?,
            rest: Arc::new(
                WorkQueue::new(c"globalfifo-rest", Urgency::InTurn)?,
                GFP_KERNEL,
            )?,
        };
        let shown = Shown {
            queues,
            chardev,
            debugfs,
        };
        let shown = KBox::new(shown, GFP_KERNEL)?;
        REGISTRY.lock().shown = Some(shown);
        Ok(Self(()))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let mut inner = REGISTRY.lock();
        let gone = (inner.shown.take(), core::mem::take(&mut inner.fifos));
        drop(inner);
        if let Some(shown) = &gone.0 {
            // Work holds FIFOs, and these the queues: none is left after this, so that it is not
            // a queue's own work that drops it. What is left of a device that is gone can put in
            // requests, which leave nothing.
            shown.queues.rest.drain();
            shown.queues.requests.drain();
        }
        drop(gone);
    }
}

/// Where work is done.
pub(crate) fn work_queues() -> Result<Queues> {
    let inner = REGISTRY.lock();
    let queues = inner.shown.as_ref().map(|shown| shown.queues.clone());
    queues.ok_or(ENODEV)
}

/// A FIFO that user space can open; withdrawn on drop. Files that are open stay open.
pub(crate) struct Published {
    minor: u32,
    _node: chardev::Node,
    _folder: driver::Folder,
}

impl Drop for Published {
    fn drop(&mut self) {
        let mut inner = REGISTRY.lock();
        let fifo = inner
            .fifos
            .get_mut(self.minor as usize)
            .and_then(Option::take);
        drop(inner);
        drop(fifo);
    }
}

/// Gives `fifo` the lowest free minor number and shows it.
pub(crate) fn publish(parent: &Device, fifo: &Arc<Fifo>) -> Result<Published> {
    let mut inner = REGISTRY.lock();
    let inner = &mut *inner;
    let shown = inner.shown.as_ref().ok_or(ENODEV)?;
    let minor = match inner.fifos.iter().position(Option::is_none) {
        Some(free) => free,
        None => {
            inner.fifos.push(None, GFP_KERNEL)?;
            inner.fifos.len() - 1
        }
    };
    if minor >= chardev::MINORS as usize {
        return Err(ENOSPC);
    }
    let name = CString::try_from_fmt(fmt!("globalfifo{minor}"))?;
    let folder = driver::show(&shown.debugfs, &name, fifo.stats().clone())?;
    let node = shown.chardev.create_node(parent, &name, minor as u32)?;
    if let Some(slot) = inner.fifos.get_mut(minor) {
        *slot = Some(fifo.clone());
    }
    Ok(Published {
        minor: minor as u32,
        _node: node,
        _folder: folder,
    })
}

/// What a minor number stands for.
pub(crate) fn find(minor: u32) -> Result<Arc<Fifo>> {
    let inner = REGISTRY.lock();
    let fifo = inner.fifos.get(minor as usize).and_then(Option::as_ref);
    fifo.cloned().ok_or(ENODEV)
}
