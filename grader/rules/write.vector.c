// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* write.vector: writev() takes its buffers in order. */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR | O_NONBLOCK);
	struct iovec parts[] = { { "abc", 3 }, { "", 0 }, { "defgh", 5 } };
	char got[16] = "";
	size_t have = 0;
	long count;

	doing("writev() of 3, 0 and 5 bytes, read");
	count = kernel(writev(fd, parts, 3));
	expect(count == 8, "8", "%s", told(count));
	while (have < 8 && becomes(fd, POLLIN) && (count = read(fd, got + have, sizeof(got) - have)) > 0)
		have += count;
	expect(have == 8 && !memcmp(got, "abcdefgh", 8), "abcdefgh", "%zu bytes: %.*s", have, (int)have, got);
}
