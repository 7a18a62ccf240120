// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `--fault SPEC`: whatever is typed is a SPEC that prints as what it means, or an error that says
//! why.

use vhost_device_fifo::fault::FaultSpec;

/// A text.
pub fn fault(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.parse::<FaultSpec>() {
        Ok(spec) => assert_eq!(spec.to_string().parse(), Ok(spec)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
