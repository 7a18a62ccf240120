// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* A read by io_uring that waits, tells so by a write, and prints what it has got. */
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	char buffer[64];
	struct io_uring ring;
	struct io_uring_cqe *cqe;
	int fd = open("/dev/globalfifo", O_RDWR);

	if (fd < 0 || io_uring_queue_init(4, &ring, 0) < 0)
		return 1;
	io_uring_prep_read(io_uring_get_sqe(&ring), fd, buffer, sizeof(buffer), 0);
	if (io_uring_submit(&ring) != 1 || write(fd, "ready\n", 6) != 6)
		return 1;
	if (io_uring_wait_cqe(&ring, &cqe) < 0 || cqe->res <= 0)
		return 1;
	printf("%.*s\n", cqe->res, buffer);
	return 0;
}
