// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* aio.exit: a process with a waiting read can end, and the read takes no byte of those that come later. */
#include "rule.h"
#include <linux/aio_abi.h>

static void rule(void)
{
	int fd = fifo(O_RDWR), ends[2];
	char bytes[16] = "", step;
	aio_context_t context = 0;
	struct iocb request = { .aio_fildes = fd, .aio_lio_opcode = IOCB_CMD_PREAD, .aio_buf = (unsigned long)bytes, .aio_nbytes = 16 };
	struct iocb *list[] = { &request };
	struct io_event event = { 0 };
	struct timespec none = { 0, 0 };
	struct call child = { 0 };
	long count;

	if (pipe(ends) < 0)
		fail("a pipe", "none");
	doing("io_submit() of a read of an empty FIFO, then SIGKILL");
	child.pid = fork();
	if (child.pid == 0) {
		syscall(SYS_io_setup, 4, &context);
		count = kernel(syscall(SYS_io_submit, context, 1, list));
		if (count == 1 && kernel(syscall(SYS_io_getevents, context, 0, 1, &event, &none)) != 0)
			count = 0;
		write(ends[1], count == 1 ? "s" : "x", 1);
		pause();
	}
	if (poll(&(struct pollfd){ .fd = ends[0], .events = POLLIN }, 1, GRACE * 40) != 1 || read(ends[0], &step, 1) != 1 || step != 's')
		absent("io_submit() waits, or takes no reads");
	kill(child.pid, SIGKILL);
	expect(returns(&child), "an end of the process", "it has not ended after %d s", SOON / 1000);
	waitpid(child.pid, NULL, 0);
	doing("write 5 bytes, read");
	expect(write(fd, "hello", 5) == 5, "a write of 5", "another result");
	expect(becomes(fd, POLLIN), "POLLIN", "none");
	count = kernel(read(fd, bytes, sizeof(bytes)));
	expect(count == 5, "the 5 bytes, none of them taken by the read of a process that has gone", "%s", told(count));
}
