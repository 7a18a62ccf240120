// SPDX-License-Identifier: GPL-2.0-only

//! The constants that the driver's own files take from C.

pub(crate) const GLOBALFIFO_FIONREAD: u32 = 0x541b;
pub(crate) const GLOBALFIFO_FIFO_CLEAR: u32 = 1;
pub(crate) const GLOBALFIFO_ALIAS_CLEAR: u32 = 0xf101;
