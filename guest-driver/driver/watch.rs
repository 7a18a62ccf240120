// SPDX-License-Identifier: GPL-2.0-only

//! Notices interrupts that did not come, while somebody may be waiting for one.
//!
//! As long as a FIFO of the device is open, a look at all its queues is due every second. What is found
//! is looked at again a moment later, for its interrupt may be on its way; if it is still there, and
//! nobody has taken anything since, the interrupt is lost and its work is done now. So a lost
//! interrupt costs a second and that moment. With nothing open there is no timer: the machine sleeps.
//! Those who wait without an open file (requests to the device, removal) look for themselves.
//!
//! Who writes much looks for events as well ([`Lookout`]): with credit for half of what the FIFO holds each,
//! they come so often that their interrupts cost more than the copying.
//!
//! # Races
//!
//! - *The last close and the work's next round.* Both are decided under [`Watch::inner`]: the work puts
//!   itself back only while something is open, and an open that is the first starts it. It may find
//!   it queued still; then that run, which takes the lock after the open, sees the open file.
//! - *The device going away.* [`Watch::end`] takes the device out under the lock; from then on nobody
//!   starts the work, and a flush waits until a run that did not see it, or a pending timer, is over.
//!   The timer must not outlive that: unloading the module waits for queued work, not for timers.
//!
//! [`Watch::inner`] is taken in process context only, outside the locks that a look takes
//! ([`super::fifo`]'s and [`super::device`]'s), and not while looking.

use super::device::Interrupts;
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

/// Time between looks.
const PERIOD: Msecs = 1000;

/// Time that an interrupt may take to arrive before it counts as lost.
const GRACE: Msecs = 100;

struct Inner {
    /// Open files of all FIFOs of the device.
    open: usize,
    /// What to look at, while it is there.
    device: Option<Arc<Interrupts>>,
}

/// See the module.
#[pin_data]
pub(crate) struct Watch {
    #[pin]
    inner: Mutex<Inner>,
    #[pin]
    work: DelayedWork<Watch>,
    queue: Arc<WorkQueue>,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Watch { self.work }
}

impl WorkItem for Watch {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let device = this.inner.lock().device.clone();
        let Some(device) = device else {
            return;
        };
        let delay = if device.as_arc_borrow().look() {
            GRACE
        } else {
            PERIOD
        };
        let inner = this.inner.lock();
        if inner.open > 0 && inner.device.is_some() {
            this.as_arc_borrow().start(delay);
        }
    }
}

/// While somebody keeps the device busy, and so gets to look for its events soon: as long as there is one,
/// events do not interrupt. In process context; not while sleeping for anything but memory, for there may be
/// events for others. (If it has to wait for a processor, so have they, for [`PERIOD`] at most.)
pub(crate) struct Lookout(Option<Arc<Interrupts>>);

impl Lookout {
    /// Takes the events that are there.
    pub(crate) fn look(&self) {
        if let Some(device) = &self.0 {
            device.as_arc_borrow().look_for_events();
        }
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        if let Some(device) = &self.0 {
            device.as_arc_borrow().end_lookout();
        }
    }
}

impl Watch {
    /// Watches nothing yet.
    pub(crate) fn new(queue: Arc<WorkQueue>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                inner <- new_mutex!(Inner { open: 0, device: None }, "Watch::inner"),
                work <- new_delayed_work!("Watch::work"),
                queue,
            }),
            GFP_KERNEL,
        )
    }

    /// Starts to watch `device`, before the first file is opened.
    pub(crate) fn begin(&self, device: Arc<Interrupts>) {
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
            self.start(PERIOD);
        }
    }

    /// Looks for events in place of interrupts, until that is dropped.
    pub(crate) fn lookout(&self) -> Lookout {
        let device = self.inner.lock().device.clone();
        if let Some(device) = &device {
            device.begin_lookout();
        }
        Lookout(device)
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
