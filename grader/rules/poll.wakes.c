// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* poll.wakes: a sleeping poll() returns when what it waits for happens. */
#include "rule.h"

/* What the C library makes of poll(); arm64 has no other. */
#ifndef SYS_poll
#define SYS_poll SYS_ppoll
#endif

static pid_t start(short events)
{
	struct pollfd ask = { .fd = fifo(O_RDWR), .events = events };
	pid_t pid = fork();

	/* Without a limit: at its end poll() would look once more. */
	if (pid == 0)
		_exit(poll(&ask, 1, -1) == 1 && (ask.revents & events) ? 0 : 1);
	close(ask.fd);
	/* Until it sleeps in poll(). */
	for (long end = now_ms() + SOON; now_ms() < end; pause_ms(1)) {
		char path[64], line[64] = "";
		int fd;

		snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
		fd = open(path, O_RDONLY);
		if (read(fd, line, sizeof(line) - 1) > 0 && atol(line) == SYS_poll && line[0] != 'r')
			end = 0;
		close(fd);
	}
	return pid;
}

static bool woken(pid_t pid)
{
	struct call call = { .pid = pid };
	int status = -1;

	if (returns(&call))
		waitpid(pid, &status, 0);
	return status == 0;
}

static void rule(void)
{
	int fd = fifo(O_RDWR);
	char bytes[16];
	pid_t pid = start(POLLIN);

	doing("a process sleeps in poll() for POLLIN; write 1 byte");
	expect(write(fd, "x", 1) == 1, "a write of 1", "another result");
	expect(woken(pid), "poll() returns with POLLIN", "it was still waiting after %d s", SOON / 1000);
	fill();
	pid = start(POLLOUT);
	doing("fill the FIFO; a process sleeps in poll() for POLLOUT; read 16 bytes");
	expect(read(fd, bytes, sizeof(bytes)) > 0, "bytes from read()", "none");
	expect(woken(pid), "poll() returns with POLLOUT", "it was still waiting after %d s", SOON / 1000);
}
