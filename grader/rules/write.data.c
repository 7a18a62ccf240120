// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* write.data: a write into an empty FIFO takes all its bytes, and adds to what is there. */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR | O_NONBLOCK);
	char sent[] = "0123456789", got[64] = "";
	size_t have = 0;
	long count;

	doing("write 10 bytes, then 4");
	count = kernel(write(fd, sent, 10));
	expect(count == 10, "10", "%s", told(count));
	expect(!strcmp(sent, "0123456789"), "the caller's buffer as it was", "%s", sent);
	count = kernel(write(fd, "abcd", 4));
	expect(count == 4, "4", "%s", told(count));
	doing("read until 14 bytes have come");
	while (have < 14 && becomes(fd, POLLIN)) {
		count = kernel(read(fd, got + have, sizeof(got) - have));
		expect(count > 0, "bytes", "%s", told(count));
		have += count;
	}
	expect(have == 14 && !memcmp(got, "0123456789abcd", 14), "0123456789abcd", "%zu bytes: %.*s", have, (int)have, got);
	expect(!ready(fd, POLLIN), "an empty FIFO then", "POLLIN");
}
