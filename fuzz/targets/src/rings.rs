// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest memory as it comes, rings and descriptor tables included, and kicks.

use vhost_device_fifo::fifo::ResetPolicy;
use vm_memory::GuestAddressSpace;

use crate::guest::Guest;
use crate::guest::QUEUES;
use crate::guest::START;
use crate::guest::write;
use crate::input::Input;

/// A byte of options, a byte for the number of kicks, a byte for each of them, and memory from its
/// start on. Whatever is there after all kicks is kicked once more in a row: the device has
/// written to it in between.
pub fn rings(data: &[u8]) {
    let mut input = Input::new(data);
    let options = input.u8();
    let count = usize::from(input.u8() % 16);
    let kicks = input.bytes(count);
    let mut guest = Guest::new(ResetPolicy::Keep, options & 1 != 0);
    write(&guest.ram.memory(), START, input.rest());
    for kick in kicks {
        guest.kick(u16::from(*kick) % QUEUES);
        guest.check();
    }
    for queue in 0..QUEUES {
        guest.kick(queue);
    }
    if options & 2 != 0 {
        guest.stop(&(0..QUEUES).collect::<Vec<_>>());
    }
    guest.check();
}
