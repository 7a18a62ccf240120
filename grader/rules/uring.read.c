// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* uring.read: a read of an empty FIFO by io_uring is completed when data arrives, and not before. To be compiled with -luring. */
#include "rule.h"
#include "uring.h"

static void rule(void)
{
	int fd = fifo(O_RDWR);
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	char bytes[16] = "";

	begin_ring(&ring);
	doing("io_uring: read of an empty FIFO");
	io_uring_prep_read(io_uring_get_sqe(&ring), fd, bytes, sizeof(bytes), -1);
	expect(io_uring_submit(&ring) == 1, "1 submitted", "another number");
	cqe = completion(&ring, GRACE);
	expect(!cqe, "no completion before there is data", "%s", told(cqe->res));
	doing("write 5 bytes");
	expect(write(fd, "hello", 5) == 5, "a write of 5", "another result");
	cqe = completion(&ring, SOON);
	expect(cqe, "a completion", "none after %d s", SOON / 1000);
	expect(cqe->res == 5 && !memcmp(bytes, "hello", 5), "5, and the bytes", "%s", told(cqe->res));
	io_uring_queue_exit(&ring);
}
