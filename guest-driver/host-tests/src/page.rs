// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for `kernel::page`.

/// As on x86-64.
pub const PAGE_SIZE: usize = 4096;
