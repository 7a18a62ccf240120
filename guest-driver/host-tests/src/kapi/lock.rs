// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for the lock: that of the kernel crate's stand-in.

pub(crate) use crate::sync::{new_spinlock_irq, SpinLockIrq};
