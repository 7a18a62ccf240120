// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Virtqueues of a guest that is not trusted.
//!
//! Chains are taken from the available ring, and given back by the used ring; what they hold is
//! for [`crate::chain`]. This file knows rings and guest memory; it must not know what the bytes mean.

use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::sync::atomic::fence;

use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use tracing::warn;
use vhost_user_backend::VringMutex;
use vhost_user_backend::VringState;
use vhost_user_backend::VringT;
use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::DescriptorChain;
use virtio_queue::Queue;
use virtio_queue::QueueOwnedT;
use virtio_queue::QueueT;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryAtomic;
use vm_memory::GuestMemoryMmap;

use crate::chain::Lengths;
use crate::fault::FaultyRing;
use crate::fault::Tap;
use crate::refusal::Refusal;
use crate::trace::Notified;

/// Guest memory as it stands during one pass over a queue.
pub type GuestRam = GuestMemoryMmap<()>;
/// Guest memory that the VMM may exchange at any time.
pub type SharedRam = GuestMemoryAtomic<GuestRam>;
/// A virtqueue as the framework keeps it.
pub type Vring = VringMutex<SharedRam>;
/// A descriptor chain.
pub type Chain<'a> = DescriptorChain<&'a GuestRam>;

/// Why a virtqueue as a whole cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Its parts are not in guest memory.
    #[error("the rings are not in guest memory")]
    InvalidRings,
    /// An entry of the available ring names a descriptor that does not exist.
    #[error("descriptor {head} made available in a queue of {size}")]
    InvalidHead {
        /// The entry.
        head: u16,
        /// Descriptors that exist.
        size: u16,
    },
    /// The available ring says that there are entries, and they cannot be read.
    #[error("the available ring cannot be read")]
    UnreadableEntry,
    /// What virtio-queue found.
    #[error(transparent)]
    Queue(#[from] virtio_queue::Error),
}

/// Most chains of one pass over a queue.
const PASS_CHAINS: u32 = 256;
/// Most bytes that it moves.
const PASS_BYTES: usize = 1 << 18;
/// What a chain costs, in bytes moved.
const CHAIN_COST: usize = PASS_BYTES / PASS_CHAINS as usize;

/// How much one pass over a queue may do before the others have their turn (DEV-26).
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    chains: u32,
    bytes: usize,
}

impl Budget {
    /// What one wake-up of the worker may spend on one queue before it goes on to the next: of what is looped
    /// back, no more than a CPU still has in its own cache when it comes to copying it out.
    pub fn pass() -> Self {
        Self {
            chains: PASS_CHAINS,
            bytes: PASS_BYTES,
        }
    }

    /// Each entry that a queue of `size` can hold, once.
    fn whole(size: u16) -> Self {
        Self {
            chains: size.into(),
            bytes: usize::MAX,
        }
    }

    /// What was spent of `whole` until this was left, in bytes; at least [`CHAIN_COST`] a chain.
    pub fn spent_of(&self, whole: &Self) -> usize {
        let chains =
            usize::try_from(whole.chains.saturating_sub(self.chains)).unwrap_or(usize::MAX);
        let bytes = whole.bytes.saturating_sub(self.bytes);
        chains.saturating_mul(CHAIN_COST).saturating_add(bytes)
    }

    /// Whether there is anything left; the last chain may overdraw it.
    pub fn left(&self) -> bool {
        self.chains > 0 && self.bytes > 0
    }

    /// Accounts for a chain that moved `bytes`.
    pub fn spend(&mut self, bytes: usize) {
        self.chains = self.chains.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// A started virtqueue, locked for one pass.
pub struct ActiveQueue<'a> {
    vring: MutexGuard<'a, VringState<SharedRam>>,
    ram: &'a GuestRam,
    used: bool,
    /// What may go wrong on demand.
    faults: Option<FaultyRing<'a>>,
}

impl std::fmt::Debug for ActiveQueue<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ActiveQueue")
            .field("queue", self.vring.get_queue())
            .finish_non_exhaustive()
    }
}

impl<'a> ActiveQueue<'a> {
    /// Locks `vring` for a pass, in which `faults` are asked; `None` while the VMM has it stopped or disabled.
    ///
    /// # Errors
    ///
    /// [`QueueError::InvalidRings`]
    pub fn open(
        vring: &'a Vring,
        ram: &'a GuestRam,
        faults: Option<FaultyRing<'a>>,
    ) -> Result<Option<Self>, QueueError> {
        let vring = vring.get_mut();
        if !vring.get_queue().ready() || !vring.is_enabled() {
            return Ok(None);
        }
        if !vring.get_queue().is_valid(ram) {
            return Err(QueueError::InvalidRings);
        }
        Ok(Some(Self::new(vring, ram, faults)))
    }

    fn new(
        vring: MutexGuard<'a, VringState<SharedRam>>,
        ram: &'a GuestRam,
        faults: Option<FaultyRing<'a>>,
    ) -> Self {
        Self {
            vring,
            ram,
            used: false,
            faults,
        }
    }

