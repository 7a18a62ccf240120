// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* capacity.exact: a FIFO takes as many bytes each time, in pieces of any size, and gives back as many. */
#include "rule.h"

static void rule(void)
{
	const size_t pieces[] = { 4096, 1000, 7, 65536 };
	size_t capacity = fill(), count;
	int fd = fifo(O_RDWR | O_NONBLOCK);

	doing("fill the FIFO with O_NONBLOCK: %zu bytes", capacity);
	expect(capacity > 0, "room for a byte", "none");
	expect(ceases(fd, POLLOUT), "no POLLOUT of a full FIFO", "POLLOUT");
	for (int i = 0; i < 4; i++) {
		doing("read all, fill it in pieces of %zu", pieces[i]);
		count = take(capacity);
		expect(count == capacity, "as many bytes as were written", "%zu instead of %zu", count, capacity);
		expect(becomes(fd, POLLOUT), "POLLOUT of an empty FIFO", "none");
		count = fill_by(pieces[i]);
		expect(count == capacity, "the same capacity", "%zu instead of %zu", count, capacity);
	}
}
