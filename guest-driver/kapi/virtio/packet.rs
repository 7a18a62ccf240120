// SPDX-License-Identifier: GPL-2.0-only

//! A buffer that travels through a virtqueue.

#[cfg(GLOBALFIFO_FAST)]
use crate::kapi::pages::UserPages;
use crate::kapi::{
    bindings,
    source::Source, //
};
use core::ptr;
use kernel::{
    alloc::{
        flags::GFP_KERNEL_ACCOUNT,
        Flags, //
    },
    prelude::*, //
};

/// Memory to be given to a device, and what the driver wants to know of it when it comes back.
///
/// # Invariants
///
/// `memory` is `kmalloc` memory, and `readable + writable` is not above its length.
pub(crate) struct Packet<M> {
    memory: KVec<u8>,
    readable: usize,
    writable: usize,
    /// What the device may read after the first `readable` bytes.
    behind: Behind,
    /// The driver's own.
    pub(crate) meta: M,
}

/// What the device reads after the memory of a packet.
enum Behind {
    Nothing,
    /// More of the same, apart so that neither is an odd size; `kmalloc` memory too.
    #[cfg(GLOBALFIFO_FAST)]
    Buffer(KVec<u8>),
    /// Pages of a process.
    #[cfg(GLOBALFIFO_FAST)]
    Pages(UserPages),
}

/// Addresses and lengths of the pieces of a packet, as the virtio core takes them.
pub(super) struct Layout {
    memory: *mut c_void,
    readable: c_uint,
    writable: c_uint,
    #[cfg(GLOBALFIFO_FAST)]
    behind: LayoutBehind,
}

#[cfg(GLOBALFIFO_FAST)]
enum LayoutBehind {
    Nothing,
    Buffer(*mut c_void, c_uint),
    Pages(*mut bindings::sg_table),
}

impl Layout {
    /// Adds the pieces to `vq` under `token`; 0, or a negative errno.
    ///
    /// # Safety
    ///
    /// `vq` is valid and used by nobody else meanwhile. The pieces stay valid and unused until
    /// `token` comes back.
    pub(super) unsafe fn add_to(&self, vq: *mut bindings::virtqueue, token: *mut c_void) -> c_int {
        let gfp = bindings::GFP_ATOMIC;
        let (memory, readable, writable) = (self.memory, self.readable, self.writable);
        #[cfg(GLOBALFIFO_FAST)]
        match self.behind {
            // SAFETY: By the safety requirements.
            LayoutBehind::Pages(table) => unsafe {
                return bindings::globalfifo_add_out_table(vq, memory, readable, table, token, gfp);
            },
            // SAFETY: By the safety requirements.
            LayoutBehind::Buffer(buffer, len) => unsafe {
                return bindings::globalfifo_add_out_pair(
                    vq, memory, readable, buffer, len, token, gfp,
                );
            },
            LayoutBehind::Nothing => {}
        }
        // SAFETY: By the safety requirements, and the two parts are within the memory.
        unsafe {
            match (readable, writable) {
                (_, 0) => bindings::globalfifo_add_out(vq, memory, readable, token, gfp),
                (0, _) => bindings::globalfifo_add_in(vq, memory, writable, token, gfp),
                (_, _) => {
                    let inward = memory.byte_add(readable as usize);
                    bindings::globalfifo_add_request(
                        vq, memory, readable, inward, writable, token, gfp,
                    )
                }
            }
        }
    }
}

impl<M> Packet<M> {
    /// The pieces that are exposed to the device.
    pub(super) fn layout(&mut self) -> Layout {
        Layout {
            memory: self.memory.as_mut_ptr().cast(),
            readable: self.readable as c_uint,
            writable: self.writable as c_uint,
            #[cfg(GLOBALFIFO_FAST)]
            behind: match &mut self.behind {
                Behind::Pages(pages) => LayoutBehind::Pages(pages.table()),
                Behind::Buffer(buffer) if !buffer.is_empty() => {
                    let len = buffer.len() as c_uint;
                    LayoutBehind::Buffer(buffer.as_mut_ptr().cast(), len)
                }
                Behind::Nothing | Behind::Buffer(_) => LayoutBehind::Nothing,
            },
        }
    }

    /// Zeroed memory of `size` bytes, none of it for the device.
    pub(crate) fn new(size: usize, meta: M) -> Result<KBox<Self>> {
        let mut memory = KVec::with_capacity(size, GFP_KERNEL | __GFP_ZERO)?;
        // SAFETY: There is room for `size` bytes, and they are zero.
        unsafe { memory.inc_len(size) };
        Self::with_memory(memory, meta, GFP_KERNEL)
    }

