// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* write.nonblock: with O_NONBLOCK a write into a full FIFO fails with EAGAIN, at once. */
#include "rule.h"

static void rule(void)
{
	size_t capacity = fill();
	int fd = fifo(O_RDWR | O_NONBLOCK);
	long count;

	doing("fill the FIFO (%zu bytes), write 1 more with O_NONBLOCK", capacity);
	count = result(begin_write(fd, 1, 'w'), "-1, EAGAIN, at once");
	expect(count == -EAGAIN, "-1, EAGAIN", "%s", told(count));
}
