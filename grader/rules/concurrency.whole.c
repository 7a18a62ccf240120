// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* concurrency.whole: what one write() took stands together in the FIFO, and nothing is lost, however many write at the same time. */
#include "rule.h"

#define WRITERS 3
#define WRITES 60

/* Ends of a writer's writes, counted in its own bytes. */
struct log { unsigned count, ends[WRITES * 8]; volatile bool over; };

/* A byte: whose it is, and its place modulo 64. */
static unsigned char at(int who, unsigned place)
{
	return who << 6 | (place & 63);
}

static void writer(int who, size_t most, struct log *log)
{
	static unsigned char bytes[8192];
	unsigned sent = 0;
	int fd = fifo(O_WRONLY);

	while (log->count < WRITES) {
		size_t size = 1 + (log->count * 977u + who * 331u) % most;
		long got;

		for (size_t i = 0; i < size; i++)
			bytes[i] = at(who, sent + i);
		got = write(fd, bytes, size);
		if (got <= 0)
			_exit(1);
		log->ends[log->count++] = sent += got;
	}
	log->over = true;
	_exit(0);
}

static bool is_end(struct log *log, unsigned place)
{
	for (unsigned i = 0; i < log->count; i++)
		if (log->ends[i] == place)
			return true;
	return false;
}

static void rule(void)
{
	struct log *logs = mmap(NULL, sizeof(*logs) * WRITERS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	static unsigned char bytes[65536], all[WRITERS * WRITES * 8192];
	unsigned seen[WRITERS] = { 0 }, total = 0;
	size_t capacity = fill(), most = capacity < 8192 ? capacity : 8192;
	int fd = fifo(O_RDONLY | O_NONBLOCK), last = -1;

	take(capacity);
	doing("%d processes write %d times each, up to %zu bytes at once; read all", WRITERS, WRITES, most);
	for (int who = 0; who < WRITERS; who++)
		if (fork() == 0)
			writer(who, most, &logs[who]);
	for (long end = now_ms() + SOON; now_ms() < end; ) {
		bool over = logs[0].over && logs[1].over && logs[2].over;
		long got = poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, over ? 0 : 100) == 1 ? read(fd, bytes, sizeof(bytes)) : 0;

		expect(total + (got > 0 ? (unsigned)got : 0) <= sizeof(all), "the bytes that were written", "more than %zu bytes", sizeof(all));
		if (got > 0) {
			memcpy(all + total, bytes, got);
			total += got;
			end = now_ms() + SOON;
		} else if (over && total >= logs[0].ends[WRITES - 1] + logs[1].ends[WRITES - 1] + logs[2].ends[WRITES - 1]) {
			break;
		}
	}
	for (unsigned i = 0; i < total; i++) {
		int who = all[i] >> 6;

		expect(who < WRITERS && all[i] == at(who, seen[who]), "each writer's bytes in order", "byte %u of writer %d is missing or changed", seen[who % WRITERS], who);
		expect(last == who || last < 0 || is_end(&logs[last], seen[last]), "a write's bytes together", "another's bytes inside a write, at byte %u", i);
		seen[last = who]++;
	}
	for (int who = 0; who < WRITERS; who++)
		expect(seen[who] == logs[who].ends[WRITES - 1] && logs[who].over, "all bytes that write() took", "%u of %u from writer %d", seen[who], logs[who].ends[WRITES - 1], who);
}
