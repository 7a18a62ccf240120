// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* aio.write: io_submit() of a write is completed with the count. */
#include "rule.h"
#include <linux/aio_abi.h>

static void rule(void)
{
	int fd = fifo(O_RDWR);
	char bytes[16] = "hello";
	aio_context_t context = 0;
	struct iocb request = { .aio_fildes = fd, .aio_lio_opcode = IOCB_CMD_PWRITE, .aio_buf = (unsigned long)bytes, .aio_nbytes = 5 };
	struct iocb *list[] = { &request };
	struct io_event event = { 0 };
	struct timespec time = { SOON / 1000, 0 };
	long count;

	syscall(SYS_io_setup, 4, &context);
	doing("io_submit() of a write of 5 bytes, io_getevents(), read");
	count = kernel(syscall(SYS_io_submit, context, 1, list));
	if (count == -EINVAL)
		absent("io_submit() is EINVAL: the driver has write, not write_iter");
	expect(count == 1, "1", "%s", told(count));
	count = kernel(syscall(SYS_io_getevents, context, 1, 1, &event, &time));
	expect(count == 1 && event.res == 5, "1 event of 5 bytes", "%s, result %s", told(count), told(event.res));
	count = kernel(read(fd, bytes, 16));
	expect(count == 5 && !memcmp(bytes, "hello", 5), "5 bytes", "%s", told(count));
}
