// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* read.nowait: RWF_NOWAIT on an empty FIFO is EAGAIN, also without O_NONBLOCK. */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR);
	char got[4];
	struct iovec part = { got, 4 };
	long count;

	doing("preadv2(RWF_NOWAIT) of an empty FIFO");
	count = kernel(preadv2(fd, &part, 1, -1, RWF_NOWAIT));
	if (count == -EOPNOTSUPP)
		absent("preadv2(RWF_NOWAIT) is EOPNOTSUPP");
	expect(count == -EAGAIN, "-1, EAGAIN", "%s", told(count));
	doing("write 3 bytes, the same");
	expect(write(fd, "abc", 3) == 3, "a write of 3", "another result");
	expect(becomes(fd, POLLIN), "POLLIN", "none");
	count = kernel(preadv2(fd, &part, 1, -1, RWF_NOWAIT));
	expect(count == 3, "3", "%s", told(count));
}
