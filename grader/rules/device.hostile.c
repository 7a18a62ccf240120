// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* device.hostile: a device that lies in ids, lengths and indices crashes nothing: calls end, with whatever result. */

/* The driver may have given the device up: then no open succeeds, and that is right. */
#define AS_IT_IS
#include "rule.h"
#include "device.h"

/* Calls on an open file; false after an error that stays. */
static bool calls(int fd, size_t size)
{
	static char bytes[4096];

	for (int i = 0; i < 20; i++) {
		long put = kernel(write(fd, bytes, size)), got = kernel(read(fd, bytes, sizeof(bytes)));

		expect(put <= (long)size && got <= (long)sizeof(bytes), "at most what was asked for", "%ld and %ld", put, got);
		if ((put < 0 && put != -EAGAIN) || (got < 0 && got != -EAGAIN))
			return false;
	}
	return true;
}

static void rule(void)
{
	const char *device = virtio(), *driver = driver_of(device);
	unsigned opened = 0, bound = 0;

	doing("read and write with O_NONBLOCK for 5 s, and unbind and bind after an error");
	for (long end = now_ms() + 5000; now_ms() < end; opened++) {
		int fd = open(node, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		bool goes_on = fd >= 0 && calls(fd, 1 + opened * 97 % 4096);

		close(fd);
		if (goes_on)
			continue;
		shared->count = 0;
		result(begin_binding(device, driver, "unbind"), "an end of unbind");
		result(begin_binding(device, driver, "bind"), "an end of bind");
		for (long limit = now_ms() + 1000; access(node, F_OK) < 0 && now_ms() < limit; )
			pause_ms(5);
		bound++;
	}
	doing("opened %u times, bound again %u times", opened, bound);
}
