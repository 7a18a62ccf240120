// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * Reads numbered lines of nine bytes ("00000000\n", "00000001\n", …) from /dev/globalfifo by the kernel's AIO, one read at a time, and says whether
 * each number follows the one before.
 *
 *   lines COUNT
 */
#include <fcntl.h>
#include <libaio.h>
#include <stdio.h>
#include <stdlib.h>

enum { LINE = 9 };

int main(int argc, char **argv)
{
	long count = argc > 1 ? atol(argv[1]) : 0;
	long next = 0;
	static char bytes[4096];
	char line[LINE + 1] = "";
	int length = 0;
	io_context_t context = 0;
	int fd = open("/dev/globalfifo", O_RDONLY);

	if (fd < 0 || io_setup(1, &context) < 0)
		return 2;
	while (next < count) {
		struct iocb request, *requests[] = { &request };
		struct io_event event;

		io_prep_pread(&request, fd, bytes, sizeof(bytes), 0);
		if (io_submit(context, 1, requests) != 1 || io_getevents(context, 1, 1, &event, NULL) != 1)
			return 2;
		if ((long)event.res <= 0) {
			printf("a read ended with %ld at line %ld\n", (long)event.res, next);
			return 1;
		}
		for (long i = 0; i < (long)event.res; i++) {
			line[length++] = bytes[i];
			if (length < LINE)
				continue;
			length = 0;
			if (atol(line) != next) {
				printf("line %ld came in place of %ld\n", atol(line), next);
				return 1;
			}
			next++;
		}
	}
	printf("%ld lines in order\n", next);
	return 0;
}
