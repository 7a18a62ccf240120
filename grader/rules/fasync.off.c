// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* fasync.off: F_SETFL without O_ASYNC ends the signals. */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR), writer = fifo(O_WRONLY), other;
	char byte;

	hold(SIGIO);
	doing("F_SETFL with O_ASYNC, write 1 byte, read it");
	ask_signals(fd);
	expect(write(writer, "x", 1) == 1, "a write of 1", "another result");
	expect(comes(SIGIO, SOON, NULL), "SIGIO", "none after %d s", SOON / 1000);
	expect(read(fd, &byte, 1) == 1, "a read of 1", "another result");
	doing("F_SETFL without O_ASYNC, write 1 byte");
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_ASYNC);
	while (comes(SIGIO, GRACE, NULL))
		;
	other = fifo(O_RDONLY);
	expect(write(writer, "y", 1) == 1, "a write of 1", "another result");
	expect(becomes(other, POLLIN), "POLLIN", "none");
	expect(!comes(SIGIO, GRACE, NULL), "no SIGIO", "SIGIO");
}
