// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * Says each time that /dev/globalfifo signals. It never reads: try echo and cat beside it.
 *
 *   cargo lab cc guest-tests/c/monitor.c -o monitor
 *   cargo lab run --share . -- sh -c './monitor & sleep 1; echo 1 > /dev/globalfifo; sleep 1'
 *
 * The handler uses write(2) only. printf(3) in a handler can lock up the program it interrupts.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void on_signal(int number)
{
	char line[] = "receive a signal from globalfifo,signalnum:00\n";
	size_t length = strlen(line);

	line[length - 3] = (char)('0' + number / 10 % 10);
	line[length - 2] = (char)('0' + number % 10);
	if (write(STDOUT_FILENO, line, length) < 0)
		_exit(1);
}

int main(int argc, char **argv)
{
	const char *path = argc > 1 ? argv[1] : "/dev/globalfifo";
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	int fd = open(path, O_RDWR);

	if (fd < 0) {
		perror(path);
		return 1;
	}
	if (sigaction(SIGIO, &action, NULL) < 0) {
		perror("sigaction");
		return 1;
	}
	/* Whom to signal, and then that it is wanted: this calls the driver's fasync. */
	if (fcntl(fd, F_SETOWN, getpid()) < 0 ||
	    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_ASYNC) < 0) {
		perror("fcntl");
		return 1;
	}
	fprintf(stderr, "monitoring %s\n", path);
	for (;;)
		pause();
}
