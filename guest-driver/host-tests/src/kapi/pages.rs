// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for pinned pages of a write: a copy of the bytes. Of the fast edition alone.

use super::source::Source;
use crate::iov::IovIterSource;
use crate::page::PAGE_SIZE;
use crate::prelude::*;
use std::mem::MaybeUninit;

/// As in `kapi`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Present {
    Required,
    FaultIn,
}

/// As in `kapi`.
pub(crate) struct UserPages(Vec<u8>);

impl UserPages {
    pub(crate) fn pin(
        from: &mut Source<'_, '_>,
        most: usize,
        num_pages: usize,
        present: Present,
    ) -> Result<Self> {
        let most = most.min(num_pages * PAGE_SIZE).min(from.len());
        let _no_faults = (present == Present::Required).then(super::user_memory::NoFaults::new);
        let mut bytes = Vec::with_capacity(most);
        let copied = from.copy(&mut bytes.spare_capacity_mut()[..most]);
        // SAFETY: So many bytes were written.
        unsafe { bytes.set_len(copied) };
        if bytes.is_empty() {
            return Err(EFAULT);
        }
        Ok(Self(bytes))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What the device reads.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// As in `kapi`.
pub(crate) struct UserBytes(pub(crate) Vec<u8>);

impl UserBytes {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

pub(super) fn copy_from(from: &mut IovIterSource<'_>, out: &mut [MaybeUninit<u8>]) -> usize {
    from.copy_from_iter_raw(out).len()
}
