// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* read.wakes: a sleeping read returns when data arrives. */
#include "rule.h"

static void rule(void)
{
	struct call *call = begin_read(fifo(O_RDONLY), 10);
	int fd = fifo(O_WRONLY);
	long count;

	doing("a process sleeps in read(); write 5 bytes through another descriptor");
	expect(sleeps(call), "a read that sleeps", "%s", state(call));
	count = kernel(write(fd, "hello", 5));
	expect(count == 5, "5 from write()", "%s", told(count));
	count = result(call, "5 from read()");
	expect(count == 5 && !memcmp(call->data, "hello", 5), "5 and the bytes from read()", "%s", told(count));
}
