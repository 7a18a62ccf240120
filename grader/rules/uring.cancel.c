// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* uring.cancel: a waiting read of io_uring's can be cancelled, and takes no byte of those that come later. To be compiled with -luring. */
#include "rule.h"
#include "uring.h"

static void rule(void)
{
	int fd = fifo(O_RDWR);
	struct io_uring_cqe *cqe;
	struct io_uring_sqe *sqe;
	struct io_uring ring;
	char bytes[16] = "";
	bool ended = false;
	long count;

	begin_ring(&ring);
	doing("io_uring: read of an empty FIFO");
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_read(sqe, fd, bytes, sizeof(bytes), -1);
	io_uring_sqe_set_data64(sqe, 1);
	expect(io_uring_submit(&ring) == 1, "1 submitted", "another number");
	cqe = completion(&ring, GRACE);
	expect(!cqe, "no completion before there is data", "%s", told(cqe->res));
	doing("cancel it");
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_cancel64(sqe, 1, 0);
	io_uring_sqe_set_data64(sqe, 2);
	expect(io_uring_submit(&ring) == 1, "1 submitted", "another number");
	for (int i = 0; i < 2; i++) {
		cqe = completion(&ring, SOON);
		expect(cqe, "completions of the cancel and of the read", "%d after %d s", i, SOON / 1000);
		if (cqe->user_data == 1) {
			expect(cqe->res == -ECANCELED || cqe->res == -EINTR, "-ECANCELED or -EINTR of the read", "%s", told(cqe->res));
			ended = true;
		} else {
			/* -EALREADY: it runs in a thread, which has been told. */
			expect(cqe->res == 0 || cqe->res == 1 || cqe->res == -EALREADY, "0 or -EALREADY of the cancel", "%s", told(cqe->res));
		}
		io_uring_cqe_seen(&ring, cqe);
	}
	expect(ended, "a completion of the read", "none");
	doing("write 5 bytes, read");
	expect(write(fd, "hello", 5) == 5, "a write of 5", "another result");
	expect(becomes(fd, POLLIN), "POLLIN", "none");
	count = kernel(read(fd, bytes, sizeof(bytes)));
	expect(count == 5, "the 5 bytes, none of them taken by the cancelled read", "%s", told(count));
	io_uring_queue_exit(&ring);
}
