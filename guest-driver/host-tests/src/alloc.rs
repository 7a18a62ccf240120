// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for `kernel::alloc`: the host's allocator, which does not fail.

use std::ops::{Deref, DerefMut};

/// No memory. Not made here.
#[derive(Debug)]
pub struct AllocError;

/// Allocation flags, which do nothing here.
#[derive(Clone, Copy)]
pub struct Flags;

impl std::ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, _other: Self) -> Self {
        self
    }
}

/// Values of [`Flags`].
#[allow(missing_docs)]
pub mod flags {
    use super::Flags;

    pub const GFP_KERNEL: Flags = Flags;
    pub const GFP_KERNEL_ACCOUNT: Flags = Flags;
    pub const GFP_NOWAIT: Flags = Flags;
    pub const __GFP_NOWARN: Flags = Flags;
}

/// `kmalloc` memory with a value.
#[derive(Debug)]
pub struct KBox<T: ?Sized>(Box<T>);

impl<T> KBox<T> {
    /// As in the kernel crate.
    pub fn new(value: T, _flags: Flags) -> Result<Self, AllocError> {
        Ok(Self(Box::new(value)))
    }
}

impl<T: ?Sized> Deref for KBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized> DerefMut for KBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// `kmalloc` memory with values.
#[derive(Debug)]
pub struct KVec<T>(Vec<T>);

impl<T> KVec<T> {
    /// As in the kernel crate.
    pub fn with_capacity(capacity: usize, _flags: Flags) -> Result<Self, AllocError> {
        Ok(Self(Vec::with_capacity(capacity)))
    }

    /// As in the kernel crate.
    pub fn push_within_capacity(&mut self, value: T) -> Result<(), T> {
        if self.0.len() == self.0.capacity() {
            return Err(value);
        }
        self.0.push(value);
        Ok(())
    }
}

impl<T> Deref for KVec<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T> DerefMut for KVec<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0
    }
}

impl<T> IntoIterator for KVec<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
