// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* epoll.exclusive: of several that wait with EPOLLEXCLUSIVE at least one is woken by each arrival. */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR | O_NONBLOCK), woken = 0;
	struct epoll_event event = { .events = EPOLLIN | EPOLLEXCLUSIVE };
	struct pollfd asks[3];
	char byte;

	doing("three epolls with EPOLLEXCLUSIVE; write 1 byte, read it, 20 times");
	for (int i = 0; i < 3; i++) {
		asks[i] = (struct pollfd){ .fd = epoll_create1(0), .events = POLLIN };
		expect(epoll_ctl(asks[i].fd, EPOLL_CTL_ADD, fd, &event) == 0, "0", "-1");
	}
	for (int i = 0; i < 20; i++) {
		expect(write(fd, "x", 1) == 1, "a write of 1", "another result");
		woken = poll(asks, 3, SOON);
		expect(woken >= 1, "one of them is woken", "none, in round %d", i);
		expect(becomes(fd, POLLIN) && read(fd, &byte, 1) == 1, "a read of 1", "another result");
	}
}
