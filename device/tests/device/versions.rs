// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Drivers of earlier versions of the wire format: docs/virtio-fifo.md, section 8. The driver's side of it is `lab/recognition`.

use vhost_device_fifo::backend::FEATURES;
use virtio_fifo_protocol::virtio_fifo::MAX_FIFOS;

use crate::common::Driver;
use crate::common::Host;

/// DRV-2 as a driver of version 0.x holds it: `num_fifos` was the first field, and the only one.
fn num_fifos_of_version_0(driver: &mut Driver) -> Result<u16, u32> {
    let word = driver.config(0, 4).try_into().unwrap();
    let count = u32::from_le_bytes(word);
    match u16::try_from(count) {
        Ok(num_fifos @ 1..=MAX_FIFOS) => Ok(num_fifos),
        _ => Err(count),
    }
}

/// DEV-32, DEV-6: the old driver reads the magic, refuses, and starts no queue; the next driver finds every byte, and what was read
/// does not come again.
#[test]
fn a_driver_of_version_0_refuses_the_device_and_loses_nothing() {
    let host = Host::new(&["loopback,capacity=16"]);
    let mut driver = host.driver();
    driver.send(0, b"abcdefgh");
    assert_eq!(driver.read_some(0, 3), b"abc");
    // Reports "abc".
    driver.send(0, b"ij");
    drop(driver);
    let mut old = Driver::connect(host.path(), 1, FEATURES);
    assert_eq!(num_fifos_of_version_0(&mut old), Err(1_330_006_342));
    drop(old);
    let mut driver = host.driver();
    let state = driver.state(0);
    assert_eq!((state.rx_floor, state.rx_end), (3, 10));
    assert_eq!(driver.read_some(0, 100), b"defghij");
    driver.check_serves(0);
    assert_eq!(host.all_refused(), 0);
}
