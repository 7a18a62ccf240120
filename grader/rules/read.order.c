// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* read.order: bytes come out in the order in which they went in, also past the end of the driver's buffer. */
#include "rule.h"

/* A pattern that does not repeat with any size of a buffer. */
static unsigned char at(unsigned place)
{
	return (place * 2654435761u) >> 24;
}

static void rule(void)
{
	int fd = fifo(O_RDWR | O_NONBLOCK);
	unsigned char bytes[700];
	unsigned sent = 0, got = 0;

	doing("write and read 40000 bytes, in pieces of up to 700 and 513");
	while (got < 40000) {
		unsigned piece = 1 + sent % 700;
		long count;

		for (unsigned i = 0; i < piece; i++)
			bytes[i] = at(sent + i);
		count = kernel(write(fd, bytes, piece));
		expect(count > 0 || count == -EAGAIN, "the count of bytes that fit, or EAGAIN", "%s", told(count));
		sent += count > 0 ? count : 0;
		expect(becomes(fd, POLLIN), "POLLIN while bytes are in the FIFO", "none at byte %u", got);
		count = kernel(read(fd, bytes, 1 + got % 513));
		expect(count > 0, "the bytes that are there", "%s at byte %u", told(count), got);
		for (unsigned i = 0; i < count; i++, got++)
			expect(bytes[i] == at(got), "the bytes in order", "byte %u is 0x%02x instead of 0x%02x", got, bytes[i], at(got));
	}
}
