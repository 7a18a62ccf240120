// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* ioctl.fionread: FIONREAD gives the readable bytes. */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR), bytes = -1;
	char got;
	long count = kernel(ioctl(fd, FIONREAD, &bytes));

	if (count == -ENOTTY || count == -EINVAL)
		absent("FIONREAD is not known");
	doing("ioctl(FIONREAD) of an empty FIFO");
	expect(count == 0 && bytes == 0, "0", "%s, %d bytes", told(count), bytes);
	doing("write 5 bytes, FIONREAD");
	expect(write(fd, "abcde", 5) == 5, "a write of 5", "another result");
	expect(becomes(fd, POLLIN), "POLLIN", "none");
	count = kernel(ioctl(fd, FIONREAD, &bytes));
	expect(count == 0 && bytes == 5, "5", "%s, %d bytes", told(count), bytes);
	doing("read 1, FIONREAD");
	expect(read(fd, &got, 1) == 1, "a read of 1", "another result");
	count = kernel(ioctl(fd, FIONREAD, &bytes));
	expect(count == 0 && bytes == 4, "4", "%s, %d bytes", told(count), bytes);
}
