// SPDX-License-Identifier: GPL-2.0-only

//! Stand-in for `kernel::device`: a name for log lines.

/// A device.
#[derive(Clone, Debug)]
pub struct Device;
