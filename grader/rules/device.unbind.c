// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* device.unbind: the driver lets go of a device that is in use, what waits ends, and the device can be bound again. */
#include "rule.h"
#include "device.h"

static void rule(void)
{
	const char *device = virtio(), *driver = driver_of(device);
	int fd = fifo(O_RDWR);
	struct call *reader = begin_read(fd, 8), *call;
	long count;

	expect(sleeps(reader), "a read that sleeps", "%s", state(reader));
	doing("unbind %s while a read waits", device);
	call = begin_binding(device, driver, "unbind");
	count = result(call, "an end of unbind, although a file is open");
	expect(count > 0, "success", "%s", told(count));
	count = result(reader, "an end of the waiting read: ENODEV");
	expect(count == 0 || count == -ENODEV || count == -EIO, "-1, ENODEV", "%s", told(count));
	count = kernel(write(fd, "x", 1));
	expect(count < 0, "an error from a later write, ENODEV", "%s", told(count));
	close(fd);
	bind_again(device, driver);
	doing("write 5 bytes, read");
	fd = fifo(O_RDWR);
	expect(write(fd, "hello", 5) == 5, "a write of 5", "another result");
	expect(becomes(fd, POLLIN), "POLLIN", "none");
	count = kernel(read(fd, shared->calls[7].data, 16));
	expect(count == 5, "5", "%s", told(count));
}