    /// Runs `pass` over a queue that the VMM is about to stop. The framework has marked it not
    /// ready by then, and it may be disabled: DEV-7 wants what is available processed even so.
    ///
    /// # Errors
    ///
    /// [`QueueError::InvalidRings`] and what `pass` finds.
    pub fn with_stopping<T>(
        vring: &'a Vring,
        ram: &'a GuestRam,
        pass: impl FnOnce(&mut Self, &mut Budget) -> Result<T, QueueError>,
    ) -> Result<Option<T>, QueueError> {
        let mut vring = vring.get_mut();
        // Without a kick the queue was never started, or is stopped already.
        if vring.get_kick().is_none() {
            return Ok(None);
        }
        let was_ready = vring.get_queue().ready();
        vring.get_queue_mut().set_ready(true);
        let mut queue = Self::new(vring, ram, None);
        let result = if queue.queue().is_valid(ram) {
            let mut budget = Budget::whole(queue.queue().size());
            pass(&mut queue, &mut budget).map(Some)
        } else {
            Err(QueueError::InvalidRings)
        };
        queue.queue().set_ready(was_ready);
        result
    }

    /// A pass over everything that is available now, at most.
    pub fn whole(&mut self) -> Budget {
        Budget::whole(self.queue().size())
    }

    fn queue(&mut self) -> &mut Queue {
        self.vring.get_queue_mut()
    }

    /// Guest memory during this pass.
    pub fn ram(&self) -> &'a GuestRam {
        self.ram
    }

    /// Where to ask what goes wrong on demand; `None` while no fault is set.
    pub fn tap(&self) -> Option<Tap<'a>> {
        self.faults.as_ref().and_then(FaultyRing::tap)
    }

    /// Whether there is a chain to be taken.
    ///
    /// # Errors
    ///
    /// When the available ring is not in guest memory.
    pub fn has_available(&mut self) -> Result<bool, QueueError> {
        let ram = self.ram;
        let queue = self.queue();
        Ok(queue.avail_idx(ram, Ordering::Acquire)?.0 != queue.next_avail())
    }

    /// Takes the next chain; it must be given back by [`ActiveQueue::finish`].
    ///
    /// # Errors
    ///
    /// When the available ring is corrupt.
    pub fn pop(&mut self) -> Result<Option<Chain<'a>>, QueueError> {
        let ram = self.ram;
        // Looked at first: the iterator ends both when there is nothing and when it cannot read what
        // there is, and the driver may add something at any moment.
        if !self.has_available()? {
            return Ok(None);
        }
        let queue = self.queue();
        let size = queue.size();
        let mut available = queue.iter(ram)?;
        let Some(chain) = available.next() else {
            return Err(QueueError::UnreadableEntry);
        };
        let head = chain.head_index();
        if head >= size {
            available.go_to_previous_position();
            return Err(QueueError::InvalidHead { head, size });
        }
        Ok(Some(chain))
    }

    /// Gives `chain` back with `len` bytes written to it.
    ///
    /// # Errors
    ///
    /// When the used ring is not in guest memory.
    pub fn finish(&mut self, chain: &Chain<'_>, len: usize) -> Result<(), QueueError> {
        let (ram, head) = (self.ram, chain.head_index());
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        if let Some(faults) = &mut self.faults
            && let Some(tap) = faults.tap()
        {
            self.used |= faults.finish(tap, self.vring.get_queue_mut(), ram, head, len)?;
            return Ok(());
        }
        self.queue().add_used(ram, head, len)?;
        self.used = true;
        Ok(())
    }

    /// Asks the driver not to announce buffers.
    ///
    /// # Errors
    ///
    /// When the used ring is not in guest memory.
    pub fn silence(&mut self) -> Result<(), QueueError> {
        let ram = self.ram;
        self.queue().disable_notification(ram)?;
        self.suppress_with_faults()
    }

    /// Asks the driver to announce buffers again; `true` if some came in the meantime.
    ///
    /// # Errors
    ///
    /// When the rings are not in guest memory.
    pub fn listen(&mut self) -> Result<bool, QueueError> {
        let ram = self.ram;
        let more = self.queue().enable_notification(ram)?;
        self.suppress_with_faults()?;
        Ok(more)
    }

    fn suppress_with_faults(&mut self) -> Result<(), QueueError> {
        if let Some(faults) = &self.faults {
            faults.suppress(self.vring.get_queue(), self.ram)?;
        }
        Ok(())
    }

    /// Interrupts the driver, once for the whole pass, if buffers were used and it wants to know.
    /// Returns what came of it; `None` if nothing was used.
    ///
    /// # Errors
    ///
    /// When the rings are not in guest memory.
    pub fn notify(&mut self) -> Result<Option<Notified>, QueueError> {
        let ram = self.ram;
        if let Some(faults) = &mut self.faults {
            self.used |= faults.give_held_back(self.vring.get_queue_mut(), ram)?;
        }
        if !std::mem::take(&mut self.used) {
            return Ok(None);
        }
        if !self.wants_interrupt()? {
            return Ok(Some(Notified::Suppressed));
        }
        if !self.tap().is_none_or(Tap::interrupts_now) {
            return Ok(Some(Notified::Withheld));
        }
        Ok(Some(if signal(&self.vring) {
            Notified::Sent
        } else {
            Notified::Failed
        }))
    }

    fn wants_interrupt(&mut self) -> Result<bool, QueueError> {
        let ram = self.ram;
        let forged = self.faults.as_mut().is_some_and(FaultyRing::take_forged);
        let queue = self.queue();
        if queue.event_idx_enabled() {
            return Ok(queue.needs_notification(ram)? || forged);
        }
        // virtio-queue leaves the flag of the available ring to its caller. The fence puts the
        // used index before it, as the driver does the reverse.
        fence(Ordering::SeqCst);
        let flags: u16 = ram
            .load(GuestAddress(queue.avail_ring()), Ordering::Relaxed)
            .map_err(virtio_queue::Error::GuestMemory)?;
        Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    /// What `chain` holds, after checking all of it.
    ///
    /// # Errors
    ///
    /// The reason to refuse it.
    pub fn measure(&mut self, chain: &Chain<'a>) -> Result<Lengths, Refusal> {
        // The standard forbids chains longer than the queue; an indirect table may try.
        let longest = self.queue().size();
        Lengths::of(chain.clone(), self.ram, longest)
    }
}

