// SPDX-License-Identifier: GPL-2.0-only

//! Counters of one FIFO, shown in debugfs under `globalfifo/globalfifoN/`.

use kernel::{
    debugfs,
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
};

/// A counter that only grows. `Relaxed`: it orders nothing.
pub(crate) struct Counter(Atomic<i64>);

impl Counter {
    const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Adds `n`.
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n as i64, Relaxed);
    }
}

impl kernel::fmt::Debug for Counter {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        write!(f, "{}", self.0.load(Relaxed))
    }
}

/// What happened to one FIFO since it was probed.
pub(crate) struct Stats {
    /// Interrupts of its two virtqueues.
    pub(crate) interrupts: Counter,
    /// Bytes that came from the device.
    pub(crate) rx_bytes: Counter,
    /// Bytes that went to the device.
    pub(crate) tx_bytes: Counter,
    /// Those of them that the device read from the memory of the process that wrote them.
    pub(crate) tx_direct: Counter,
    /// Messages that came from the device.
    pub(crate) rx_messages: Counter,
    /// Messages that went to the device, acknowledgments among them.
    pub(crate) tx_messages: Counter,
    /// Times that the owners of asynchronous files were signalled.
    pub(crate) signals: Counter,
    /// Times that waiting tasks or polls were woken.
    pub(crate) wakeups: Counter,
    /// Times that an interrupt brought more than may be done in one, and the work queue went on.
    pub(crate) deferrals: Counter,
    /// Interrupts that did not come, though the device had something to tell.
    pub(crate) missed_interrupts: Counter,
    /// Times that messages were found that the virtio core found no memory to post.
    pub(crate) left_behind: Counter,
    /// Times that a reader found data, or an end, by busy polling.
    pub(crate) busy_polls: Counter,
    /// Messages that broke the specification.
    pub(crate) protocol_errors: Counter,
    /// Asynchronous requests that were done when they were submitted.
    pub(crate) aio_at_submit: Counter,
    /// Those that an interrupt completed later, by itself or through the work queue.
    pub(crate) aio_by_interrupt: Counter,
    /// Those of them whose data went to pinned memory.
    pub(crate) aio_in_place: Counter,
    /// Those that a timer completed.
    pub(crate) aio_in_passing: Counter,
    /// Those that were cancelled, or ended by an error.
    pub(crate) aio_ended: Counter,
}

impl Stats {
    /// All zero.
    pub(crate) const fn new() -> Self {
        Self {
            interrupts: Counter::new(),
            rx_bytes: Counter::new(),
            tx_bytes: Counter::new(),
            tx_direct: Counter::new(),
            rx_messages: Counter::new(),
            tx_messages: Counter::new(),
            signals: Counter::new(),
            wakeups: Counter::new(),
            deferrals: Counter::new(),
            missed_interrupts: Counter::new(),
            left_behind: Counter::new(),
            busy_polls: Counter::new(),
            protocol_errors: Counter::new(),
            aio_at_submit: Counter::new(),
            aio_by_interrupt: Counter::new(),
            aio_in_place: Counter::new(),
            aio_in_passing: Counter::new(),
            aio_ended: Counter::new(),
        }
    }
}

/// A FIFO's folder in debugfs; gone when dropped.
pub(crate) type Folder = Pin<KBox<debugfs::Scope<Arc<Stats>>>>;

/// Shows `stats` in debugfs, in `parent`/`name`.
pub(crate) fn show(parent: &debugfs::Dir, name: &CString, stats: Arc<Stats>) -> Result<Folder> {
    KBox::pin_init(
        parent.scope(Ok::<_, Error>(stats), name, |stats: &Arc<Stats>, folder| {
            folder.read_only_file(c"interrupts", &stats.interrupts);
            folder.read_only_file(c"rx_bytes", &stats.rx_bytes);
            folder.read_only_file(c"tx_bytes", &stats.tx_bytes);
            folder.read_only_file(c"tx_direct", &stats.tx_direct);
            folder.read_only_file(c"rx_messages", &stats.rx_messages);
            folder.read_only_file(c"tx_messages", &stats.tx_messages);
            folder.read_only_file(c"signals", &stats.signals);
            folder.read_only_file(c"wakeups", &stats.wakeups);
            folder.read_only_file(c"deferrals", &stats.deferrals);
            folder.read_only_file(c"missed_interrupts", &stats.missed_interrupts);
            folder.read_only_file(c"left_behind", &stats.left_behind);
            folder.read_only_file(c"busy_polls", &stats.busy_polls);
            folder.read_only_file(c"protocol_errors", &stats.protocol_errors);
            folder.read_only_file(c"aio_at_submit", &stats.aio_at_submit);
            folder.read_only_file(c"aio_in_place", &stats.aio_in_place);
            folder.read_only_file(c"aio_by_interrupt", &stats.aio_by_interrupt);
            folder.read_only_file(c"aio_in_passing", &stats.aio_in_passing);
            folder.read_only_file(c"aio_ended", &stats.aio_ended);
        }),
        GFP_KERNEL,
    )
}
