// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* write.fault: a write from memory that is not there fails with EFAULT, and puts nothing into the FIFO. */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR | O_NONBLOCK);
	char got[8] = "";
	long count;

	doing("write 5 bytes from an address that is not mapped");
	count = kernel(syscall(SYS_write, fd, 1, 5));
	expect(count == -EFAULT, "-1, EFAULT", "%s", told(count));
	doing("write 1 byte from good memory, read");
	expect(write(fd, "x", 1) == 1, "a write of 1", "another result");
	expect(becomes(fd, POLLIN), "POLLIN", "none");
	count = kernel(read(fd, got, sizeof(got)));
	expect(count == 1 && got[0] == 'x', "that byte alone", "%s, beginning with 0x%02x", told(count), (unsigned char)got[0]);
}
