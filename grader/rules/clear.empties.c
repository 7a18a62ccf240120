// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* clear.empties: ioctl(fd, FIFO_CLEAR) empties the FIFO, also through a descriptor that is open for reading only. */
#include "rule.h"

static void rule(void)
{
	const int flags[] = { O_RDWR, O_RDONLY };
	size_t capacity = fill(), room;
	int fd = fifo(O_RDWR | O_NONBLOCK);
	char bytes[16];
	long count;

	for (int i = 0; i < 2; i++) {
		doing("fill the FIFO (%zu bytes), ioctl(fd, 0x1, 0) on a descriptor with %s", capacity, i ? "O_RDONLY" : "O_RDWR");
		count = kernel(ioctl(fifo(flags[i]), FIFO_CLEAR, 0));
		expect(count == 0, "0", "%s", told(count));
		expect(!ready(fd, POLLIN), "no POLLIN", "POLLIN");
		count = kernel(read(fd, bytes, sizeof(bytes)));
		expect(count == -EAGAIN, "-1, EAGAIN from read()", "%s", told(count));
		expect(becomes(fd, POLLOUT), "POLLOUT", "none");
		room = fill();
		expect(room == capacity, "room for as much as before", "%zu bytes instead of %zu", room, capacity);
	}
}
