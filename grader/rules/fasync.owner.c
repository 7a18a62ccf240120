// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* fasync.owner: F_SETOWN chooses another process, or a group. */
#include "rule.h"

/* A process, in a group of its own, that ends well when SIGIO comes. */
static pid_t start(int tell)
{
	pid_t pid = fork();

	if (pid == 0) {
		hold(SIGIO);
		setpgid(0, 0);
		write(tell, "", 1);
		_exit(comes(SIGIO, SOON, NULL) ? 0 : 1);
	}
	return pid;
}

static void rule(void)
{
	int fd = fifo(O_RDWR), writer = fifo(O_WRONLY), ends[2], status;
	char byte;

	hold(SIGIO);
	if (pipe(ends) < 0)
		fail("a pipe", "none");
	for (int group = 0; group < 2; group++) {
		pid_t pid = start(ends[1]);

		expect(read(ends[0], &byte, 1) == 1, "a process", "none");
		doing("F_SETOWN to another %s, write 1 byte", group ? "group" : "process");
		ask_signals(fd);
		fcntl(fd, F_SETOWN, group ? -pid : pid);
		expect(write(writer, "x", 1) == 1, "a write of 1", "another result");
		status = -1;
		waitpid(pid, &status, 0);
		kill(pid, SIGKILL);
		expect(status == 0, "SIGIO there", "none");
		expect(!comes(SIGIO, GRACE, NULL), "no SIGIO here", "SIGIO");
		expect(read(fd, &byte, 1) == 1, "a read of 1", "another result");
	}
}
