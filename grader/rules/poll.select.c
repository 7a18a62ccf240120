// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* poll.select: select() tells the same as poll(), for reading and for writing. */
#include "rule.h"

/* Bit 0: readable, bit 1: writable. */
static int ask(int fd, long ms)
{
	struct timeval time = { ms / 1000, ms % 1000 * 1000 };
	fd_set in, out;
	int got;

	FD_ZERO(&in);
	FD_ZERO(&out);
	FD_SET(fd, &in);
	FD_SET(fd, &out);
	got = select(fd + 1, &in, &out, NULL, &time);
	return got < 0 ? -1 : (FD_ISSET(fd, &in) ? 1 : 0) + (FD_ISSET(fd, &out) ? 2 : 0);
}

static void rule(void)
{
	const char *words[] = { "neither", "readable", "writable", "both" };
	int fd = fifo(O_RDWR | O_NONBLOCK), seen;

	doing("select() an empty FIFO");
	expect(becomes(fd, POLLOUT), "room", "none");
	seen = ask(fd, 0);
	expect(seen == 2, "writable alone", "%s", seen < 0 ? "an error" : words[seen]);
	doing("write 1 byte, select()");
	expect(write(fd, "x", 1) == 1, "a write of 1", "another result");
	expect(becomes(fd, POLLIN), "readable", "not");
	seen = ask(fd, 0);
	expect(seen == 3, "both", "%s", seen < 0 ? "an error" : words[seen]);
	fill();
	doing("fill it, select()");
	expect(ceases(fd, POLLOUT), "no room", "room");
	seen = ask(fd, 0);
	expect(seen == 1, "readable alone", "%s", seen < 0 ? "an error" : words[seen]);
}