    /// Memory that `size` bytes can be put into, and none yet; charged to the current task's memory
    /// cgroup.
    pub(crate) fn with_capacity(size: usize, meta: M) -> Result<KBox<Self>> {
        let memory = KVec::with_capacity(size, GFP_KERNEL_ACCOUNT)?;
        Self::with_memory(memory, meta, GFP_KERNEL_ACCOUNT)
    }

    fn with_memory(memory: KVec<u8>, meta: M, flags: Flags) -> Result<KBox<Self>> {
        // INVARIANT: Zero is not above any length.
        let packet = Self {
            memory,
            readable: 0,
            writable: 0,
            behind: Behind::Nothing,
            meta,
        };
        Ok(KBox::new(packet, flags)?)
    }

    /// Where bytes are appended.
    fn tail(&mut self) -> &mut KVec<u8> {
        match &mut self.behind {
            #[cfg(GLOBALFIFO_FAST)]
            Behind::Buffer(buffer) => buffer,
            _ => &mut self.memory,
        }
    }

    /// Bytes that the memory has room for.
    pub(crate) fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    /// Puts `bytes` after those that are there; false, and nothing done, without room for all.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> bool {
        let tail = self.tail();
        bytes.len() <= tail.capacity() - tail.len()
            // Allocates nothing, as there is room.
            && tail.extend_from_slice(bytes, GFP_NOWAIT).is_ok()
    }

    /// Copies the next `n` bytes of `source`, or as many as there is room for, after those that are
    /// there; fewer means a bad address. May sleep.
    pub(crate) fn append_from(&mut self, source: &mut Source<'_, '_>, n: usize) -> usize {
        let tail = self.tail();
        let room = tail.spare_capacity_mut();
        let n = n.min(room.len());
        let copied = room.get_mut(..n).map_or(0, |room| source.copy(room));
        // SAFETY: So many bytes of the room were written, and there were not more of it.
        unsafe { tail.inc_len(copied) };
        copied
    }

    /// Forgets the bytes from `len` on, where bytes are appended.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.tail().truncate(len);
        self.readable = self.readable.min(self.memory.len());
        self.writable = 0;
    }

    /// Lets the device read the first `readable` bytes, and write the `writable` bytes after them.
    pub(crate) fn expose(&mut self, readable: usize, writable: usize) {
        // INVARIANT: Cut to what there is.
        self.readable = readable.min(self.memory.len());
        self.writable = writable.min(self.memory.len() - self.readable);
    }

    /// The bytes that are in the memory.
    ///
    /// A device that breaks the rules can still write to it: what decides anything is read by
    /// [`Packet::snapshot`].
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory
    }

    /// A copy of the `N` bytes at `at`, each read once: what was checked is what is used. `None`
    /// when they are not all in the memory.
    pub(crate) fn snapshot<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let bytes = self.memory.get(at..)?.first_chunk::<N>()?;
        // SAFETY: A reference is valid for reads, and bytes have no invalid values.
        Some(unsafe { ptr::from_ref(bytes).read_volatile() })
    }

    /// These bytes, to be changed.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}

/// Payload apart from the memory, and pages of a process in its place: the fast edition.
#[cfg(GLOBALFIFO_FAST)]
impl<M> Packet<M> {
    /// Adds a buffer with room for `size` bytes, if there is memory for it: what is appended from
    /// now on goes there. The device reads it after the memory that is exposed to it, none of which
    /// it may write.
    pub(crate) fn extend_apart(&mut self, size: usize) -> Result {
        let flags = GFP_KERNEL_ACCOUNT | __GFP_NOWARN;
        self.behind = Behind::Buffer(KVec::with_capacity(size, flags)?);
        Ok(())
    }

    /// The buffer added by [`Packet::extend_apart`].
    pub(crate) fn buffer(&self) -> Option<&KVec<u8>> {
        match &self.behind {
            Behind::Buffer(buffer) => Some(buffer),
            Behind::Nothing | Behind::Pages(_) => None,
        }
    }

    /// Lets the device read `pages` after the memory that is exposed to it, none of which it may
    /// write.
    pub(crate) fn attach(&mut self, pages: UserPages) {
        self.behind = Behind::Pages(pages);
    }

    /// What was attached.
    pub(crate) fn pages(&self) -> Option<&UserPages> {
        match &self.behind {
            Behind::Pages(pages) => Some(pages),
            Behind::Nothing | Behind::Buffer(_) => None,
        }
    }
}
