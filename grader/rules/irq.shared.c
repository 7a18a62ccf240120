// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* irq.shared: an interrupt line that other devices share. The lab's machine has random number generators without MSI-X beside the FIFO. */
#include "rule.h"
#include "device.h"

/* Whether the device is the only one on its line in /proc/interrupts; the rule is about lines with several. */
static bool is_alone(const char *device)
{
	FILE *file = fopen("/proc/interrupts", "r");
	char line[4096];
	bool alone = true;

	while (file && fgets(line, sizeof(line), file)) {
		char *name = strstr(line, device);
		char after = name ? name[strlen(device)] : '0';

		if (after < '0' || after > '9')
			alone = alone && !strchr(line, ',');
	}
	if (file)
		fclose(file);
	return alone;
}

/* Writes a word to a file of sysfs. */
static bool put(const char *path, const char *word)
{
	int fd = open(path, O_WRONLY);
	bool done = fd >= 0 && write(fd, word, strlen(word)) > 0;

	if (fd >= 0)
		close(fd);
	return done;
}

/* Reads some bytes of each random number generator: each raises its interrupt. Their number. */
static int disturb(void)
{
	static const char folder[] = "/sys/class/misc/hw_random/";
	char path[96], names[512] = "", bytes[16], *rest = names, *name;
	int fd, count = 0;

	snprintf(path, sizeof(path), "%srng_available", folder);
	fd = open(path, O_RDONLY);
	if (fd < 0 || read(fd, names, sizeof(names) - 1) < 0)
		return 0;
	close(fd);
	snprintf(path, sizeof(path), "%srng_current", folder);
	while ((name = strsep(&rest, " \n"))) {
		if (!*name || !put(path, name))
			continue;
		fd = open("/dev/hwrng", O_RDONLY);
		count += fd >= 0 && read(fd, bytes, sizeof(bytes)) > 0;
		if (fd >= 0)
			close(fd);
	}
	return count;
}

static void rule(void)
{
	const char *device = virtio();
	int fd = fifo(O_RDWR);
	char byte = 'x';

	if (system("modprobe -q virtio-rng") != 0 || !disturb())
		absent("the other devices do nothing: the kernel has no driver of them");
	if (is_alone(device))
		absent("the driver shares no interrupt line");
	doing("read 20 times, each time waiting until the other devices have raised the line and 1 byte has been written");
	for (int i = 0; i < 20; i++) {
		struct call *call = &shared->calls[0];

		shared->count = 0;
		begin_read(fd, 1);
		expect(sleeps(call), "a read that sleeps", "%s", state(call));
		disturb();
		expect(sleeps(call), "a read that still sleeps", "%s", state(call));
		expect(write(fd, &byte, 1) == 1, "a write of 1", "another result");
		expect(result(call, "1") == 1, "1", "%s", told(call->result));
		waitpid(call->pid, NULL, 0);
		expect(disturb() > 0, "the other devices' interrupts", "none: their reads fail");
	}
}
