// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* read.zero: a read never returns 0, the sign of an end, while nothing has ended. */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR);
	struct call *first = begin_read(fd, 10), *second = begin_read(fd, 10);
	long count;

	doing("two processes wait in read(); write 0 bytes");
	expect(sleeps(first), "a first read that sleeps", "%s", state(first));
	expect(sleeps(second), "a second read that sleeps", "%s", state(second));
	count = kernel(write(fd, "", 0));
	expect(count == 0, "0", "%s", told(count));
	doing("write 1 byte, which one of them gets, then 1 more");
	for (int i = 0; i < 2; i++) {
		expect(write(fd, "x", 1) == 1, "a write of 1", "another result");
		for (long end = now_ms() + SOON; now_ms() < end && returned(first) + returned(second) <= i; )
			pause_ms(1);
	}
	count = result(first, "1 to the first reader");
	expect(count == 1, "1 to the first reader: a woken reader looks again whether there is data", "%s", told(count));
	count = result(second, "1 to the second reader");
	expect(count == 1, "1 to the second reader: a woken reader looks again whether there is data", "%s", told(count));
}
