// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! vhost-device-vsock, a peer that the device is compared with: rust-vmm's own program, built from crates.io.

use anyhow::Result;

use super::installed;
use super::installed::Installed;
use super::shop::Shop;

/// Its name in the cache.
pub const STAGE: &str = "vsock";
/// The newest when this was written.
pub const VERSION: &str = "0.3.0";

/// Builds it if it is missing. That this fails is no reason not to measure the rest.
pub fn obtain(shop: &Shop) -> Result<Installed> {
    installed::obtain(
        shop,
        &installed::Wanted {
            stage: STAGE,
            program: "vhost-device-vsock",
            version: VERSION,
            options: &[],
            what: "building vhost-device-vsock, a peer",
        },
    )
}
