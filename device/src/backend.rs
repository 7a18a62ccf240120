// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device as one VMM sees it: features, configuration space, and the way from the framework's
//! callbacks to the queue worker.
//!
//! One [`FifoBackend`] serves one connection; what outlives it is the [`Device`]. Nothing that a
//! guest does makes a callback fail, for the framework would end the worker without a word.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use tracing::debug;
use tracing::error;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost::vhost_user::message::VhostUserVirtioFeatures;
use vhost_user_backend::VhostUserBackend;
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::EventConsumer;
use vmm_sys_util::event::EventFlag;
use vmm_sys_util::event::EventNotifier;
use vmm_sys_util::event::new_event_consumer_and_notifier;

use crate::bell::Bell;
use crate::device::Device;
use crate::fault::Place;
use crate::mailbox::Mailbox;
use crate::mailbox::NoAnswer;
use crate::trace::What;
use crate::virtqueue::SharedRam;
use crate::virtqueue::Vring;
use crate::worker;
use crate::worker::WakeSource;
use crate::worker::Worker;

/// Virtio features offered.
///
/// Not among them: `VIRTIO_F_ACCESS_PLATFORM`, since the framework has no IOTLB and would take
/// I/O addresses for physical ones; `VIRTIO_F_RING_RESET`, since QEMU tells a backend nothing of
/// it.
pub const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// Protocol features offered.
pub const PROTOCOL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::CONFIG
    .union(VhostUserProtocolFeatures::MQ)
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS);

thread_local! {
    /// On a queue worker's thread: dropped when the thread ends, for whatever reason.
    static LIFE: RefCell<Option<Life>> = const { RefCell::new(None) };
}

/// The life of a queue worker. The framework's thread ends without a word when a kick cannot be read,
/// or by a panic.
#[derive(Clone, Debug)]
struct Life {
    mailbox: Arc<Mailbox>,
    ended: Arc<EventNotifier>,
    /// The connection is over, and so the worker ends.
    expected: Arc<AtomicBool>,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.mailbox.close();
        if !self.expected.load(Ordering::Acquire)
            && let Err(error) = self.ended.notify()
        {
            error!(%error, "cannot announce the end of the queue worker");
        }
    }
}

/// The device on one connection.
#[derive(Debug)]
pub struct FifoBackend {
    device: Arc<Device>,
    queue_size: u16,
    ram: SharedRam,
    worker: Mutex<Worker>,
    mailbox: Arc<Mailbox>,
    mail: Bell,
    exit: Mutex<Option<(EventConsumer, EventNotifier)>>,
    exit_fd: RawFd,
    /// The same file as `exit_fd`, to know it by.
    exit_twin: EventConsumer,
    negotiated: AtomicBool,
    ended: Option<Arc<EventNotifier>>,
    expected: Arc<AtomicBool>,
}

