// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* read.signal: a signal with a handler ends a sleeping read with EINTR, and SIGKILL ends the process. */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR);
	struct call *call = begin_read(fd, 10), *victim = begin_read(fd, 10);
	long count;

	doing("a process sleeps in read(); send it a signal that has a handler, without SA_RESTART");
	expect(sleeps(call), "a read that sleeps", "%s", state(call));
	kill(call->pid, SIGUSR1);
	count = result(call, "-1, EINTR");
	expect(count == -EINTR, "-1, EINTR", "%s", told(count));
	doing("another process sleeps in read(); send it SIGKILL");
	expect(sleeps(victim), "a read that sleeps", "%s", state(victim));
	kill(victim->pid, SIGKILL);
	expect(returns(victim), "its end", "a process that SIGKILL does not end");
}
