// SPDX-License-Identifier: GPL-2.0-only

//! Virtio: drivers, devices, virtqueues.
//!
//! C headers: [`include/linux/virtio.h`](srctree/include/linux/virtio.h),
//! [`include/linux/virtio_config.h`](srctree/include/linux/virtio_config.h).
//!
//! A [`Queue`] owns the buffers that are in it and holds on to the device's queues, so that neither
//! can go while the other is in use: the last of the queues to be dropped resets the device and
//! deletes them all.

use super::{
    bindings,
    iter::{
        Source,
        UserBytes, //
    },
    pages::UserPages, //
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    mem::offset_of,
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    device, driver,
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    types::{
        ForeignOwnable,
        Opaque, //
    },
};

/// `VIRTIO_DEV_ANY_ID`.
const ANY_VENDOR: u32 = 0xffff_ffff;

/// The one device id a driver serves, which a module parameter may choose.
#[repr(transparent)]
pub(crate) struct IdTable(UnsafeCell<[bindings::virtio_device_id; 2]>);

// SAFETY: Written only by `set`, before the driver that reads it is registered.
unsafe impl Sync for IdTable {}

impl IdTable {
    /// A table of one id.
    pub(crate) const fn new(device: u32) -> Self {
        Self(UnsafeCell::new(Self::entries(device)))
    }

    const fn entries(device: u32) -> [bindings::virtio_device_id; 2] {
        [
            bindings::virtio_device_id {
                device,
                vendor: ANY_VENDOR,
            },
            bindings::virtio_device_id {
                device: 0,
                vendor: 0,
            },
        ]
    }

    /// Replaces the id.
    ///
    /// # Safety
    ///
    /// No driver that uses the table is registered, and no other thread calls this.
    pub(crate) unsafe fn set(&self, device: u32) {
        // SAFETY: By the safety requirements, nobody else accesses the table.
        unsafe { *self.0.get() = Self::entries(device) };
    }
}

/// A virtio driver.
pub(crate) trait Driver: Sized + Send + Sync + 'static {
    /// What a bound device has; dropped after [`Driver::remove`].
    type Data: Send + Sync + 'static;

    /// The id this driver serves.
    fn id_table() -> &'static IdTable;

    /// A device appeared. All that would have to be undone belongs into the initialiser: it is not
    /// run when there is no memory for what it makes.
    fn probe(device: &Device) -> impl PinInit<Self::Data, Error>;

    /// The device goes, or is taken away. Every [`Queue`] must be dropped on return.
    fn remove(device: &Device, data: &Self::Data);

    /// The machine goes down: stop the device, keep its data. No open file goes away.
    fn shutdown(device: &Device, data: &Self::Data);
}

/// Makes a [`Driver`] known to the virtio bus; used with [`driver::Registration`].
pub(crate) struct Adapter<T: Driver>(PhantomData<T>);

// SAFETY:
// - `bindings::virtio_driver` is a C type declared as `repr(C)`.
// - `T::Data` is the type of the driver's device private data.
// - `struct virtio_driver` embeds a `struct device_driver` at that offset.
unsafe impl<T: Driver> driver::DriverLayout for Adapter<T> {
    type DriverType = bindings::virtio_driver;
    type DriverData<'bound> = T::Data;
    const DEVICE_DRIVER_OFFSET: usize = offset_of!(Self::DriverType, driver);
}

// SAFETY: A call to `unregister` for a given instance of `DriverType` is valid if a preceding call
// to `register` has been successful.
unsafe impl<T: Driver> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        driver: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        // SAFETY: It is safe to set the fields of `struct virtio_driver` on initialisation.
        unsafe {
            (*driver.get()).driver.name = name.as_char_ptr();
            (*driver.get()).id_table = T::id_table().0.get().cast();
            (*driver.get()).probe = Some(Self::probe);
            (*driver.get()).remove = Some(Self::remove);
            (*driver.get()).shutdown = Some(Self::shutdown);
        }
        // SAFETY: `driver` is a valid `struct virtio_driver`, pinned until it is unregistered.
        to_result(unsafe { bindings::__register_virtio_driver(driver.get(), module.as_ptr()) })
    }

    unsafe fn unregister(driver: &Opaque<Self::DriverType>) {
        // SAFETY: By the safety requirements, `driver` is registered.
        unsafe { bindings::unregister_virtio_driver(driver.get()) };
    }
}

