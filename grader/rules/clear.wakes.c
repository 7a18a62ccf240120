// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* clear.wakes: FIFO_CLEAR makes room, so it wakes the tasks that wait for room: a sleeping write and a poll for POLLOUT. */
#include "rule.h"

static void rule(void)
{
	size_t capacity = fill();
	int fd = fifo(O_RDWR);
	struct call *call = begin_write(fd, 1, 'w');
	long count;

	doing("fill the FIFO (%zu bytes); a process sleeps in write(); ioctl(fd, 0x1, 0)", capacity);
	expect(sleeps(call), "a write that sleeps", "%s", state(call));
	count = kernel(ioctl(fd, FIFO_CLEAR, 0));
	expect(count == 0, "0 from ioctl()", "%s", told(count));
	count = result(call, "1 from write(): the driver calls wake_up() where it empties the FIFO");
	expect(count == 1, "1 from write()", "%s", told(count));
}
