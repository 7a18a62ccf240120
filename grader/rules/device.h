/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* For rules about the virtio device behind a node: its name, and how its driver lets go of it. It knows sysfs, and no driver. */
#ifndef DEVICE_H
#define DEVICE_H
#include <limits.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* Name of the virtio device behind the node, like virtio2; the rule is about such devices alone. */
__attribute__((unused))
static const char *virtio(void)
{
	static char name[32];
	char path[64], real[PATH_MAX], *part;
	struct stat status = { 0 };

	stat(node, &status);
	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u", major(status.st_rdev), minor(status.st_rdev));
	for (part = realpath(path, real); part; part = strchr(part + 1, '/'))
		if (sscanf(part, "/%31[a-z0-9]", name) == 1 && !strncmp(name, "virtio", 6) && name[6] >= '0' && name[6] <= '9')
			return name;
	absent("there is no virtio device behind the node");
}

/* Writes the device's name to its driver's file `unbind` or `bind`, in another process: the driver may wait for something. */
__attribute__((unused))
static struct call *begin_binding(const char *device, const char *driver, const char *file)
{
	struct call *call = &shared->calls[shared->count++];
	char path[PATH_MAX + 16];
	pid_t pid;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", driver, file);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		fd = open(path, O_WRONLY);
		call->result = kernel(write(fd, device, strlen(device)));
		_exit(0);
	}
	call->pid = pid;
	return call;
}

/* The driver's folder in sysfs. */
__attribute__((unused))
static const char *driver_of(const char *device)
{
	static char real[PATH_MAX];
	char path[96];

	snprintf(path, sizeof(path), "/sys/bus/virtio/devices/%s/driver", device);
	return realpath(path, real) ?: "";
}

/* Gives the device back to its driver, and waits for the node. */
__attribute__((unused))
static void bind_again(const char *device, const char *driver)
{
	struct call *call = begin_binding(device, driver, "bind");
	long count = result(call, "an end of bind");

	doing("bind %s again", device);
	expect(count > 0, "success", "%s", told(count));
	for (long end = now_ms() + SOON; access(node, F_OK) < 0; pause_ms(5))
		expect(now_ms() < end, "the node is there again", "it is not");
}
#endif
