// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* wait.lost: no wake-up is lost, however the sides race. Run on two CPUs: one process waits, the other makes true what it waits for. */
#include "rule.h"

/* Rounds of each kind at most, and milliseconds. A slow machine does fewer. */
#define ROUNDS 4000
#define LONGEST 4000

struct race { volatile unsigned turn, done; volatile bool over; };
enum kind { READER, WRITER, POLLER };

/* Waits in the driver for each turn. */
static void waiter(enum kind kind, int fd, struct race *race)
{
	char byte = 'w';

	while (!race->over) {
		long got = kind == WRITER ? write(fd, &byte, 1) : kind == READER ? read(fd, &byte, 1) : becomes(fd, POLLIN);

		if (kind == POLLER)
			got = read(fd, &byte, 1);
		if (got != 1)
			_exit(1);
		race->done++;
	}
	_exit(0);
}

/* Makes it true, a little earlier or later each time. */
static void race(enum kind kind, struct race *race, const char *name)
{
	int fd = fifo(O_RDWR);
	long end = now_ms() + LONGEST;
	size_t full = 0;
	unsigned round = 0;
	char byte = 'x';
	pid_t pid;

	memset(race, 0, sizeof(*race));
	if (kind == WRITER)
		full = fill();
	pid = fork();
	if (pid == 0)
		waiter(kind, fd, race);
	for (; round < ROUNDS && now_ms() < end; round++) {
		long limit = now_ms() + SOON;

		for (volatile unsigned spin = round * 37 % 3000; spin; spin--)
			;
		if ((kind == WRITER ? read(fd, &byte, 1) : write(fd, &byte, 1)) != 1)
			fail("1 byte", "another result in round %u", round);
		while (race->done <= round) {
			expect(now_ms() < limit, "the other process wakes", "%s sleeps although it need not, after %u rounds", name, round);
			sched_yield();
		}
	}
	doing("%s waits %u times", name, round);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(fd);
	/* A byte more or less: the waiter was ended in a call. */
	take(full ? full - 1 : 0);
}

static void rule(void)
{
	struct race *page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	race(READER, page, "read() of an empty FIFO");
	race(WRITER, page, "write() to a full FIFO");
	race(POLLER, page, "poll() for POLLIN");
}
