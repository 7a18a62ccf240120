// SPDX-License-Identifier: GPL-2.0-only

//! A virtqueue and the buffers in it.

use super::{
    packet::Packet,
    shared::Shared, //
};
use crate::kapi::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    prelude::*,
    sync::Arc,
    types::ForeignOwnable, //
};

/// A virtqueue and the buffers in it.
///
/// All methods need `&mut`: a queue that several contexts share is under a lock that disables
/// interrupts.
///
/// # Invariants
///
/// `vq` is a virtqueue of `shared`'s device, and this is its only user. Every token in it is the
/// foreign form of a `KBox<Packet<M>>`.
pub(crate) struct Queue<M: Send> {
    vq: NonNull<bindings::virtqueue>,
    // Keeps the queue in existence.
    shared: Arc<Shared>,
    /// Interrupts are enabled: the device was last asked for them, rather than not to.
    interrupts: bool,
    /// Buffers taken so far.
    taken: u64,
    /// `taken` at the last check that found used buffers.
    suspected: Option<u64>,
    _packets: PhantomData<KBox<Packet<M>>>,
}

// SAFETY: A virtqueue is not bound to a thread; what is in it is `Send`.
unsafe impl<M: Send> Send for Queue<M> {}

/// Result of [`Queue::check_missed`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum MissedCheck {
    /// No used buffers that an interrupt should have told of.
    Quiet,
    /// Used buffers, whose interrupt may still be on its way: check again soon.
    Pending,
    /// Used buffers that were there at the check before, with none taken since: their interrupt is
    /// lost.
    Missed,
}

/// Why a buffer did not go into a queue, and the buffer.
pub(crate) enum Refused<M> {
    /// There is no room; try again after [`Queue::get`] gave one back.
    Full(KBox<Packet<M>>),
    /// The queue is of no use any more.
    Broken(KBox<Packet<M>>),
}

impl<M: Send> Queue<M> {
    /// # Safety
    ///
    /// `vq` is a virtqueue that `shared` keeps in existence, with nothing in it and no other user.
    pub(super) unsafe fn new(vq: NonNull<bindings::virtqueue>, shared: Arc<Shared>) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            vq,
            shared,
            interrupts: true,
            taken: 0,
            suspected: None,
            _packets: PhantomData,
        }
    }

    /// Number of descriptors.
    pub(crate) fn size(&self) -> u32 {
        // SAFETY: By the type invariants.
        unsafe { bindings::virtqueue_get_vring_size(self.vq.as_ptr()) }
    }

    /// Makes a buffer available to the device, which learns of it by [`Queue::kick`]. Never sleeps.
    pub(crate) fn add(&mut self, mut packet: KBox<Packet<M>>) -> Result<(), Refused<M>> {
        let vq = self.vq.as_ptr();
        let layout = packet.layout();
        // From here on the device may write to the memory: only raw pointers to it.
        let token = packet.into_foreign();
        // SAFETY: By the type invariants of `Self` and of `Packet`: the memory stays valid and
        // unused until the box comes back from the queue.
        let added = to_result(unsafe { layout.add_to(vq, token) });
        added.map_err(|error| {
            // SAFETY: The queue did not take it, so it is still ours.
            let packet = unsafe { KBox::<Packet<M>>::from_foreign(token) };
            if error == EIO {
                Refused::Broken(packet)
            } else {
                Refused::Full(packet)
            }
        })
    }

    /// Takes a used buffer, and how many bytes the device says it wrote.
    ///
    /// The core has checked that the buffer was in the queue; the number is the device's claim.
    pub(crate) fn get(&mut self) -> Option<(KBox<Packet<M>>, usize)> {
        let mut written = 0;
        // SAFETY: By the type invariants.
        let token = unsafe { bindings::virtqueue_get_buf(self.vq.as_ptr(), &mut written) };
        if token.is_null() {
            return None;
        }
        // SAFETY: By the type invariants, a token is a box; the queue has let go of it.
        let packet = unsafe { KBox::<Packet<M>>::from_foreign(token) };
        self.taken = self.taken.wrapping_add(1);
        Some((packet, written as usize))
    }

    /// Checks for used buffers whose interrupt is lost. Does not touch interrupts that are
    /// disabled.
    pub(crate) fn check_missed(&mut self) -> MissedCheck {
        if !self.interrupts || self.enable_interrupts() {
            self.suspected = None;
            return MissedCheck::Quiet;
        }
        if self.suspected.replace(self.taken) == Some(self.taken) {
            MissedCheck::Missed
        } else {
            MissedCheck::Pending
        }
    }

    /// Resets the device, if another of its queues has not, and takes back a buffer that the device
    /// has not used; in no particular order. Nothing is to be added from now on. May sleep.
    pub(crate) fn take_unused(&mut self) -> Option<KBox<Packet<M>>> {
        self.shared.reset();
        // SAFETY: By the type invariants; the device is reset.
        let token = unsafe { bindings::virtqueue_detach_unused_buf(self.vq.as_ptr()) };
        if token.is_null() {
            return None;
        }
        // SAFETY: By the type invariants, a token is a box; the queue has let go of it.
        Some(unsafe { KBox::<Packet<M>>::from_foreign(token) })
    }

    /// Tells the device about added buffers, unless it does not want to hear. False when the queue
    /// is broken.
    pub(crate) fn kick(&mut self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::virtqueue_kick(self.vq.as_ptr()) }
    }

    /// Disables interrupts: asks the device for none. A hint only.
    pub(crate) fn disable_interrupts(&mut self) {
        self.interrupts = false;
        // SAFETY: By the type invariants.
        unsafe { bindings::virtqueue_disable_cb(self.vq.as_ptr()) };
    }

    /// Enables interrupts; false when there are used buffers already, for which none may come.
    pub(crate) fn enable_interrupts(&mut self) -> bool {
        self.interrupts = true;
        // SAFETY: By the type invariants.
        unsafe { bindings::virtqueue_enable_cb(self.vq.as_ptr()) }
    }

    /// As [`Queue::enable_interrupts`], for when most of the buffers that are in the queue now have
    /// been used.
    #[cfg(GLOBALFIFO_FAST)]
    pub(crate) fn enable_interrupts_late(&mut self) -> bool {
        self.interrupts = true;
        // SAFETY: By the type invariants.
        unsafe { bindings::virtqueue_enable_cb_delayed(self.vq.as_ptr()) }
    }

    /// Whether interrupts are enabled.
    pub(crate) fn interrupts(&self) -> bool {
        self.interrupts
    }

    /// Whether the device is gone or has broken the queue.
    pub(crate) fn is_broken(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::virtqueue_is_broken(self.vq.as_ptr()) }
    }
}

impl<M: Send> Drop for Queue<M> {
    fn drop(&mut self) {
        // The device may still own buffers. It must not once they are freed: dropping one queue
        // stops them all.
        while self.take_unused().is_some() {}
    }
}
