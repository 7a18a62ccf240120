// SPDX-License-Identifier: GPL-2.0-only

//! The user-space interface: `include/uapi/linux/globalfifo.h`, and the requests of ioctl(2) that
//! the kernel defines for all.

use crate::kapi::bindings;

/// Bytes that can be read without waiting.
pub(crate) const FIONREAD: u32 = bindings::GLOBALFIFO_FIONREAD;
/// Empty the FIFO, by the number that textbooks use.
pub(crate) const FIFO_CLEAR: u32 = bindings::GLOBALFIFO_FIFO_CLEAR;
/// Empty the FIFO.
pub(crate) const IOC_CLEAR: u32 = bindings::GLOBALFIFO_ALIAS_CLEAR;
