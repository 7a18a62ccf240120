// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `--fifo SPEC`: whatever is typed is a SPEC that keeps DEV-3, or an error that says why.

use vhost_device_fifo::spec::PartialSpec;
use vhost_device_fifo::spec::parse_capacity;
use virtio_fifo_protocol::virtio_fifo::MAX_CAPACITY;

/// A text.
pub fn spec(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.parse::<PartialSpec>() {
        Ok(spec) => {
            let capacity = spec.with_default(7).capacity;
            assert!(
                (1..=MAX_CAPACITY as usize).contains(&capacity),
                "{capacity}"
            );
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(capacity) = parse_capacity(&text) {
        assert!(
            (1..=MAX_CAPACITY as usize).contains(&capacity),
            "{capacity}"
        );
        assert_eq!(parse_capacity(&capacity.to_string()), Ok(capacity));
    }
}
