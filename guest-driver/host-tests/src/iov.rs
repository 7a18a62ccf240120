// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for `kernel::iov`, and the user memory behind it: bytes that may be there, fault, or never be there.

use crate::world::{self, Point};
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::rc::Rc;

/// A buffer of a process.
#[derive(Debug)]
pub struct UserBuffer {
    /// Its bytes.
    pub bytes: RefCell<Vec<u8>>,
    /// Bytes that are there; the rest is faulted in.
    pub present: Cell<usize>,
    /// Bytes that can be had at all.
    pub mapped: Cell<usize>,
    /// Faulted in for all the kernel can tell, and yet not to be copied to or from.
    pub is_inaccessible: Cell<bool>,
}

impl UserBuffer {
    /// With these bytes, all there.
    pub fn new(bytes: Vec<u8>) -> Rc<Self> {
        let length = bytes.len();
        Rc::new(Self {
            bytes: RefCell::new(bytes),
            present: Cell::new(length),
            mapped: Cell::new(length),
            is_inaccessible: Cell::new(false),
        })
    }

    /// Faults in `size` bytes at `at`; how many of them are missing afterwards.
    pub fn fault_in(&self, at: usize, size: usize) -> usize {
        let end = (at + size).min(self.mapped.get());
        if !self.is_inaccessible.get() {
            self.present.set(self.present.get().max(end));
        }
        size - end.saturating_sub(at)
    }

    /// How many of `n` bytes at `at` can be copied.
    fn at_hand(&self, at: usize, n: usize) -> usize {
        if world::takes_faults() {
            self.fault_in(at, n);
        }
        self.present
            .get()
            .min(self.mapped.get())
            .saturating_sub(at)
            .min(n)
    }
}

/// Where in a buffer an iterator is.
#[derive(Clone, Debug)]
pub struct Place {
    /// The buffer.
    pub buffer: Rc<UserBuffer>,
    at: usize,
    end: usize,
}

impl Place {
    /// All of `buffer`.
    pub fn new(buffer: &Rc<UserBuffer>) -> Self {
        Self {
            buffer: buffer.clone(),
            at: 0,
            end: buffer.bytes.borrow().len(),
        }
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.end - self.at
    }

    /// Faults in the next bytes; how many are missing.
    pub fn fault_in(&self, size: usize) -> usize {
        world::assert_unlocked("a page fault");
        world::reach(Point::Fault);
        self.buffer.fault_in(self.at, size)
    }
}

/// The destination of a read.
#[derive(Debug)]
pub struct IovIterDest<'a>(pub Place, PhantomData<&'a ()>);

impl IovIterDest<'_> {
    /// Of a buffer.
    pub fn new(place: Place) -> Self {
        Self(place, PhantomData)
    }

    /// Bytes that are left.
    pub fn len(&self) -> usize {
        self.0.left()
    }

    /// Whether none are.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As in the kernel crate.
    pub fn copy_to_iter(&mut self, bytes: &[u8]) -> usize {
        world::assert_unlocked("a copy to user memory");
        world::reach(Point::CopyToUser);
        let place = &mut self.0;
        let n = place
            .buffer
            .at_hand(place.at, bytes.len().min(place.left()));
        place.buffer.bytes.borrow_mut()[place.at..place.at + n].copy_from_slice(&bytes[..n]);
        place.at += n;
        world::note_copied(&bytes[..n]);
        n
    }
}

/// The source of a write.
#[derive(Debug)]
pub struct IovIterSource<'a>(pub Place, PhantomData<&'a ()>);

impl IovIterSource<'_> {
    /// Of a buffer.
    pub fn new(place: Place) -> Self {
        Self(place, PhantomData)
    }

    /// Bytes that are left.
    pub fn len(&self) -> usize {
        self.0.left()
    }

    /// Whether none are.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As in the kernel crate.
    pub fn copy_from_iter_raw(&mut self, out: &mut [MaybeUninit<u8>]) -> &mut [u8] {
        world::assert_unlocked("a copy from user memory");
        world::reach(Point::CopyFromUser);
        let place = &mut self.0;
        let n = place.buffer.at_hand(place.at, out.len().min(place.left()));
        for (to, from) in out
            .iter_mut()
            .zip(&place.buffer.bytes.borrow()[place.at..place.at + n])
        {
            to.write(*from);
        }
        place.at += n;
        // SAFETY: So many bytes were just written.
        unsafe { &mut *(std::ptr::from_mut(&mut out[..n]) as *mut [u8]) }
    }

    /// As in the kernel crate.
    ///
    /// # Safety
    ///
    /// So many bytes have been copied.
    pub unsafe fn revert(&mut self, bytes: usize) {
        self.0.at -= bytes;
    }
}