impl FifoBackend {
    /// The device for a new connection, which has the guest's memory in `ram`.
    ///
    /// # Errors
    ///
    /// When no eventfd can be made.
    pub fn new(device: Arc<Device>, queue_size: u16, ram: SharedRam) -> io::Result<Self> {
        let mail = Bell::new("queue worker")?;
        let exit = new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)?;
        let exit_twin = exit.0.try_clone()?;
        let worker = Worker::new(device.num_fifos());
        Ok(Self {
            worker: Mutex::new(worker),
            device,
            queue_size,
            ram,
            mailbox: Arc::new(Mailbox::new(mail.ringer())),
            mail,
            exit_fd: exit.0.as_raw_fd(),
            exit: Mutex::new(Some(exit)),
            exit_twin,
            negotiated: AtomicBool::new(false),
            ended: None,
            expected: Arc::default(),
        })
    }

    /// Has `ended` tell when the worker ends before [`FifoBackend::expect_end`].
    #[must_use]
    pub fn watched_by(self, ended: Arc<EventNotifier>) -> Self {
        Self {
            ended: Some(ended),
            ..self
        }
    }

    /// From now on it is no surprise when the worker ends.
    pub fn expect_end(&self) {
        self.expected.store(true, Ordering::Release);
    }

    /// The worker's thread has its first event.
    fn begin_life(&self) {
        let Some(ended) = &self.ended else { return };
        LIFE.with_borrow_mut(|life| {
            life.get_or_insert_with(|| Life {
                mailbox: Arc::clone(&self.mailbox),
                ended: Arc::clone(ended),
                expected: Arc::clone(&self.expected),
            });
        });
    }

    /// Where other threads can ask the worker for something.
    pub fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&self.mailbox)
    }

    /// What the worker must listen to beside the queues: a file descriptor and its number.
    pub fn listener(&self) -> (RawFd, u64) {
        (self.mail.fd(), u64::from(self.mail_event()))
    }

    /// The file descriptor that the framework keeps open when it has ended the worker; `None` if
    /// it never took it.
    pub fn leaked_fd(&self) -> Option<RawFd> {
        let exit = self.exit.lock().unwrap_or_else(PoisonError::into_inner);
        let leaked = exit.is_none() && is_same_file(&self.exit_twin, self.exit_fd);
        leaked.then_some(self.exit_fd)
    }

    /// Whether a VMM got as far as choosing features.
    pub fn negotiated(&self) -> bool {
        self.negotiated.load(Ordering::Acquire)
    }

    /// DEV-7 for a VMM that went without stopping its queues.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`] if the worker is dead.
    pub fn stop_all(&self) -> Result<(), NoAnswer> {
        self.mailbox.stop(0..self.device.num_queues())
    }

    /// The framework keeps the numbers up to the number of queues for itself.
    fn mail_event(&self) -> u16 {
        self.device.num_queues() + 1
    }
}

/// Whether the descriptor `number` stands for the same open file as `known`. Kernels before 6.10 cannot
/// tell: then it is as the version of the framework that is built in has it.
#[expect(unsafe_code, reason = "nix does not know this command of fcntl")]
fn is_same_file(known: &EventConsumer, number: RawFd) -> bool {
    /// `F_DUPFD_QUERY`
    const QUERY: libc::c_int = 1027;
    // SAFETY: the call takes two numbers and changes nothing, whatever they stand for.
    let answer = unsafe { libc::fcntl(known.as_raw_fd(), QUERY, number) };
    match answer {
        -1 => Errno::last() == Errno::EINVAL,
        answer => answer == 1,
    }
}

