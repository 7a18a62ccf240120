// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* read.fault: a read into memory that is not there fails with EFAULT, and loses nothing. */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR | O_NONBLOCK);
	char got[8] = "";
	long count;

	doing("write 5 bytes, read them to an address that is not mapped");
	expect(write(fd, "hello", 5) == 5, "a write of 5", "another result");
	expect(becomes(fd, POLLIN), "POLLIN", "none");
	count = kernel(syscall(SYS_read, fd, 1, 5));
	expect(count == -EFAULT, "-1, EFAULT", "%s", told(count));
	doing("read again, to good memory");
	expect(becomes(fd, POLLIN), "POLLIN: the bytes are still there", "none");
	count = kernel(read(fd, got, sizeof(got)));
	expect(count == 5 && !memcmp(got, "hello", 5), "the 5 bytes, which nobody has got yet", "%s", told(count));
}
