// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* concurrency.stress: everything at once, from many processes, for some seconds; the FIFO still works then. */
#include "rule.h"

static void work(unsigned seed)
{
	char bytes[512];

	signal(SIGIO, SIG_IGN);
	for (;;) {
		int fd = fifo(O_RDWR | (rand_r(&seed) % 4 ? O_NONBLOCK : 0)), size = rand_r(&seed) % sizeof(bytes);

		for (int i = rand_r(&seed) % 20; i; i--) {
			switch (rand_r(&seed) % 8) {
			case 0: case 1: case 2:
				if (ready(fd, POLLOUT))
					write(fd, bytes, size);
				break;
			case 3: case 4:
				if (ready(fd, POLLIN))
					read(fd, bytes, size);
				break;
			case 5:
				ioctl(fd, FIFO_CLEAR, 0);
				break;
			case 6:
				ask_signals(fd);
				break;
			default:
				fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_ASYNC);
			}
		}
		close(fd);
	}
}

static void rule(void)
{
	pid_t pids[6];
	char got[8];
	int fd;

	doing("six processes open, write, read, poll, clear, set O_ASYNC and close, for 3 s; all are killed");
	for (int i = 0; i < 6; i++)
		if ((pids[i] = fork()) == 0)
			work(i + 1);
	pause_ms(3000);
	for (int i = 0; i < 6; i++)
		kill(pids[i], SIGKILL);
	for (int i = 0; i < 6; i++)
		waitpid(pids[i], NULL, 0);
	doing("empty it, write 3 bytes, read them");
	begin_empty();
	fd = fifo(O_RDWR | O_NONBLOCK);
	expect(write(fd, "abc", 3) == 3, "a write of 3", "another result");
	expect(becomes(fd, POLLIN), "POLLIN", "none");
	expect(read(fd, got, 8) == 3 && !memcmp(got, "abc", 3), "abc", "something else");
}