/// Interrupts the driver though nothing may have been used, unless the queue is stopped. Returns
/// whether it did.
pub fn interrupt(vring: &Vring) -> bool {
    let vring = vring.get_ref();
    vring.get_queue().ready() && vring.is_enabled() && signal(&vring)
}

fn signal(vring: &VringState<SharedRam>) -> bool {
    if is_full(vring) {
        return true;
    }
    let signalled = vring.signal_used_queue();
    if let Err(error) = &signalled {
        // Only the VMM can cause this, and it has a connection to lose: say so and go on.
        warn!(%error, "cannot signal the VMM");
    }
    signalled.is_ok()
}

/// Whether the VMM has an interrupt to take already, and its eventfd has no room for another: one that blocks would stop the
/// queue worker, with a FIFO's lock held. The VMM may wait at it, so it is not made not to block.
#[expect(unsafe_code, reason = "the type of the eventfd tells its number alone")]
fn is_full(vring: &VringState<SharedRam>) -> bool {
    let Some(call) = vring.get_call() else {
        return false;
    };
    // SAFETY: `vring`, which is locked, has it open for longer than this.
    let fd = unsafe { BorrowedFd::borrow_raw(call.as_raw_fd()) };
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vm_memory::Address;
    use vm_memory::GuestAddressSpace;

    use super::*;
    use crate::fault::Faults;
    use crate::fault::Place;
    use crate::trace::Tracer;

    /// What a fault strikes follows from when it was added, not from when the pass began.
    #[test]
    #[cfg_attr(not(feature = "faults"), ignore = "needs fault injection")]
    fn a_fault_strikes_a_buffer_of_a_pass_that_began_before_it() {
        const AVAIL: GuestAddress = GuestAddress(0x1000);
        const USED: GuestAddress = GuestAddress(0x2000);
        let memory = GuestRam::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap();
        let shared = SharedRam::new(memory);
        let vring = Vring::new(shared.clone(), 8).unwrap();
        vring.set_queue_info(0, AVAIL.0, USED.0).unwrap();
        vring.set_queue_size(8);
        vring.set_queue_ready(true);
        vring.set_enabled(true);
        let faults = Faults::new(1, Arc::new(Tracer::default())).unwrap();
        let ram = shared.memory();
        let ring = FaultyRing::new(&faults, Place::tx(0));
        let mut pass = ActiveQueue::open(&vring, &ram, Some(ring))
            .unwrap()
            .unwrap();

        faults
            .add(&"wrong-index,fifo=0,on=tx".parse().unwrap())
            .unwrap();
        let descriptor = [0_u32, 0, 16, 0];
        ram.write_obj(descriptor, GuestAddress(0)).unwrap();
        ram.store(1_u16, AVAIL.unchecked_add(2), Ordering::Release)
            .unwrap();
        let chain = pass.pop().unwrap().unwrap();
        pass.finish(&chain, 0).unwrap();
        let used: u16 = ram.read_obj(USED.unchecked_add(2)).unwrap();
        assert_ne!(used, 1);
    }

    /// DEV-26: what a request to clear has processed counts for as much as in a pass of its own.
    #[test]
    fn a_whole_ring_of_chains_is_worth_as_many_of_a_pass() {
        let whole = Budget::whole(512);
        let mut left = whole;
        for _ in 0..256 {
            left.spend(0);
        }
        let mut pass = Budget::pass();
        pass.spend(left.spent_of(&whole));
        assert!(!pass.left());

        left = whole;
        left.spend(100);
        assert_eq!(left.spent_of(&whole), CHAIN_COST + 100);
    }
}
