// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* fasync.sigqueue: with F_SETSIG to a real-time signal each file's event is queued: two files, two signals. */
#include "rule.h"

static void rule(void)
{
	int fds[2] = { fifo(O_RDWR), fifo(O_RDWR) }, writer = fifo(O_WRONLY), seen = 0;
	siginfo_t info = { 0 };

	hold(SIGRTMIN + 1);
	hold(SIGIO);
	for (int i = 0; i < 2; i++) {
		fcntl(fds[i], F_SETSIG, SIGRTMIN + 1);
		ask_signals(fds[i]);
	}
	doing("two files with F_SETSIG to SIGRTMIN+1 and O_ASYNC; write 1 byte");
	expect(write(writer, "x", 1) == 1, "a write of 1", "another result");
	while (seen != 3) {
		expect(comes(SIGRTMIN + 1, SOON, &info), "a queued signal of each file", "of %s only", seen == 1 ? "the first" : seen ? "the second" : "none");
		seen |= info.si_fd == fds[0] ? 1 : info.si_fd == fds[1] ? 2 : 0;
	}
}
