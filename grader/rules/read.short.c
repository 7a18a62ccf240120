// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* read.short: a read of more than there is returns what is there, at once. */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR);
	struct call *call;
	long count;

	doing("write 3 bytes, read 100");
	expect(write(fd, "abc", 3) == 3, "a write of 3", "less");
	call = begin_read(fd, 100);
	count = result(call, "3, without waiting for more");
	expect(count == 3, "3", "%s", told(count));
	expect(!memcmp(call->data, "abc", 3), "abc", "%.3s", call->data);

	doing("write 10 bytes, read 4, read 100");
	expect(write(fd, "0123456789", 10) == 10, "a write of 10", "less");
	call = begin_read(fd, 4);
	count = result(call, "4");
	expect(count == 4, "4 from the first read", "%s", told(count));
	expect(!memcmp(call->data, "0123", 4), "0123", "%.4s", call->data);
	call = begin_read(fd, 100);
	count = result(call, "6, the rest");
	expect(count == 6, "6 from the second read, the rest", "%s", told(count));
	expect(!memcmp(call->data, "456789", 6), "456789", "%.6s", call->data);
}
