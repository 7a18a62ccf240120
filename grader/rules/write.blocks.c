// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* write.blocks: a write into a full FIFO sleeps. */
#include "rule.h"

static void rule(void)
{
	size_t capacity = fill();
	struct call *call = begin_write(fifo(O_RDWR), 10, 'w');

	doing("fill the FIFO (%zu bytes), write 10 more without O_NONBLOCK", capacity);
	expect(sleeps(call), "a call that sleeps until there is room", "%s", state(call));
}
