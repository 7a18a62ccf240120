// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* fasync.readable: with O_ASYNC, SIGIO comes when data arrives. */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR), writer = fifo(O_WRONLY);

	hold(SIGIO);
	doing("fcntl(F_SETOWN), fcntl(F_SETFL, O_ASYNC), write 1 byte through another descriptor");
	ask_signals(fd);
	expect(write(writer, "x", 1) == 1, "a write of 1", "another result");
	expect(comes(SIGIO, SOON, NULL), "SIGIO", "none after %d s", SOON / 1000);
}
