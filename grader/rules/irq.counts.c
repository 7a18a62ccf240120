// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* irq.counts: bytes that arrive raise the device's interrupt, which /proc/interrupts counts. */
#include "rule.h"
#include "device.h"

/* Interrupts of the lines that have this name, on all CPUs. */
static unsigned long interrupts(const char *device)
{
	FILE *file = fopen("/proc/interrupts", "r");
	unsigned long sum = 0, count;
	char line[4096], *at;
	int used;

	while (file && fgets(line, sizeof(line), file)) {
		char *name = strstr(line, device);

		if (!name || (name[strlen(device)] >= '0' && name[strlen(device)] <= '9'))
			continue;
		for (at = strchr(line, ':') + 1; sscanf(at, " %lu%n", &count, &used) == 1; at += used)
			sum += count;
	}
	if (file)
		fclose(file);
	return sum;
}

static void rule(void)
{
	const char *device = virtio();
	unsigned long before = interrupts(device);
	int fd = fifo(O_RDWR);
	char byte = 'x';

	doing("read 20 times, each time waiting until 1 byte has been written");
	for (int i = 0; i < 20; i++) {
		struct call *call = &shared->calls[0];

		shared->count = 0;
		begin_read(fd, 1);
		expect(sleeps(call), "a read that sleeps", "%s", state(call));
		expect(write(fd, &byte, 1) == 1, "a write of 1", "another result");
		expect(result(call, "1") == 1, "1", "%s", told(call->result));
		waitpid(call->pid, NULL, 0);
	}
	/* Not 20: a driver may look for more for a while before it asks for interrupts again. */
	expect(interrupts(device) > before, "a higher count in /proc/interrupts", "the same, %lu", before);
}
