// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* read.offset: the position means nothing: lseek() and pread() fail with ESPIPE, or change nothing. */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR | O_NONBLOCK);
	char got[4] = "", next;
	long count;

	doing("write 3 bytes, pread() at position 1000");
	expect(write(fd, "abc", 3) == 3, "a write of 3", "another result");
	expect(becomes(fd, POLLIN), "POLLIN", "none");
	count = kernel(pread(fd, got, 1, 1000));
	expect(count == -ESPIPE || (count == 1 && got[0] == 'a'), "-1, ESPIPE, or the first byte", "%s", told(count));
	next = count == 1 ? 'b' : 'a';
	doing("lseek() to 1, read");
	count = kernel(lseek(fd, 1, SEEK_SET));
	expect(count == -ESPIPE || count >= 0, "-1, ESPIPE, or a position without meaning", "%s", told(count));
	count = kernel(read(fd, got, 1));
	expect(count == 1 && got[0] == next, "the next byte", "%s", told(count));
}
