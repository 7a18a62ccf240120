// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* fasync.many: every file with O_ASYNC gets its signal, also after one of them has gone. */
#include "rule.h"

/* A process that wants SIGIO; tells through the pipe when it is set up. */
static pid_t listen_in(int tell)
{
	pid_t pid = fork();

	if (pid == 0) {
		hold(SIGIO);
		ask_signals(fifo(O_RDWR));
		write(tell, "", 1);
		_exit(comes(SIGIO, SOON, NULL) ? 0 : 1);
	}
	return pid;
}

static void rule(void)
{
	int fd = fifo(O_RDWR), gone = fifo(O_RDWR), ends[2], status, without = 0;
	pid_t pids[4];
	char byte;

	doing("four processes and one more file with O_ASYNC; close that one, write 1 byte");
	hold(SIGIO);
	if (pipe(ends) < 0)
		fail("a pipe", "none");
	for (int i = 0; i < 4; i++) {
		pids[i] = listen_in(ends[1]);
		expect(read(ends[0], &byte, 1) == 1, "a listener", "none");
		if (i == 1)
			ask_signals(gone);
	}
	close(gone);
	expect(write(fd, "x", 1) == 1, "a write of 1", "another result");
	for (int i = 0; i < 4; i++) {
		status = -1;
		waitpid(pids[i], &status, 0);
		without += status != 0;
	}
	expect(without == 0, "SIGIO to each of the four", "%d of them without", without);
}
