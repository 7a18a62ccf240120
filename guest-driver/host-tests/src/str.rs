// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for `kernel::str`.

pub use std::ffi::CString;
