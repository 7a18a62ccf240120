// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* fasync.close: no signal to a file that is closed, and no trace of it in the driver (release calls the driver's fasync with 0). */
#include "rule.h"

static void rule(void)
{
	int fd, writer = fifo(O_RDWR);
	char byte;

	hold(SIGIO);
	doing("F_SETFL with O_ASYNC on 20 files, close them, write through another");
	for (int i = 0; i < 20; i++) {
		fd = fifo(O_RDWR);
		ask_signals(fd);
		close(fd);
	}
	for (int i = 0; i < 20; i++) {
		expect(write(writer, "x", 1) == 1, "a write of 1", "another result");
		expect(read(writer, &byte, 1) == 1, "a read of 1", "another result");
	}
	expect(!comes(SIGIO, GRACE, NULL), "no SIGIO", "SIGIO");
}
