// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* poll.readable: POLLIN exactly while there is something to read. */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR | O_NONBLOCK);
	char bytes[4];

	doing("poll an empty FIFO");
	expect(!ready(fd, POLLIN), "no POLLIN", "POLLIN");
	doing("write 3 bytes, poll");
	expect(write(fd, "abc", 3) == 3, "a write of 3", "another result");
	expect(becomes(fd, POLLIN), "POLLIN", "none");
	doing("read 2, poll");
	expect(read(fd, bytes, 2) == 2, "a read of 2", "another result");
	expect(becomes(fd, POLLIN), "POLLIN: a byte is left", "none");
	doing("read 1, poll");
	expect(read(fd, bytes, 1) == 1, "a read of 1", "another result");
	expect(!ready(fd, POLLIN), "no POLLIN of an empty FIFO", "POLLIN");
}
