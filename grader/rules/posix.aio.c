// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* posix.aio: aio_read() of an empty FIFO goes on until data arrives; aio_write() puts it there. */
#include "rule.h"
#include <aio.h>

/* Waits for its end; its result. */
static long ended(struct aiocb *request)
{
	const struct aiocb *list[] = { request };
	struct timespec time = { SOON / 1000, 0 };
	int error;

	while (aio_error(request) == EINPROGRESS && (aio_suspend(list, 1, &time) == 0 || errno == EINTR))
		;
	error = aio_error(request);
	return error ? -(long)error : aio_return(request);
}

static void rule(void)
{
	int fd = fifo(O_RDWR);
	char in[16] = "", out[] = "hello";
	struct aiocb reading = { .aio_fildes = fd, .aio_buf = in, .aio_nbytes = sizeof(in) };
	struct aiocb writing = { .aio_fildes = fd, .aio_buf = out, .aio_nbytes = 5 };
	long count;

	/* One thread serves a descriptor: another one for the write. */
	writing.aio_fildes = fifo(O_RDWR);
	doing("aio_read() of an empty FIFO");
	count = kernel(aio_read(&reading));
	expect(count == 0, "0", "%s", told(count));
	pause_ms(GRACE);
	count = aio_error(&reading);
	expect(count == EINPROGRESS, "EINPROGRESS", "%s", told(-count));
	doing("aio_write() of 5 bytes");
	count = kernel(aio_write(&writing));
	expect(count == 0, "0", "%s", told(count));
	count = ended(&writing);
	expect(count == 5, "5 from aio_return() of the write", "%s", told(count));
	count = ended(&reading);
	expect(count == 5 && !memcmp(in, "hello", 5), "5 from aio_return() of the read, and the bytes", "%s", told(count));
}
