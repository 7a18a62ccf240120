// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* read.vector: readv() fills its buffers in order, and is short like read(). */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR | O_NONBLOCK);
	char first[3] = "", second[10] = "";
	struct iovec parts[] = { { first, 3 }, { second, 10 } };
	long count;

	doing("write 5 bytes, readv() into buffers of 3 and 10");
	expect(write(fd, "abcde", 5) == 5, "a write of 5", "another result");
	expect(becomes(fd, POLLIN), "POLLIN", "none");
	count = kernel(readv(fd, parts, 2));
	expect(count == 5 && !memcmp(first, "abc", 3) && !memcmp(second, "de", 2), "5: abc and de", "%s", told(count));
}
