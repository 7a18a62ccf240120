// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* open.modes: O_RDONLY, O_WRONLY and O_RDWR all open it; open waits for no other side, and bytes outlive a close. */
#include "rule.h"

static void rule(void)
{
	int in = fifo(O_RDONLY), out = fifo(O_WRONLY), both = fifo(O_RDWR);
	char got[8] = "";
	long count;

	doing("read through a descriptor with O_WRONLY");
	count = kernel(read(out, got, 1));
	expect(count == -EBADF, "-1, EBADF", "%s", told(count));
	doing("write through a descriptor with O_RDONLY");
	count = kernel(write(in, "x", 1));
	expect(count == -EBADF, "-1, EBADF", "%s", told(count));
	doing("write through O_WRONLY, close all, read through a new O_RDONLY");
	expect(write(out, "abc", 3) == 3, "a write of 3", "another result");
	close(in);
	close(out);
	close(both);
	in = fifo(O_RDONLY | O_NONBLOCK);
	expect(becomes(in, POLLIN), "POLLIN", "none");
	count = kernel(read(in, got, sizeof(got)));
	expect(count == 3 && !memcmp(got, "abc", 3), "3 and abc", "%s", told(count));
}
