// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* read.zero: a read never returns 0, the sign of an end, while nothing has ended. */
#include "rule.h"
#include <linux/userfaultfd.h>

#define PAGE 4096ul

/* A process with this one's memory that reads into a page which is not there yet. */
static struct reader { int fd; char *page; volatile long got; pid_t pid; char stack[65536]; } readers[2];

static int reads(void *arg)
{
	struct reader *reader = arg;

	reader->got = kernel(syscall(SYS_read, reader->fd, reader->page, 10));
	_exit(0);
}

static struct call *as_call(struct reader *reader)
{
	static struct call calls[2];
	struct call *call = &calls[reader - readers];

	call->pid = reader->pid;
	call->number = SYS_read;
	call->fd = reader->fd;
	call->result = reader->got;
	return call;
}

/* How often a process has gone to sleep. */
static long sleeps_of(pid_t pid)
{
	char path[64], line[128];
	long count = 0;
	FILE *file = (snprintf(path, sizeof(path), "/proc/%d/status", pid), fopen(path, "r"));

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "voluntary_ctxt_switches: %ld", &count) == 1)
			break;
	if (file)
		fclose(file);
	return count;
}

/* Pages whose first use waits for this process; -1 where the kernel does not allow that. */
static int absent_pages(char *pages)
{
	int faults = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .range = { (unsigned long)pages, 2 * PAGE }, .mode = UFFDIO_REGISTER_MODE_MISSING };

	if (faults >= 0 && (ioctl(faults, UFFDIO_API, &api) < 0 || ioctl(faults, UFFDIO_REGISTER, &range) < 0))
		return -1;
	return faults;
}

/* Serves the next page; between the request and that, the other reader has the time to be woken and to look. */
static void serve(int faults, const long *before)
{
	struct pollfd ask = { .fd = faults, .events = POLLIN };
	struct uffd_msg message;
	struct uffdio_zeropage page = { .range.len = PAGE };

	if (faults < 0 || poll(&ask, 1, SOON) != 1 || read(faults, &message, sizeof(message)) != sizeof(message))
		return;
	page.range.start = message.arg.pagefault.address & ~(PAGE - 1);
	for (long end = now_ms() + GRACE * 4; now_ms() < end; pause_ms(1)) {
		struct reader *other = page.range.start == (unsigned long)readers[0].page ? &readers[1] : &readers[0];

		if (sleeps_of(other->pid) > before[other - readers])
			break;
	}
	ioctl(faults, UFFDIO_ZEROPAGE, &page);
}

static void rule(void)
{
	char *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = fifo(O_RDWR), faults = absent_pages(pages);
	long count, before[2];

	doing("two processes wait in read(); write 0 bytes");
	for (int i = 0; i < 2; i++) {
		struct reader *reader = &readers[i];

		reader->fd = fd;
		reader->page = pages + i * PAGE;
		reader->pid = clone(reads, reader->stack + sizeof(reader->stack), CLONE_VM | SIGCHLD, reader);
		expect(sleeps(as_call(reader)), "a read that sleeps", "%s", state(as_call(reader)));
	}
	count = kernel(write(fd, "", 0));
	expect(count == 0, "0", "%s", told(count));
	doing("write 1 byte, which one of them gets, then 1 more");
	for (int i = 0; i < 2; i++) {
		for (int who = 0; who < 2; who++)
			before[who] = sleeps_of(readers[who].pid);
		expect(write(fd, "x", 1) == 1, "a write of 1", "another result");
		serve(faults, before);
		for (long end = now_ms() + SOON; now_ms() < end && returned(as_call(&readers[0])) + returned(as_call(&readers[1])) <= i; )
			pause_ms(1);
	}
	for (int i = 0; i < 2; i++) {
		expect(returns(as_call(&readers[i])), "1 to each reader", "a read that still waits");
		count = readers[i].got;
		expect(count == 1, "1 to each reader: a woken reader looks again whether there is data", "%s", told(count));
	}
}
