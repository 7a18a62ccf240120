// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The hand-overs of docs/ordering.md, each as a model of two threads that loom runs through all orders and all stale values that the memory
//! model of C11 allows. An x86 host hides what is wrong there.
//!
//! A model has the accesses and barriers of its hand-over and nothing else: the rings themselves are Linux's and `virtio-queue`'s. Each is also
//! run with one barrier left out, and has to fail then; otherwise it would show nothing.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use loom::sync::Arc;
use loom::sync::atomic::AtomicU32;
use loom::sync::atomic::Ordering;
use loom::sync::atomic::fence;
use loom::thread;

const NEW: u32 = 1;

/// A barrier, or its absence.
type Barrier = Option<Ordering>;

fn barrier(kind: Barrier) {
    if let Some(ordering) = kind {
        fence(ordering);
    }
}

/// Whether the model holds in every order.
fn holds(model: impl Fn() + Send + Sync + 'static) -> bool {
    catch_unwind(AssertUnwindSafe(|| loom::model(model))).is_ok()
}

/// What is behind an index, the index, and the wish of the side that reads it.
#[derive(Default)]
struct Ring {
    content: AtomicU32,
    index: AtomicU32,
    wish: AtomicU32,
}

/// Publication of content behind an index: a thread that sees the index sees the content.
fn published(before_index: Barrier, after_index: Barrier) {
    let ring = Arc::new(Ring::default());
    let writer = {
        let ring = ring.clone();
        thread::spawn(move || {
            ring.content.store(NEW, Ordering::Relaxed);
            barrier(before_index);
            ring.index.store(NEW, Ordering::Relaxed);
        })
    };
    if ring.index.load(Ordering::Relaxed) == NEW {
        barrier(after_index);
        assert_eq!(ring.content.load(Ordering::Relaxed), NEW, "stale content");
    }
    writer.join().unwrap();
}

/// The same with the barriers in the store and the load of the index, or in a fence after the load.
fn stored(store: Ordering, load: Ordering, after_load: Barrier) {
    let ring = Arc::new(Ring::default());
    let writer = {
        let ring = ring.clone();
        thread::spawn(move || {
            ring.content.store(NEW, Ordering::Relaxed);
            ring.index.store(NEW, store);
        })
    };
    if ring.index.load(load) == NEW {
        barrier(after_load);
        assert_eq!(ring.content.load(Ordering::Relaxed), NEW, "stale content");
    }
    writer.join().unwrap();
}

/// One side moves an index and asks whether the other wants a notification. The other says so, and looks again. If neither sees the other, a
/// notification is lost.
fn not_lost(after_index: Barrier, after_wish: Barrier) {
    let ring = Arc::new(Ring::default());
    let mover = {
        let ring = ring.clone();
        thread::spawn(move || {
            ring.index.store(NEW, Ordering::Release);
            barrier(after_index);
            ring.wish.load(Ordering::Relaxed) == NEW
        })
    };
    ring.wish.store(NEW, Ordering::Relaxed);
    barrier(after_wish);
    let seen = ring.index.load(Ordering::Acquire) == NEW;
    let notified = mover.join().unwrap();
    assert!(
        seen || notified,
        "the index has moved without a notification"
    );
}

const RELEASE: Barrier = Some(Ordering::Release);
const ACQUIRE: Barrier = Some(Ordering::Acquire);
const FULL: Barrier = Some(Ordering::SeqCst);

/// Rows 1 and 2: `virtio_wmb` in the driver, `avail_idx(Acquire)` in the device.
#[test]
fn available_entries_are_behind_the_index() {
    assert!(holds(|| published(RELEASE, ACQUIRE)));
    assert!(!holds(|| published(None, ACQUIRE)));
    assert!(!holds(|| published(RELEASE, None)));
}

/// Rows 3 and 4: the store of the used index with Release in the device, `virtio_rmb` in the driver.
#[test]
fn used_entries_and_their_buffers_are_behind_the_index() {
    let (release, relaxed) = (Ordering::Release, Ordering::Relaxed);
    assert!(holds(move || stored(release, relaxed, ACQUIRE)));
    assert!(!holds(move || stored(relaxed, relaxed, ACQUIRE)));
    assert!(!holds(move || stored(release, relaxed, None)));
}

/// Rows 5 and 6, the notification of the device: `virtio_mb` in `virtqueue_kick_prepare`, `fence(SeqCst)` in `enable_notification`. Rows 7 and 8,
/// the interrupt, are the same with the sides exchanged: `fence(SeqCst)` in `needs_notification`, `virtio_mb` in `virtqueue_enable_cb`.
#[test]
fn no_notification_is_lost() {
    assert!(holds(|| not_lost(FULL, FULL)));
    assert!(!holds(|| not_lost(None, FULL)));
    assert!(!holds(|| not_lost(FULL, None)));
    // A barrier for stores alone, or for loads alone, is too weak on both sides.
    assert!(!holds(|| not_lost(RELEASE, ACQUIRE)));
}

/// The device's own words: what a thread has done before it raises a flag (`negotiated`, `expected`) is seen by a thread that sees the flag.
#[test]
fn what_a_flag_tells_of_is_seen_with_it() {
    let (release, acquire) = (Ordering::Release, Ordering::Acquire);
    assert!(holds(move || stored(release, acquire, None)));
    assert!(!holds(move || stored(release, Ordering::Relaxed, None)));
    assert!(!holds(move || stored(Ordering::Relaxed, acquire, None)));
}