impl<T: Driver> Adapter<T> {
    extern "C" fn probe(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The bus calls with a valid device, which stays valid for the call.
        let device = unsafe { Device::from_raw(vdev) };
        // SAFETY: As above; `dev` is its embedded `struct device`, and the bus is in probe.
        let core =
            unsafe { &*(&raw mut (*vdev).dev).cast::<device::Device<device::CoreInternal<'_>>>() };
        from_result(|| {
            core.set_drvdata(T::probe(device))?;
            Ok(0)
        })
    }

    extern "C" fn remove(vdev: *mut bindings::virtio_device) {
        // SAFETY: The bus calls with a valid device that was probed.
        let (device, data) = unsafe { (Device::from_raw(vdev), Self::data(vdev)) };
        T::remove(device, data);
    }

    extern "C" fn shutdown(vdev: *mut bindings::virtio_device) {
        // SAFETY: The bus calls with a valid device that was probed.
        let (device, data) = unsafe { (Device::from_raw(vdev), Self::data(vdev)) };
        T::shutdown(device, data);
    }

    /// # Safety
    ///
    /// `vdev` is valid for `'a`, was probed by this driver and is not unbound before `'a` ends.
    unsafe fn data<'a>(vdev: *mut bindings::virtio_device) -> &'a T::Data {
        // SAFETY: By the safety requirements; `probe` stored a `T::Data`.
        unsafe {
            let core = (&raw mut (*vdev).dev).cast::<device::Device<device::CoreInternal<'_>>>();
            Pin::get_ref((*core).drvdata_borrow::<T::Data>())
        }
    }
}

/// A bound virtio device, `struct virtio_device`.
#[repr(transparent)]
pub(crate) struct Device(Opaque<bindings::virtio_device>);

impl Device {
    /// # Safety
    ///
    /// `vdev` is valid for `'a`.
    unsafe fn from_raw<'a>(vdev: *mut bindings::virtio_device) -> &'a Self {
        // SAFETY: `Self` is transparent over `struct virtio_device`.
        unsafe { &*vdev.cast() }
    }

    fn as_raw(&self) -> *mut bindings::virtio_device {
        self.0.get()
    }

    /// The generic device: parent of what the driver creates, and where messages go.
    pub(crate) fn as_dev(&self) -> &device::Device {
        // SAFETY: The embedded `struct device` is as valid as `self`.
        unsafe { device::Device::from_raw(&raw mut (*self.as_raw()).dev) }
    }

    /// Reads the 4 bytes at `offset` of configuration space, in one access. `ENXIO` when the device
    /// has none.
    pub(crate) fn config_u32(&self, offset: u32) -> Result<[u8; 4]> {
        let mut bytes = [0; 4];
        // SAFETY: The device is valid and there is room for 4 bytes.
        to_result(unsafe {
            bindings::globalfifo_get_config_u32(self.as_raw(), offset, bytes.as_mut_ptr().cast())
        })?;
        Ok(bytes)
    }

    /// Tells the device that the driver is ready: DRIVER_OK.
    pub(crate) fn ready(&self) {
        // SAFETY: The device is valid.
        unsafe { bindings::globalfifo_device_ready(self.as_raw()) };
    }

    /// Stops the device for good, as the virtio core does at shutdown: its queues are broken and no
    /// interrupt handler runs any more.
    pub(crate) fn stop(&self) {
        // SAFETY: The device is valid.
        unsafe { bindings::virtio_device_shutdown(self.as_raw()) };
    }

