// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* device.lost-interrupt: a lost interrupt costs a delay, not the bytes. The lab's device loses every third. */
#include "rule.h"
#include "device.h"

static void rule(void)
{
	int fd;

	virtio();
	fd = fifo(O_RDWR);
	doing("read 20 times, each time waiting until 1 byte has been written, while the device loses interrupts");
	for (int i = 0; i < 20; i++) {
		struct call *call = &shared->calls[0], *write_call = &shared->calls[1];

		shared->count = 0;
		begin_read(fd, 1);
		sleeps(call);
		begin_write(fd, 1, 'a' + i);
		if (!returns(write_call) || !returns(call))
			absent("a call still waits: the driver looks at the queues only when an interrupt comes");
		expect(call->result == 1 && call->data[0] == 'a' + i, "the byte that was written", "%s", told(call->result));
		waitpid(call->pid, NULL, 0);
		waitpid(write_call->pid, NULL, 0);
	}
}
