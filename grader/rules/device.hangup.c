// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* device.hangup: poll() tells POLLHUP when the device goes away, and does not sleep on. */
#include "rule.h"
#include "device.h"

static void rule(void)
{
	const char *device = virtio(), *driver = driver_of(device);
	int fd = fifo(O_RDWR), ends[2];
	struct pollfd ask = { .fd = fd, .events = POLLIN };
	struct call *call;
	short found = 0;
	long count;

	if (pipe(ends) < 0)
		fail("a pipe", "none");
	doing("poll() for POLLIN, in another process");
	if (fork() == 0) {
		poll(&ask, 1, -1);
		write(ends[1], &ask.revents, sizeof(ask.revents));
		_exit(0);
	}
	pause_ms(GRACE);
	doing("unbind %s", device);
	call = begin_binding(device, driver, "unbind");
	count = result(call, "an end of unbind, although a file is open");
	expect(count > 0, "success", "%s", told(count));
	ask = (struct pollfd){ .fd = ends[0], .events = POLLIN };
	expect(poll(&ask, 1, SOON) == 1, "an end of poll()", "it still waits");
	expect(read(ends[0], &found, sizeof(found)) == sizeof(found), "its events", "none");
	bind_again(device, driver);
	doing("look at what poll() has told");
	expect(found & POLLHUP, "POLLHUP", "%#x", found);
}
