// SPDX-License-Identifier: GPL-2.0-only

//! Minor numbers, device nodes, debugfs folders, work queues: what exists once for the module.

use crate::{
    driver::{
        self,
        Fifo,
        FifoFile,
        Queues, //
    },
    kapi::{
        chardev,
        fasync::FasyncList,
        file_operations::{
            Mode,
            Open, //
        },
        virtio::IdTable, //
    },
    virtio_fifo::DEFAULT_DEVICE_ID,
    GlobalFifo, //
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
static ID_TABLE: IdTable = IdTable::new(DEFAULT_DEVICE_ID);

struct Inner {
    /// State of each minor number.
    minors: KVec<Minor>,
    shown: Option<KBox<Shown>>,
}

/// State of a minor number.
enum Minor {
    Free,
    /// Its node or folder is being made, or is still there.
    Reserved,
    Used(Arc<Fifo>),
}

struct Shown {
    queues: Queues,
    chardev: Arc<chardev::Registration<Registry>>,
    debugfs: debugfs::Dir,
    _edition: Pin<KBox<debugfs::File<&'static str>>>,
}

global_lock! {
    // SAFETY: Initialised by `Registry::start` before anything else can use it: the character
    // device and the virtio driver are registered after that.
    unsafe(uninit) static REGISTRY: Mutex<Inner> = Inner {
        minors: KVec::new(),
        shown: None,
    };
}

/// The registry's existence: everything in it is gone when this is dropped.
pub(crate) struct Registry(());

impl Registry {
    /// Reserves the major number, the class and the debugfs folder under `name`, and takes the
    /// device id.
    ///
    /// # Safety
    ///
    /// Called once, from the module's initialisation, before the driver is registered.
    pub(crate) unsafe fn start(name: &'static CStr, device_id: u32) -> Result<Self> {
        // SAFETY: By the safety requirements, once.
        unsafe { REGISTRY.init() };
        // SAFETY: By the safety requirements, before the driver that uses it is registered.
        unsafe { ID_TABLE.set(device_id) };
        let debugfs = debugfs::Dir::new(name);
        let edition = debugfs.read_only_file(c"edition", Ok::<_, Error>(driver::EDITION));
        let shown = Shown {
            queues: Queues::new()?,
            chardev: chardev::Registration::new(name)?,
            _edition: KBox::pin_init(edition, GFP_KERNEL)?,
            debugfs,
        };
        REGISTRY.lock().shown = Some(KBox::new(shown, GFP_KERNEL)?);
        Ok(Self(()))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let mut inner = REGISTRY.lock();
        let gone = (inner.shown.take(), core::mem::take(&mut inner.minors));
        drop(inner);
        if let Some(shown) = &gone.0 {
            shown.queues.drain();
        }
        drop(gone);
    }
}

/// A FIFO that user space can open; withdrawn on drop. Files that are open stay open.
pub(crate) struct Published {
    /// Dropped in this order: no new file is opened, the node and the folder go, and the number is
    /// free again.
    _lookup: Lookup,
    _node: chardev::Node<Registry>,
    _folder: driver::Folder,
    _slot: Slot,
}

/// What finds a FIFO by its minor number.
struct Lookup(usize);

impl Drop for Lookup {
    fn drop(&mut self) {
        let fifo = set(self.0, Minor::Reserved);
        drop(fifo);
    }
}

/// A minor number, which nobody else gets.
struct Slot(usize);

impl Slot {
    /// Reserves the lowest free number.
    fn reserve() -> Result<Self> {
        let mut inner = REGISTRY.lock();
        let free = inner
            .minors
            .iter()
            .position(|minor| matches!(minor, Minor::Free));
        let minor = match free {
            Some(free) => free,
            None if inner.minors.len() >= chardev::MINORS as usize => return Err(ENOSPC),
            None => {
                inner.minors.push(Minor::Free, GFP_KERNEL)?;
                inner.minors.len() - 1
            }
        };
        if let Some(slot) = inner.minors.get_mut(minor) {
            *slot = Minor::Reserved;
        }
        Ok(Self(minor))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        set(self.0, Minor::Free);
    }
}

/// Sets the state of a minor number; the FIFO that it stood for.
fn set(minor: usize, state: Minor) -> Option<Arc<Fifo>> {
    let mut inner = REGISTRY.lock();
    let slot = inner.minors.get_mut(minor)?;
    match core::mem::replace(slot, state) {
        Minor::Used(fifo) => Some(fifo),
        Minor::Free | Minor::Reserved => None,
    }
}

impl driver::Host for Registry {
    type Published = Published;

    fn id_table() -> &'static IdTable {
        &ID_TABLE
    }

    fn work_queues() -> Result<Queues> {
        let inner = REGISTRY.lock();
        let queues = inner.shown.as_ref().map(|shown| shown.queues.clone());
        queues.ok_or(ENODEV)
    }

    /// Gives `fifo` the lowest free minor number and shows it.
    fn publish(parent: &Device, fifo: &Arc<Fifo>) -> Result<Published> {
        let slot = Slot::reserve()?;
        let minor = slot.0;
        let name = CString::try_from_fmt(fmt!("globalfifo{minor}"))?;
        let (folder, chardev) = {
            let inner = REGISTRY.lock();
            let shown = inner.shown.as_ref().ok_or(ENODEV)?;
            let folder = driver::show(&shown.debugfs, &name, fifo.stats.clone())?;
            (folder, shown.chardev.clone())
        };
        // Before the node, which udev opens at once.
        set(minor, Minor::Used(fifo.clone()));
        let lookup = Lookup(minor);
        let node = chardev
            .as_arc_borrow()
            .create_node(parent, &name, minor as u32)?;
        Ok(Published {
            _lookup: lookup,
            _node: node,
            _folder: folder,
            _slot: slot,
        })
    }
}

impl Open for Registry {
    type File = FifoFile;
    type OwnerModule = GlobalFifo;

    fn open(minor: u32, mode: Mode) -> Result<(Arc<FifoFile>, Arc<FasyncList>)> {
        let fifo = match REGISTRY.lock().minors.get(minor as usize) {
            Some(Minor::Used(fifo)) => fifo.clone(),
            Some(Minor::Free | Minor::Reserved) | None => return Err(ENODEV),
        };
        FifoFile::open(fifo, mode)
    }
}
