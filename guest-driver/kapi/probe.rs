// SPDX-License-Identifier: GPL-2.0-only

//! Questions to the kernel crate. `probe.mk` compiles this file once for each cfg in it; those that
//! compile are set when the module is built. What differs has a name, and no version is compared.

#[cfg(KERNEL_HAS_SPIN_LOCK_IRQ)]
pub use kernel::sync::{
    new_spinlock_irq,
    SpinLockIrq, //
};

#[cfg(KERNEL_HAS_THIS_MODULE)]
pub use kernel::module::this_module;
