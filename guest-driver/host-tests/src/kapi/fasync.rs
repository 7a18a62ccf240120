// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for SIGIO: each list keeps the signals that it was sent.

use crate::prelude::*;
use crate::sync::Arc;
use crate::world;
use std::cell::{Cell, RefCell};

/// As in `kapi`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Band {
    In,
    Out,
    Err,
    Hup,
}

/// As in `kapi`.
pub(crate) struct FasyncList {
    /// Somebody is on it.
    pub(crate) listens: Cell<bool>,
    /// So many are, then.
    pub(crate) files: Cell<u32>,
    signals: RefCell<Vec<Band>>,
}

impl FasyncList {
    pub(crate) fn new() -> Result<Arc<Self>> {
        let list = Self {
            listens: Cell::new(true),
            files: Cell::new(1),
            signals: RefCell::default(),
        };
        Ok(Arc::new(list, GFP_KERNEL)?)
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.listens.get()
    }

    pub(crate) fn len(&self) -> u32 {
        if self.listens.get() {
            self.files.get()
        } else {
            0
        }
    }

    pub(crate) fn signal(&self, band: Band) {
        world::assert_unlocked("a signal");
        self.signals.borrow_mut().push(band);
    }

    /// Number of signals so far.
    pub(crate) fn count(&self) -> usize {
        self.signals.borrow().len()
    }

    /// Whether one since the first `count` has a band of `bands`.
    pub(crate) fn signalled(&self, count: usize, bands: &[Band]) -> bool {
        self.signals
            .borrow()
            .iter()
            .skip(count)
            .any(|band| bands.contains(band))
    }
}
