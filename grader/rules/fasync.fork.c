// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* fasync.fork: the signals belong to the open file: they go on while a child has it, after the parent has closed it. */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR), writer = fifo(O_WRONLY), ends[2];
	char byte;
	pid_t pid;

	hold(SIGIO);
	if (pipe(ends) < 0)
		fail("a pipe", "none");
	ask_signals(fd);
	pid = fork();
	if (pid == 0) {
		/* Holds the file until it is killed. */
		for (;;)
			pause();
	}
	close(fd);
	doing("F_SETFL with O_ASYNC, fork, close the file in the parent; write 1 byte");
	expect(write(writer, "x", 1) == 1, "a write of 1", "another result");
	expect(comes(SIGIO, SOON, NULL), "SIGIO to the owner: the child still has the file open", "none");
	doing("end the child, write 1 byte");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	while (comes(SIGIO, GRACE, NULL))
		;
	fd = fifo(O_RDONLY);
	expect(read(fd, &byte, 1) == 1, "a read of 1", "another result");
	expect(write(writer, "y", 1) == 1, "a write of 1", "another result");
	expect(!comes(SIGIO, GRACE, NULL), "no SIGIO: nobody has the file open", "SIGIO");
}
