// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* write.signal: a signal with a handler ends a sleeping write with EINTR, and SIGKILL ends the process. */
#include "rule.h"

static void rule(void)
{
	size_t capacity = fill();
	int fd = fifo(O_RDWR);
	struct call *call = begin_write(fd, 10, 'w'), *victim = begin_write(fd, 10, 'w');
	long count;

	doing("fill the FIFO (%zu bytes); a process sleeps in write(); send it a signal that has a handler", capacity);
	expect(sleeps(call), "a write that sleeps", "%s", state(call));
	kill(call->pid, SIGUSR1);
	count = result(call, "-1, EINTR");
	expect(count == -EINTR, "-1, EINTR", "%s", told(count));
	doing("another process sleeps in write(); send it SIGKILL");
	expect(sleeps(victim), "a write that sleeps", "%s", state(victim));
	kill(victim->pid, SIGKILL);
	expect(returns(victim), "its end", "a process that SIGKILL does not end");
}
