// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* read.blocks: a read of an empty FIFO sleeps. */
#include "rule.h"

static void rule(void)
{
	struct call *call = begin_read(fifo(O_RDWR), 10);

	doing("read an empty FIFO without O_NONBLOCK");
	expect(sleeps(call), "a call that sleeps until there is data", "%s", state(call));
}