    /// Finds `count` virtqueues; `handler` gets their interrupts from now on.
    pub(crate) fn find_queues<H: Handler>(
        &self,
        count: u16,
        handler: Arc<H>,
    ) -> Result<FoundQueues> {
        let mut raw = KVec::from_elem(ptr::null_mut(), usize::from(count), GFP_KERNEL)?;
        let handler = handler.into_foreign();
        // SAFETY: `priv` is the driver's to use. No queue exists, so no callback can run yet.
        unsafe { (*self.as_raw()).priv_ = handler };
        // SAFETY: There is room for `count` queues, and the callback fits the handler's type.
        let found = to_result(unsafe {
            bindings::globalfifo_find_vqs(
                self.as_raw(),
                u32::from(count),
                raw.as_mut_ptr(),
                Some(interrupt::<H>),
            )
        });
        if let Err(error) = found {
            // SAFETY: Made by `into_foreign` above, and with no queue there is no other user.
            drop(unsafe { Arc::<H>::from_foreign(handler) });
            return Err(error);
        }
        let release: unsafe fn(*mut c_void) = release_handler::<H>;
        // SAFETY: The device is bound, so it holds a reference to itself that we may double.
        unsafe { bindings::get_device(&raw mut (*self.as_raw()).dev) };
        // INVARIANT: The queues exist from here on until `Shared` is dropped.
        let guard = Shared {
            vdev: self.as_raw(),
            handler,
            release,
        };
        Ok(FoundQueues {
            shared: Arc::new(guard, GFP_KERNEL)?,
            raw,
        })
    }
}

/// Gets the interrupts of a device's virtqueues.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Queue `index` may have used buffers. Called in hard interrupt context, from several CPUs at
    /// once for different queues. What it does has to be bounded, whatever the device does.
    fn queue_interrupt(self: ArcBorrow<'_, Self>, index: u32)
    where
        Self: Sized;
}

/// # Safety
///
/// A `vq_callback_t`: called for a queue that [`Device::find_queues`] made with this `H`.
unsafe extern "C" fn interrupt<H: Handler>(vq: *mut bindings::virtqueue) {
    // SAFETY: Callbacks come for queues that exist; while they do, `priv` is the foreign form of an
    // `Arc<H>`, set by `find_queues` and released by `Shared::drop` after the queues are gone.
    let (handler, index) = unsafe {
        (
            <Arc<H> as ForeignOwnable>::borrow((*(*vq).vdev).priv_),
            (*vq).index,
        )
    };
    handler.queue_interrupt(index);
}

/// # Safety
///
/// `handler` was made by `Arc::<H>::into_foreign` and is not used again.
unsafe fn release_handler<H: Handler>(handler: *mut c_void) {
    // SAFETY: By the safety requirements.
    drop(unsafe { Arc::<H>::from_foreign(handler) });
}

/// What all queues of one device share.
///
/// # Invariants
///
/// The device's virtqueues exist, and `handler` is what its `priv` points to.
struct Shared {
    vdev: *mut bindings::virtio_device,
    handler: *mut c_void,
    release: unsafe fn(*mut c_void),
}

// SAFETY: The pointers are only used by `drop`, which may run on any thread that can sleep.
unsafe impl Send for Shared {}
// SAFETY: There are no methods on `&Shared`.
unsafe impl Sync for Shared {}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: By the type invariants. Resetting the device waits for running callbacks, so
        // nobody uses the handler once the queues are deleted. We hold a device reference.
        unsafe {
            bindings::globalfifo_reset_and_del_vqs(self.vdev);
            (*self.vdev).priv_ = ptr::null_mut();
            (self.release)(self.handler);
            bindings::put_device(&raw mut (*self.vdev).dev);
        }
    }
}

/// The virtqueues of a device, before each goes to its user.
pub(crate) struct FoundQueues {
    shared: Arc<Shared>,
    raw: KVec<*mut bindings::virtqueue>,
}

impl FoundQueues {
    /// Takes queue `index`; `None` when there is none, or it has been taken.
    pub(crate) fn take<M: Send>(&mut self, index: u16) -> Option<Queue<M>> {
        let slot = self.raw.get_mut(usize::from(index))?;
        let vq = NonNull::new(core::mem::replace(slot, ptr::null_mut()))?;
        // INVARIANT: Each queue is taken once, and `shared` keeps it in existence.
        Some(Queue {
            vq,
            shared: self.shared.clone(),
            interrupts: true,
            taken: 0,
            suspected: None,
            _packets: PhantomData,
        })
    }
}

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

