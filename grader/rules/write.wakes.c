// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* write.wakes: a sleeping write goes on when a read makes room. */
#include "rule.h"

static void rule(void)
{
	size_t capacity = fill();
	struct call *call = begin_write(fifo(O_WRONLY), 1, 'w');
	int fd = fifo(O_RDONLY);
	char bytes[100];
	long count;

	doing("fill the FIFO (%zu bytes); a process sleeps in write() of 1 byte; read up to 100", capacity);
	expect(sleeps(call), "a write that sleeps", "%s", state(call));
	count = kernel(read(fd, bytes, sizeof(bytes)));
	expect(count > 0, "bytes from read()", "%s", told(count));
	count = result(call, "1 from write()");
	expect(count == 1, "1 from write()", "%s", told(count));
}
