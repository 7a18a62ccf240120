// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* fasync.writable: with O_ASYNC, SIGIO comes when a full FIFO gets room. */
#include "rule.h"

static void rule(void)
{
	int fd, reader = fifo(O_RDONLY);
	char bytes[100];

	fill();
	fd = fifo(O_RDWR);
	hold(SIGIO);
	ask_signals(fd);
	while (comes(SIGIO, GRACE, NULL))
		;
	doing("fill the FIFO, F_SETFL with O_ASYNC, read 100 bytes through another descriptor");
	expect(read(reader, bytes, sizeof(bytes)) > 0, "bytes from read()", "none");
	expect(becomes(fd, POLLOUT), "POLLOUT", "none");
	if (!comes(SIGIO, GRACE * 10, NULL))
		absent("no signal for room");
}
