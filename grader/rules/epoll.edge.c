// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* epoll.edge: with EPOLLET each arrival is told, and none twice. */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR | O_NONBLOCK), poller = epoll_create1(0);
	struct epoll_event event = { .events = EPOLLIN | EPOLLET }, got;

	doing("epoll_ctl(EPOLLIN | EPOLLET)");
	expect(epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) == 0, "0", "-1");
	for (int i = 0; i < 3; i++) {
		doing("write 1 byte, which stays unread");
		expect(write(fd, "x", 1) == 1, "a write of 1", "another result");
		expect(epoll_wait(poller, &got, 1, SOON) == 1, "an event", "none after %d s", SOON / 1000);
		/* A write may wake more than once; without a write there is none. */
		while (epoll_wait(poller, &got, 1, GRACE) == 1)
			;
		expect(epoll_wait(poller, &got, 1, 0) == 0, "no event without an arrival", "one");
	}
}
