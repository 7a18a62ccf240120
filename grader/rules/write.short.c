// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* write.short: a write of more than fits returns the count of what fits, without waiting for room for the rest. */
#include "rule.h"

static void rule(void)
{
	size_t capacity = fill();
	int fd = fifo(O_RDWR);
	char bytes[8];
	struct call *call;
	long count, rest = 0;

	if (capacity < 10)
		absent("a FIFO of fewer than 10 bytes");
	doing("fill the FIFO, read 5 bytes, write 100 without O_NONBLOCK");
	count = kernel(read(fd, bytes, 5));
	expect(count == 5, "5 from read()", "%s", told(count));
	call = begin_write(fd, 100, 'w');
	count = result(call, "the count of bytes that fit, 5");
	expect(count > 0 && count <= 5, "the count of bytes that fit, 5", "%s", told(count));
	doing("write 100 with O_NONBLOCK");
	fcntl(fd, F_SETFL, O_NONBLOCK);
	rest = 5 - count;
	count = kernel(write(fd, call->data, 100));
	expect(rest ? count == rest || count == -EAGAIN : count == -EAGAIN, "-1, EAGAIN: the FIFO is full", "%s", told(count));
}
