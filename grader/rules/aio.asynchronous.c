// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* aio.asynchronous: io_submit() of a read of an empty FIFO returns at once; the read is completed when data arrives. */
#include "rule.h"
#include <linux/aio_abi.h>

static void rule(void)
{
	int fd = fifo(O_RDWR), ends[2];
	char bytes[16] = "", byte;
	aio_context_t context = 0;
	struct iocb request = { .aio_fildes = fd, .aio_lio_opcode = IOCB_CMD_PREAD, .aio_buf = (unsigned long)bytes, .aio_nbytes = 16 };
	struct iocb *list[] = { &request };
	struct io_event event = { 0 };
	struct timespec none = { 0, 0 }, time = { SOON / 1000, 0 };
	struct pollfd ask;
	long count;

	if (pipe(ends) < 0)
		fail("a pipe", "none");
	doing("io_submit() of a read of an empty FIFO, in a process that tells when the call has returned");
	if (fork() == 0) {
		syscall(SYS_io_setup, 4, &context);
		count = kernel(syscall(SYS_io_submit, context, 1, list));
		byte = count == 1 ? '1' : count == -EINVAL ? 'x' : '?';
		write(ends[1], &byte, 1);
		if (kernel(syscall(SYS_io_getevents, context, 0, 1, &event, &none)) != 0)
			_exit(2);
		write(ends[1], "w", 1);
		count = kernel(syscall(SYS_io_getevents, context, 1, 1, &event, &time));
		_exit(count == 1 && event.res == 5 && !memcmp(bytes, "hello", 5) ? 0 : 1);
	}
	ask = (struct pollfd){ .fd = ends[0], .events = POLLIN };
	if (poll(&ask, 1, GRACE * 40) != 1)
		absent("io_submit() waits for data");
	expect(read(ends[0], &byte, 1) == 1, "a byte", "none");
	if (byte == 'x')
		absent("io_submit() is EINVAL: the driver has read, not read_iter");
	expect(byte == '1', "1 from io_submit()", "an error");
	expect(read(ends[0], &byte, 1) == 1, "no event before there is data", "one");
	doing("write 5 bytes, io_getevents()");
	expect(write(fd, "hello", 5) == 5, "a write of 5", "another result");
	count = -1;
	wait((int *)&count);
	expect((int)count == 0, "an event with the 5 bytes", "another, or none");
}