/// What follows the memory of a packet that the device reads.
enum Behind {
    Nothing,
    /// More of the same, apart so that neither is an odd size; `kmalloc` memory too.
    Buffer(KVec<u8>),
    /// Pages of a process.
    Pages(UserPages),
}

impl<M> Packet<M> {
    /// Zeroed memory of `size` bytes, none of it for the device.
    pub(crate) fn new(size: usize, meta: M) -> Result<KBox<Self>> {
        Self::with_memory(KVec::zeroed(size, GFP_KERNEL)?, meta)
    }

    /// Memory that `size` bytes can be put into, and none yet.
    pub(crate) fn with_capacity(size: usize, meta: M) -> Result<KBox<Self>> {
        Self::with_memory(KVec::with_capacity(size, GFP_KERNEL)?, meta)
    }

    fn with_memory(memory: KVec<u8>, meta: M) -> Result<KBox<Self>> {
        // INVARIANT: Zero is not above any length.
        Ok(KBox::new(
            Self {
                memory,
                readable: 0,
                writable: 0,
                behind: Behind::Nothing,
                meta,
            },
            GFP_KERNEL,
        )?)
    }

    /// Adds a buffer with room for `size` bytes, if there is memory at hand: what is appended from now on
    /// goes there. The device reads it after the memory that is exposed to it, none of which it may write.
    pub(crate) fn extend_apart(&mut self, size: usize) -> Result {
        self.behind = Behind::Buffer(KVec::with_capacity(size, GFP_NOWAIT | __GFP_NOWARN)?);
        Ok(())
    }

    /// The buffer added by [`Packet::extend_apart`].
    pub(crate) fn buffer(&self) -> Option<&KVec<u8>> {
        match &self.behind {
            Behind::Buffer(buffer) => Some(buffer),
            Behind::Nothing | Behind::Pages(_) => None,
        }
    }

    /// Where bytes are appended.
    fn tail(&mut self) -> &mut KVec<u8> {
        match &mut self.behind {
            Behind::Buffer(buffer) => buffer,
            Behind::Nothing | Behind::Pages(_) => &mut self.memory,
        }
    }

    /// How many bytes can be in the memory.
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

