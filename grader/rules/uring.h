/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* For rules about io_uring: a ring, and waiting for a completion. To be compiled with -luring. */
#ifndef URING_H
#define URING_H
#include <liburing.h>

/* One completion, or NULL in time. */
__attribute__((unused))
static struct io_uring_cqe *completion(struct io_uring *ring, long ms)
{
	struct __kernel_timespec time = { ms / 1000, ms % 1000 * 1000000 };
	struct io_uring_cqe *cqe = NULL;

	return io_uring_wait_cqe_timeout(ring, &cqe, &time) == 0 ? cqe : NULL;
}

__attribute__((unused))
static void begin_ring(struct io_uring *ring)
{
	int err = io_uring_queue_init(8, ring, 0);

	if (err < 0)
		absent("this kernel has no io_uring for us");
}
#endif
