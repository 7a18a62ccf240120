// SPDX-License-Identifier: GPL-2.0-only

//! The module that this is a part of: its `THIS_MODULE` for C, and values of its parameters, which
//! kernel crates give in different forms.

use core::borrow::Borrow;
#[cfg(KERNEL_HAS_THIS_MODULE)]
pub(super) use kernel::module::this_module;

/// As the kernel crate's: where it has none, `module!` has put a static into the crate's root.
#[cfg(not(KERNEL_HAS_THIS_MODULE))]
pub(super) const fn this_module<M: kernel::ModuleMetadata>() -> &'static kernel::ThisModule {
    &crate::THIS_MODULE
}

/// What `value()` of a parameter gives: the number, or a reference to it.
pub(crate) fn parameter(value: impl Borrow<u32>) -> u32 {
    *value.borrow()
}
