// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* ioctl.unknown: a request that the driver does not know fails with ENOTTY. */
#include "rule.h"

static void rule(void)
{
	const unsigned long requests[] = { 0x7a7a, _IOW('~', 99, int) };
	int fd = fifo(O_RDWR);

	for (int i = 0; i < 2; i++) {
		long count;

		doing("ioctl(fd, 0x%lx, 0)", requests[i]);
		count = kernel(ioctl(fd, requests[i], 0));
		expect(count == -ENOTTY, "-1, ENOTTY", "%s", told(count));
	}
}
