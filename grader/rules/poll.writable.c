// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* poll.writable: POLLOUT exactly while there is room. */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR | O_NONBLOCK);
	char byte;
	size_t capacity;

	doing("poll an empty FIFO");
	expect(becomes(fd, POLLOUT), "POLLOUT", "none");
	capacity = fill();
	doing("fill it (%zu bytes), poll", capacity);
	expect(ceases(fd, POLLOUT), "no POLLOUT of a full FIFO", "POLLOUT");
	expect(becomes(fd, POLLIN), "POLLIN of a full FIFO", "none");
	doing("read 1 byte, poll");
	expect(read(fd, &byte, 1) == 1, "a read of 1", "another result");
	expect(becomes(fd, POLLOUT), "POLLOUT: there is room for a byte", "none");
}
