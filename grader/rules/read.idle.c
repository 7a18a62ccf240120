// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* read.idle: a waiting read takes no CPU time and is not woken for nothing. */
#include "rule.h"

/* Times that the process has gone to sleep. */
static long switches(pid_t pid)
{
	char path[64], line[128];
	long count = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file))
		sscanf(line, "voluntary_ctxt_switches: %ld", &count);
	if (file)
		fclose(file);
	return count;
}

static long cpu_us(pid_t pid)
{
	struct timespec time = { 0 };
	clockid_t clock;

	clock_getcpuclockid(pid, &clock);
	clock_gettime(clock, &time);
	return time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

static void rule(void)
{
	struct call *call = begin_read(fifo(O_RDWR), 10);
	long times, cpu;

	doing("a process sleeps in read() of an empty FIFO for half a second");
	expect(sleeps(call), "a read that sleeps", "%s", state(call));
	times = switches(call->pid);
	cpu = cpu_us(call->pid);
	pause_ms(500);
	times = switches(call->pid) - times;
	cpu = cpu_us(call->pid) - cpu;
	expect(!returned(call), "a read that still sleeps", "%s", state(call));
	expect(cpu < 100000, "no CPU time", "%ld ms of CPU time", cpu / 1000);
	expect(times < 5, "a process that is not woken", "%ld wake-ups", times);
}
