// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* aio.vector: io_submit() of a readv and of a writev use their buffers in order. */
#include "rule.h"
#include <linux/aio_abi.h>

static long one(int fd, int opcode, struct iovec *parts, int count)
{
	aio_context_t context = 0;
	struct iocb request = { .aio_fildes = fd, .aio_lio_opcode = opcode, .aio_buf = (unsigned long)parts, .aio_nbytes = count };
	struct iocb *list[] = { &request };
	struct io_event event = { 0 };
	struct timespec time = { SOON / 1000, 0 };
	long got;

	syscall(SYS_io_setup, 4, &context);
	got = kernel(syscall(SYS_io_submit, context, 1, list));
	if (got == -EINVAL)
		absent("io_submit() is EINVAL: the driver has no read_iter or no write_iter");
	expect(got == 1, "1 from io_submit()", "%s", told(got));
	got = kernel(syscall(SYS_io_getevents, context, 1, 1, &event, &time));
	expect(got == 1, "1 event", "%s", told(got));
	syscall(SYS_io_destroy, context);
	return event.res;
}

static void rule(void)
{
	int fd = fifo(O_RDWR);
	char a[3] = "abc", b[2] = "de", c[2] = "", d[9] = "";
	struct iovec out[] = { { a, 3 }, { b, 2 } }, in[] = { { c, 2 }, { d, 9 } };
	long count;

	doing("io_submit() of a writev of 3 and 2 bytes");
	count = one(fd, IOCB_CMD_PWRITEV, out, 2);
	expect(count == 5, "5", "%s", told(count));
	expect(becomes(fd, POLLIN), "POLLIN", "none");
	doing("io_submit() of a readv into 2 and 9 bytes");
	count = one(fd, IOCB_CMD_PREADV, in, 2);
	expect(count == 5, "5", "%s", told(count));
	expect(!memcmp(c, "ab", 2) && !memcmp(d, "cde", 3), "ab and cde", "%.2s and %.3s", c, d);
}
