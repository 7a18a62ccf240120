// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * Reads from /dev/globalfifo with the kernel's own AIO, through O_DIRECT into an aligned buffer.
 *
 *   cargo lab cc guest-tests/c/libaio_direct.c -laio -o libaio_direct
 *   cargo lab run --share . -- sh -c 'echo hello > /dev/globalfifo; ./libaio_direct'
 *
 * libaio returns errors as negative numbers, and leaves errno alone.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <libaio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIZE 4096

static int failed(const char *what, long error)
{
	fprintf(stderr, "%s: %s\n", what, strerror((int)-error));
	return 1;
}

int main(int argc, char **argv)
{
	const char *path = argc > 1 ? argv[1] : "/dev/globalfifo";
	io_context_t context = 0;
	struct iocb request, *list[] = { &request };
	struct io_event event;
	void *buffer;
	long result;
	int fd = open(path, O_RDWR | O_DIRECT);

	if (fd < 0) {
		perror(path);
		return 1;
	}
	result = posix_memalign(&buffer, SIZE, SIZE);
	if (result)
		return failed("posix_memalign", -result);
	result = io_setup(1, &context);
	if (result < 0)
		return failed("io_setup", result);

	io_prep_pread(&request, fd, buffer, SIZE, 0);
	result = io_submit(context, 1, list);
	if (result != 1)
		return failed("io_submit", result);
	/* Waits for the event; the request itself waited for nothing. */
	result = io_getevents(context, 1, 1, &event, NULL);
	if (result != 1)
		return failed("io_getevents", result);
	if ((long)event.res < 0)
		return failed("the read", (long)event.res);

	printf("read %ld of %d bytes: %.*s", (long)event.res, SIZE, (int)event.res, (char *)buffer);
	io_destroy(context);
	free(buffer);
	close(fd);
	return 0;
}
