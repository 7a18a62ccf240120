// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* fasync.band: with F_SETSIG si_fd tells the file, and si_band POLL_IN from POLL_OUT. */
#include "rule.h"

static void rule(void)
{
	int fd = fifo(O_RDWR), other = fifo(O_RDWR);
	siginfo_t info = { 0 };
	char bytes[100];

	hold(SIGRTMIN);
	hold(SIGIO);
	doing("F_SETSIG to SIGRTMIN, O_ASYNC, write 1 byte");
	fcntl(fd, F_SETSIG, SIGRTMIN);
	ask_signals(fd);
	expect(write(other, "x", 1) == 1, "a write of 1", "another result");
	do
		expect(comes(SIGRTMIN, SOON, &info), "a signal with POLL_IN", "none");
	while (info.si_code == POLL_OUT);
	expect(info.si_fd == fd, "si_fd of the file", "%d instead of %d", info.si_fd, fd);
	expect(info.si_code == POLL_IN && (info.si_band & POLLIN), "POLL_IN and POLLIN", "si_code %d, si_band 0x%lx", info.si_code, (long)info.si_band);
	doing("fill the FIFO, read 100 bytes");
	fill();
	while (comes(SIGRTMIN, GRACE, NULL))
		;
	expect(read(other, bytes, sizeof(bytes)) > 0, "bytes", "none");
	expect(becomes(fd, POLLOUT), "POLLOUT", "none");
	do
		if (!comes(SIGRTMIN, GRACE * 10, &info))
			absent("no signal for room");
	while (info.si_code == POLL_IN);
	expect(info.si_code == POLL_OUT && (info.si_band & POLLOUT), "POLL_OUT and POLLOUT", "si_code %d, si_band 0x%lx", info.si_code, (long)info.si_band);
}
