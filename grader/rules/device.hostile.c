// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* device.hostile: a device that lies in ids, lengths and indices crashes nothing: calls end, with whatever result. */

/* The driver may have given the device up: then no open succeeds, and that is right. */
#define AS_IT_IS
#include "rule.h"
#include "device.h"

static void rule(void)
{
	static char bytes[4096];
	long calls = 0;
	int fd;

	virtio();
	doing("read and write with O_NONBLOCK for 5 s, with a device that lies");
	for (long end = now_ms() + 5000; now_ms() < end; calls++) {
		fd = open(node, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0)
			break;
		for (int i = 0; i < 20; i++) {
			long put = write(fd, bytes, 1 + calls % sizeof(bytes)), got = read(fd, bytes, sizeof(bytes));

			expect(put <= (long)sizeof(bytes) && got <= (long)sizeof(bytes), "at most what was asked for", "%ld and %ld", put, got);
		}
		close(fd);
	}
	doing("%ld times", calls);
}