    /// Copies all of `bytes` after those that are there, or nothing: false if there is no room, or they
    /// cannot be had without sleeping. Any context.
    pub(crate) fn append_at_hand(&mut self, bytes: &UserBytes) -> bool {
        let n = bytes.len();
        let tail = self.tail();
        let Some(room) = tail.spare_capacity_mut().get_mut(..n) else {
            return false;
        };
        let copied = bytes.copy_at_hand(room);
        if copied {
            // SAFETY: So many bytes of the room were written, and there were not more of it.
            unsafe { tail.inc_len(n) };
        }
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

    /// Lets the device read `pages` after the memory that is exposed to it, none of which it may write.
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

/// A virtqueue and the buffers in it.
///
/// All methods need `&mut`: whoever shares a queue between contexts puts it under a lock that
/// disables interrupts.
///
/// # Invariants
///
/// `vq` is a virtqueue of `shared`'s device, and this is its only user. Every token in it is the
/// foreign form of a `KBox<Packet<M>>`.
pub(crate) struct Queue<M: Send> {
    vq: NonNull<bindings::virtqueue>,
    // Keeps the queue in existence.
    shared: Arc<Shared>,
    /// The device was last asked to interrupt, rather than not to.
    interrupts: bool,
    /// Buffers taken so far.
    taken: u64,
    /// What `taken` was when a look found used buffers.
    suspected: Option<u64>,
    _packets: PhantomData<KBox<Packet<M>>>,
}

// SAFETY: A virtqueue is not bound to a thread; what is in it is `Send`.
unsafe impl<M: Send> Send for Queue<M> {}

/// What a look at a queue found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing that an interrupt should have told of.
    Quiet,
    /// Used buffers, whose interrupt may still be on its way: look again soon.
    Pending,
    /// Used buffers that were there at the look before, with none taken since: their interrupt is
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
    /// Number of descriptors.
    pub(crate) fn size(&self) -> u32 {
        // SAFETY: By the type invariants.
        unsafe { bindings::virtqueue_get_vring_size(self.vq.as_ptr()) }
    }

    /// Makes a buffer available to the device, which hears of it by [`Queue::kick`]. Never sleeps.
    pub(crate) fn add(&mut self, mut packet: KBox<Packet<M>>) -> Result<(), Refused<M>> {
        let vq = self.vq.as_ptr();
        let (readable, writable) = (packet.readable as u32, packet.writable as u32);
        let out: *mut c_void = packet.memory.as_mut_ptr().cast();
        let (table, buffer) = match &mut packet.behind {
            Behind::Pages(pages) => (Some(pages.table()), None),
            Behind::Buffer(buffer) if !buffer.is_empty() => {
                let length = buffer.len() as u32;
                (None, Some((buffer.as_mut_ptr().cast::<c_void>(), length)))
            }
            Behind::Nothing | Behind::Buffer(_) => (None, None),
        };
        // From here on the device may write to the memory: only raw pointers to it.
        let token = packet.into_foreign();
        let gfp = bindings::GFP_ATOMIC;
        // SAFETY: By the type invariants of `Self` and of `Packet`: the memory stays valid and
        // unused until the box comes back from the queue.
        let added = to_result(unsafe {
            let inward = out.byte_add(readable as usize);
            match (readable, writable, table, buffer) {
                (_, _, Some(table), _) => {
                    bindings::globalfifo_add_out_table(vq, out, readable, table, token, gfp)
                }
                (_, _, None, Some((buffer, length))) => {
                    bindings::globalfifo_add_out_pair(vq, out, readable, buffer, length, token, gfp)
                }
                (_, 0, None, None) => bindings::globalfifo_add_out(vq, out, readable, token, gfp),
                (0, _, None, None) => bindings::globalfifo_add_in(vq, out, writable, token, gfp),
                (_, _, None, None) => bindings::globalfifo_add_request(
                    vq, out, readable, inward, writable, token, gfp,
                ),
            }
        });
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

    /// Looks for used buffers that no interrupt told of.
    pub(crate) fn look(&mut self) -> Look {
        // To ask again for what was asked for changes nothing, but says whether there are any.
        if !self.interrupts || self.enable_interrupts() {
            self.suspected = None;
            return Look::Quiet;
        }
        if self.suspected.replace(self.taken) == Some(self.taken) {
            Look::Missed
        } else {
            Look::Pending
        }
    }

    /// Tells the device about added buffers, unless it does not want to hear. False when the queue
    /// is broken.
    pub(crate) fn kick(&mut self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::virtqueue_kick(self.vq.as_ptr()) }
    }

    /// Asks the device not to interrupt. A hint only.
    pub(crate) fn disable_interrupts(&mut self) {
        self.interrupts = false;
        // SAFETY: By the type invariants.
        unsafe { bindings::virtqueue_disable_cb(self.vq.as_ptr()) };
    }

    /// Asks for interrupts; false when there are used buffers already, for which none may come.
    pub(crate) fn enable_interrupts(&mut self) -> bool {
        self.interrupts = true;
        // SAFETY: By the type invariants.
        unsafe { bindings::virtqueue_enable_cb(self.vq.as_ptr()) }
    }

    /// As [`Queue::enable_interrupts`], for when most of the buffers that are in the queue now have
    /// been used.
    pub(crate) fn enable_interrupts_late(&mut self) -> bool {
        self.interrupts = true;
        // SAFETY: By the type invariants.
        unsafe { bindings::virtqueue_enable_cb_delayed(self.vq.as_ptr()) }
    }

    /// Whether the device was last asked to interrupt.
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
        // The device may still own buffers. It must not once they are freed: stop it first. Doing so
        // for the first of several queues stops them all, which is what dropping one means.
        // SAFETY: By the type invariants; drops happen where sleeping is allowed.
        unsafe { bindings::virtio_reset_device(self.shared.vdev) };
        loop {
            // SAFETY: As above; the device is reset.
            let token = unsafe { bindings::virtqueue_detach_unused_buf(self.vq.as_ptr()) };
            if token.is_null() {
                break;
            }
            // SAFETY: By the type invariants, a token is a box; the queue has let go of it.
            drop(unsafe { KBox::<Packet<M>>::from_foreign(token) });
        }
    }
}
