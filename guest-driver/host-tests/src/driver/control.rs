// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for the control queue: the device answers at once, or does not.

use crate::driver::stats::Counter;
use crate::prelude::*;
use crate::virtio_fifo::{CtrlRequest, State};
use crate::world;
use std::cell::Cell;

/// The control queue.
pub(crate) struct Control {
    busy: Cell<bool>,
}

/// Memory for a request.
pub(crate) struct Prepared;

/// The right to make a request.
pub(crate) struct Requester<'a>(&'a Control);

impl Control {
    pub(crate) fn new() -> Self {
        Self {
            busy: Cell::new(false),
        }
    }

    pub(crate) fn prepare() -> Result<Prepared> {
        Ok(Prepared)
    }

    /// Another's turn would be waited for: `ERESTARTSYS`, as there is one thread.
    pub(crate) fn requester(&self) -> Result<Requester<'_>> {
        world::assert_unlocked("a wait for the control queue");
        if self.busy.replace(true) {
            return Err(ERESTARTSYS);
        }
        Ok(Requester(self))
    }

    pub(crate) fn request_at_setup(&self, request: CtrlRequest, missed: &Counter) -> Result<State> {
        self.requester()?
            .request(Prepared, request, missed)?
            .ok_or(EIO)
    }
}

impl Drop for Requester<'_> {
    fn drop(&mut self) {
        self.0.busy.set(false);
    }
}

impl Requester<'_> {
    pub(crate) fn request(
        &self,
        _memory: Prepared,
        request: CtrlRequest,
        _missed: &Counter,
    ) -> Result<Option<State>> {
        world::assert_unlocked("a request to the device");
        let answer = world::ask(&request.to_bytes()).ok_or(EIO)?;
        Ok(Some(State::from_bytes(answer)))
    }
}
