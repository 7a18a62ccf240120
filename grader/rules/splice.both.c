// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* splice.both: splice() moves bytes from a pipe into the FIFO and from the FIFO into a pipe. */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR), ends[2];
	char bytes[16] = "";
	long count;

	if (pipe(ends) < 0 || write(ends[1], "hello", 5) != 5)
		fail("a pipe with 5 bytes", "none");
	doing("splice() 5 bytes from a pipe into the FIFO");
	count = kernel(splice(ends[0], NULL, fd, NULL, 5, 0));
	if (count == -EINVAL)
		absent("splice() into the FIFO is EINVAL: the driver has no splice_write");
	expect(count == 5, "5", "%s", told(count));
	expect(becomes(fd, POLLIN), "POLLIN", "none");
	doing("splice() up to 16 bytes from the FIFO into a pipe");
	count = kernel(splice(fd, NULL, ends[1], NULL, 16, 0));
	if (count == -EINVAL)
		absent("splice() from the FIFO is EINVAL: the driver has no splice_read");
	expect(count == 5, "5", "%s", told(count));
	count = kernel(read(ends[0], bytes, sizeof(bytes)));
	expect(count == 5 && !memcmp(bytes, "hello", 5), "the same 5 bytes", "%s", told(count));
}
