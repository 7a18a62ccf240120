// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * Reads from /dev/globalfifo with the C library's AIO: starts, asks, sleeps until it is done.
 *
 *   cargo lab cc guest-tests/c/aio_read.c -o aio_read
 *   cargo lab run --share . -- sh -c './aio_read & sleep 1; echo hello > /dev/globalfifo; wait'
 */
#include <aio.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	const char *path = argc > 1 ? argv[1] : "/dev/globalfifo";
	static char buffer[64];
	struct aiocb request;
	const struct aiocb *list[] = { &request };
	ssize_t count;
	int error;

	memset(&request, 0, sizeof(request));
	request.aio_fildes = open(path, O_RDWR);
	if (request.aio_fildes < 0) {
		perror(path);
		return 1;
	}
	request.aio_buf = buffer;
	request.aio_nbytes = sizeof(buffer);
	request.aio_sigevent.sigev_notify = SIGEV_NONE;
	if (aio_read(&request) < 0) {
		perror("aio_read");
		return 1;
	}
	error = aio_error(&request);
	printf("aio_read returned, aio_error: %s\n", error == EINPROGRESS ? "EINPROGRESS" : strerror(error));
	fflush(stdout);

	/* Asking in a loop would use up the CPU: sleep until the request is done. */
	while ((error = aio_error(&request)) == EINPROGRESS) {
		if (aio_suspend(list, 1, NULL) < 0 && errno != EINTR) {
			perror("aio_suspend");
			return 1;
		}
	}
	/* Once, and only when it is done: what read() would have returned. */
	count = aio_return(&request);
	if (count < 0) {
		fprintf(stderr, "the read failed: %s\n", strerror(error));
		return 1;
	}
	printf("read %zd bytes: %.*s", count, (int)count, buffer);
	return 0;
}
