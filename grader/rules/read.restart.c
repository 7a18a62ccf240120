// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* read.restart: after a signal with SA_RESTART a sleeping read goes on (the driver returns -ERESTARTSYS, not -EINTR). */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR);
	struct call *call;
	long count;

	restart_flag = SA_RESTART;
	call = begin_read(fd, 10);
	doing("a process sleeps in read(); send it a signal whose handler has SA_RESTART");
	expect(sleeps(call), "a read that sleeps", "%s", state(call));
	kill(call->pid, SIGUSR1);
	pause_ms(GRACE);
	expect(sleeps(call), "the call sleeps again after the handler", "%s", state(call));
	doing("write 1 byte");
	expect(write(fd, "x", 1) == 1, "a write of 1", "another result");
	count = result(call, "1");
	expect(count == 1, "1", "%s", told(count));
}
