// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* read.nonblock: with O_NONBLOCK a read of an empty FIFO fails with EAGAIN, at once. */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR | O_NONBLOCK), other = fifo(O_RDWR);
	long count;

	doing("read an empty FIFO with O_NONBLOCK from open()");
	count = result(begin_read(fd, 10), "-1, EAGAIN, at once");
	expect(count == -EAGAIN, "-1, EAGAIN", "%s", told(count));
	doing("the same with O_NONBLOCK from fcntl(F_SETFL)");
	fcntl(other, F_SETFL, O_NONBLOCK);
	count = result(begin_read(other, 10), "-1, EAGAIN, at once");
	expect(count == -EAGAIN, "-1, EAGAIN", "%s", told(count));
}
