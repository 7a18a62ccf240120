// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* read.data: what was written is read, byte for byte. */
#include "rule.h"

static void rule(void)
{
	const char sent[12] = "a\0b\xff\n\x1a\x04 c\r\0z";
	char got[12] = "";
	int fd = fifo(O_RDWR);
	long count;

	doing("write 12 bytes, among them 0, 0xff and control characters");
	count = kernel(write(fd, sent, sizeof(sent)));
	expect(count == 12, "12", "%s", told(count));
	doing("read 12");
	count = kernel(read(fd, got, sizeof(got)));
	expect(count == 12, "12", "%s", told(count));
	for (int i = 0; i < 12; i++)
		expect(got[i] == sent[i], "the bytes that were written", "byte %d is 0x%02x instead of 0x%02x", i,
		       (unsigned char)got[i], (unsigned char)sent[i]);
}
