// SPDX-License-Identifier: GPL-2.0-only

//! The watchdog: notices interrupts that were lost, while somebody may be waiting for one (DRV-18).
//!
//! As long as a FIFO of a device is open, all its queues are checked every second. Used buffers
//! that are found are checked again a moment later, for their interrupt may be on its way; if they
//! are still there, and none has been taken since, the interrupt is lost and its work is done now.
//! So a lost interrupt costs a second and that moment. With nothing open there is no timer: the
//! machine sleeps. Tasks that wait without an open file (requests to the device, removal) check for
//! themselves. Must not know the device: a [`Watched`] is all it sees.
//!
//! # Races
//!
//! - *The last close and the next check.* Both are decided under [`Watchdog::inner`]: the work puts
//!   itself back only while something is open, and an open that is the first starts it. It may find
//!   it queued still; then that run, which takes the lock after the open, sees the open file.
//! - *The device going away.* [`Watchdog::end`] takes the device out under the lock; from then on
//!   nobody starts the work, and a flush waits until a run that did not see it, or a pending timer,
//!   is over. The timer must not outlive that: unloading the module waits for queued work, not for
//!   timers.

use super::tunables::{
    WATCHDOG_GRACE,
    WATCHDOG_PERIOD, //
};
use crate::kapi::workqueue::{
    flush_delayed,
    WorkQueue, //
};
use kernel::{
    prelude::*,
    sync::{
        new_mutex,
        Arc,
        ArcBorrow,
        Mutex, //
    },
    time::{
        msecs_to_jiffies,
        Msecs, //
    },
    workqueue::{
        impl_has_delayed_work,
        new_delayed_work,
        DelayedWork,
        WorkItem, //
    },
};

/// A device whose interrupts may be lost.
pub(crate) trait Watched: Send + Sync {
    /// Does the work of interrupts that were lost; whether to check again soon, because one may yet
    /// come.
    fn check_missed(self: ArcBorrow<'_, Self>) -> bool;
}

struct Inner {
    /// Open files of all FIFOs of the device.
    open: usize,
    /// The device, while it is there.
    device: Option<Arc<dyn Watched>>,
}

/// The watchdog of one device.
#[pin_data]
pub(crate) struct Watchdog {
    /// Process context. Not held during a check; leaf.
    #[pin]
    inner: Mutex<Inner>,
    #[pin]
    work: DelayedWork<Watchdog>,
    queue: Arc<WorkQueue>,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Watchdog { self.work }
}

impl WorkItem for Watchdog {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let device = this.inner.lock().device.clone();
        let Some(device) = device else {
            return;
        };
        let delay = if device.as_arc_borrow().check_missed() {
            WATCHDOG_GRACE
        } else {
            WATCHDOG_PERIOD
        };
        let inner = this.inner.lock();
        if inner.open > 0 && inner.device.is_some() {
            this.as_arc_borrow().start(delay);
        }
    }
}

impl Watchdog {
    /// Watches nothing yet.
    pub(crate) fn new(queue: Arc<WorkQueue>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                inner <- new_mutex!(Inner { open: 0, device: None }, "Watchdog::inner"),
                work <- new_delayed_work!("Watchdog::work"),
                queue,
            }),
            GFP_KERNEL,
        )
    }

    /// Starts to watch `device`, before the first file is opened.
    pub(crate) fn begin(&self, device: Arc<dyn Watched>) {
        self.inner.lock().device = Some(device);
    }

    /// Stops to watch, for good.
    pub(crate) fn end(&self) {
        let device = self.inner.lock().device.take();
        flush_delayed(&self.work);
        drop(device);
    }

    /// A file was opened.
    pub(crate) fn opened(self: ArcBorrow<'_, Self>) {
        let mut inner = self.inner.lock();
        inner.open += 1;
        if inner.open == 1 && inner.device.is_some() {
            self.start(WATCHDOG_PERIOD);
        }
    }

    /// An open file is gone.
    pub(crate) fn closed(&self) {
        self.inner.lock().open -= 1;
    }

    /// Called under the lock.
    fn start(self: ArcBorrow<'_, Self>, delay: Msecs) {
        let delay = msecs_to_jiffies(delay);
        // An error says that it is to run already: see the module.
        let _ = self.queue.queue().enqueue_delayed(Arc::from(self), delay);
    }
}
