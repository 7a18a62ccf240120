// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* epoll.oneshot: EPOLLONESHOT tells once, until it is armed again. */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR | O_NONBLOCK), poller = epoll_create1(0);
	struct epoll_event event = { .events = EPOLLIN | EPOLLONESHOT }, got;

	doing("epoll_ctl(EPOLLIN | EPOLLONESHOT), write 1 byte twice");
	expect(epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) == 0, "0", "-1");
	expect(write(fd, "x", 1) == 1, "a write of 1", "another result");
	expect(epoll_wait(poller, &got, 1, SOON) == 1, "an event", "none after %d s", SOON / 1000);
	expect(write(fd, "x", 1) == 1, "a write of 1", "another result");
	expect(epoll_wait(poller, &got, 1, GRACE) == 0, "no second event", "one");
	doing("EPOLL_CTL_MOD");
	epoll_ctl(poller, EPOLL_CTL_MOD, fd, &event);
	expect(epoll_wait(poller, &got, 1, SOON) == 1, "an event: the bytes are still there", "none");
}