impl VhostUserBackend for FifoBackend {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        self.device.num_queues().into()
    }

    fn max_queue_size(&self) -> usize {
        self.queue_size.into()
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn acked_features(&self, features: u64) {
        debug!(features = format_args!("{features:#x}"), "features chosen");
        self.negotiated.store(true, Ordering::Release);
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        PROTOCOL_FEATURES
    }

    fn set_event_idx(&self, _enabled: bool) {
        // The queues know; nothing else depends on it.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        self.device.tracer().record(|| What::Config);
        let mut config = self.device.config().to_bytes();
        if let Some(tap) = self.device.faults().tap(Place::CONTROL) {
            tap.config(&mut config);
        }
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let size = usize::try_from(size).unwrap_or_default();
        config
            .into_iter()
            .chain(std::iter::repeat(0))
            .skip(offset.min(config.len()))
            .take(size)
            .collect()
    }

    fn set_config(&self, offset: u32, bytes: &[u8]) -> io::Result<()> {
        // There is nothing to write; an error would cost the guest its device.
        debug!(
            offset,
            len = bytes.len(),
            "write to configuration space ignored"
        );
        Ok(())
    }

    fn update_memory(&self, _ram: SharedRam) -> io::Result<()> {
        // `self.ram` is the same object, so the next pass sees what it holds now. The VMM may take
        // memory away once this is answered: by then no pass may be at work on the old map.
        self.mailbox.sync().map_err(|error| {
            error!(%error, "cannot exchange guest memory");
            io::Error::other(error)
        })
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        vec![u64::MAX >> (64 - u32::from(self.device.num_queues()).min(64))]
    }

    fn exit_event(&self, _thread_index: usize) -> Option<(EventConsumer, EventNotifier)> {
        self.exit
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn stop_vring(&self, queue_index: u32) -> io::Result<()> {
        let index = u16::try_from(queue_index).ok();
        self.mailbox.stop(index).map_err(|error| {
            error!(queue = queue_index, %error, "cannot stop the queue");
            io::Error::other(error)
        })
    }

    fn handle_event(
        &self,
        device_event: u16,
        _evset: EventSet,
        vrings: &[Vring],
        _thread_id: usize,
    ) -> io::Result<()> {
        self.begin_life();
        let wake = if device_event < self.device.num_queues() {
            WakeSource::Queue(device_event)
        } else if device_event == self.mail_event() {
            self.mail.heard();
            WakeSource::Mail
        } else {
            return Ok(());
        };
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        worker::run(
            wake,
            &self.device,
            &mut worker,
            vrings,
            &self.ram,
            &self.mailbox,
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use vm_memory::GuestMemoryMmap;

    use super::*;
    use crate::fifo::ResetPolicy;
    use crate::spec::FifoSpec;
    use crate::spec::Kind;

    fn backend(fifos: usize) -> FifoBackend {
        let spec = FifoSpec {
            kind: Kind::Loopback,
            capacity: 16,
        };
        let device = Device::new(&vec![spec; fifos], ResetPolicy::Keep).unwrap();
        FifoBackend::new(
            Arc::new(device),
            64,
            SharedRam::new(GuestMemoryMmap::default()),
        )
        .unwrap()
    }

    /// DEV-2: and whatever part is asked for, it has the length that was asked for.
    #[rstest]
    #[case(0, 12, b"FIFO\x01\0\0\0\x03\0\0\0")]
    #[case(0, 4, b"FIFO")]
    #[case(8, 8, &[3, 0, 0, 0, 0, 0, 0, 0])]
    #[case(8, 1, &[3])]
    #[case(7, 3, &[0, 3, 0])]
    #[case(12, 3, &[0, 0, 0])]
    #[case(u32::MAX, 2, &[0, 0])]
    #[case(0, 0, &[])]
    fn config_has_the_size_asked_for(
        #[case] offset: u32,
        #[case] size: u32,
        #[case] expected: &[u8],
    ) {
        assert_eq!(backend(3).get_config(offset, size), expected);
    }

    /// DEV-1, and none of the features that need what the framework lacks.
    #[test]
    fn offers_what_it_can_do() {
        assert_ne!(FEATURES & (1 << VIRTIO_F_VERSION_1), 0);
        for never in [33, 34, 40] {
            assert_eq!(FEATURES & (1 << never), 0, "feature bit {never}");
        }
    }

    #[rstest]
    #[case(1, 0xf)]
    #[case(31, u64::MAX)]
    fn one_worker_has_all_queues(#[case] fifos: usize, #[case] mask: u64) {
        assert_eq!(backend(fifos).queues_per_thread(), [mask]);
    }

    /// A number that meanwhile belongs to somebody else is nothing to close.
    #[test]
    fn a_descriptor_that_the_framework_closed_is_not_closed_again() {
        let backend = backend(1);
        assert_eq!(backend.leaked_fd(), None);
        let (consumer, _notifier) = backend.exit_event(0).unwrap();
        let number = consumer.as_raw_fd();
        assert_eq!(backend.leaked_fd(), Some(number));
        let other = std::fs::File::open("/dev/null").unwrap();
        // The consumer owns the number, and closes what now is there.
        let placed = place(&other, number);
        assert_eq!(placed, number);
        assert_eq!(backend.leaked_fd(), None);
    }

    #[expect(unsafe_code, reason = "the number has an owner, who is to be deceived")]
    fn place(file: &std::fs::File, number: RawFd) -> RawFd {
        // SAFETY: `number` is open, and its owner does no more than to close it.
        unsafe { libc::dup2(file.as_raw_fd(), number) }
    }
}
