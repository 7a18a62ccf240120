// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* A read of native AIO that waits, tells so by a write, and prints what it has got. */
#include <fcntl.h>
#include <libaio.h>
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	char buffer[64];
	io_context_t context = 0;
	struct iocb request, *list[] = { &request };
	struct io_event event;
	int fd = open("/dev/globalfifo", O_RDWR);

	if (fd < 0 || io_setup(1, &context) < 0)
		return 1;
	io_prep_pread(&request, fd, buffer, sizeof(buffer), 0);
	if (io_submit(context, 1, list) != 1 || write(fd, "ready\n", 6) != 6)
		return 1;
	if (io_getevents(context, 1, 1, &event, NULL) != 1 || (long)event.res <= 0)
		return 1;
	printf("%.*s\n", (int)event.res, buffer);
	return 0;
}
