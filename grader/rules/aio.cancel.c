// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* aio.cancel: io_cancel() of a waiting read ends it, with one event, and it takes no byte of those that come later. */
#include "rule.h"
#include <linux/aio_abi.h>

static void rule(void)
{
	int fd = fifo(O_RDWR | O_NONBLOCK), ends[2];
	char bytes[16] = "", step;
	aio_context_t context = 0;
	struct iocb request = { .aio_fildes = fd, .aio_lio_opcode = IOCB_CMD_PREAD, .aio_buf = (unsigned long)bytes, .aio_nbytes = 16 };
	struct iocb *list[] = { &request };
	struct io_event event = { 0 };
	struct timespec none = { 0, 0 }, time = { SOON / 1000, 0 };
	long count, cancelled;

	if (pipe(ends) < 0 || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) < 0)
		fail("a pipe", "none");
	doing("io_submit() of a read of an empty FIFO");
	if (fork() == 0) {
		syscall(SYS_io_setup, 4, &context);
		count = kernel(syscall(SYS_io_submit, context, 1, list));
		write(ends[1], count == 1 ? "s" : "x", 1);
		if (count != 1 || kernel(syscall(SYS_io_getevents, context, 0, 1, &event, &none)) != 0)
			_exit(77);
		doing("io_cancel()");
		cancelled = kernel(syscall(SYS_io_cancel, context, &request, &event));
		expect(cancelled == 0 || cancelled == -EINPROGRESS, "0, or EINPROGRESS and an event later", "%s", told(cancelled));
		count = kernel(syscall(SYS_io_getevents, context, 1, 1, &event, &time));
		expect(count == 1, "an event of the cancelled read", "%s", told(count));
		expect(event.res == -EINTR || event.res == -ECANCELED, "-EINTR or -ECANCELED in the event", "%s", told(event.res));
		verdict(0);
	}
	if (poll(&(struct pollfd){ .fd = ends[0], .events = POLLIN }, 1, GRACE * 40) != 1 || read(ends[0], &step, 1) != 1 || step != 's')
		absent("io_submit() waits, or takes no reads: nothing can be cancelled");
	wait((int *)&cancelled);
	if (WEXITSTATUS(cancelled) == 77)
		absent("the read has ended at once");
	if (!WIFEXITED(cancelled) || WEXITSTATUS(cancelled))
		verdict(1);
	doing("write 5 bytes, read");
	expect(write(fd, "hello", 5) == 5, "a write of 5", "another result");
	expect(becomes(fd, POLLIN), "POLLIN", "none");
	count = kernel(read(fd, bytes, sizeof(bytes)));
	expect(count == 5, "the 5 bytes, none of them taken by the cancelled read", "%s", told(count));
}
