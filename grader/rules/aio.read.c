// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* aio.read: io_submit() of a read is completed with the data. */
#include "rule.h"
#include <linux/aio_abi.h>

static void rule(void)
{
	int fd = fifo(O_RDWR);
	char bytes[16] = "";
	aio_context_t context = 0;
	struct iocb request = { .aio_fildes = fd, .aio_lio_opcode = IOCB_CMD_PREAD, .aio_buf = (unsigned long)bytes, .aio_nbytes = 16 };
	struct iocb *list[] = { &request };
	struct io_event event = { 0 };
	struct timespec time = { SOON / 1000, 0 };
	long count;

	expect(write(fd, "hello", 5) == 5, "a write of 5", "another result");
	expect(becomes(fd, POLLIN), "POLLIN", "none");
	syscall(SYS_io_setup, 4, &context);
	doing("write 5 bytes, io_submit() of a read of 16, io_getevents()");
	count = kernel(syscall(SYS_io_submit, context, 1, list));
	if (count == -EINVAL)
		absent("io_submit() is EINVAL: the driver has read, not read_iter");
	expect(count == 1, "1", "%s", told(count));
	count = kernel(syscall(SYS_io_getevents, context, 1, 1, &event, &time));
	expect(count == 1, "1 event", "%s", told(count));
	expect(event.res == 5 && !memcmp(bytes, "hello", 5), "5 and the bytes", "%s", told(event.res));
}
