// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* open.many: many may have the device open at once, and all see one FIFO. */
#include "rule.h"

static void rule(void)
{
	int fds[32];
	char got[8] = "";
	long count;

	doing("open the device 32 times");
	for (int i = 0; i < 32; i++)
		fds[i] = fifo(O_RDWR | O_NONBLOCK);
	doing("write through the first, read through the last");
	expect(write(fds[0], "abc", 3) == 3, "a write of 3", "another result");
	expect(becomes(fds[31], POLLIN), "POLLIN there", "none");
	count = kernel(read(fds[31], got, sizeof(got)));
	expect(count == 3 && !memcmp(got, "abc", 3), "3 and abc", "%s", told(count));
	doing("close all but one, write and read through it");
	for (int i = 1; i < 32; i++)
		close(fds[i]);
	expect(write(fds[0], "d", 1) == 1, "a write of 1", "another result");
	expect(becomes(fds[0], POLLIN), "POLLIN", "none");
	count = kernel(read(fds[0], got, sizeof(got)));
	expect(count == 1 && got[0] == 'd', "1 and d", "%s", told(count));
}
