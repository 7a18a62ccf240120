/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR BSD-3-Clause OR Apache-2.0 */
/*
 * User-space interface of /dev/globalfifoN.
 */
#ifndef _UAPI_LINUX_GLOBALFIFO_H
#define _UAPI_LINUX_GLOBALFIFO_H

#include <linux/ioctl.h>

/* Default capacity of a FIFO, in bytes. */
#define GLOBALFIFO_SIZE		0x1000

/*
 * Empties the FIFO, in the driver and in the device, and wakes writers. The task that opened the
 * file must be allowed to write the node (EBADF); a descriptor for reading will do. FIFO_CLEAR is
 * the bare number that textbooks use; GLOBALFIFO_IOC_CLEAR is the same request in the kernel's
 * encoding.
 */
#define FIFO_CLEAR		0x1
#define GLOBALFIFO_IOC_MAGIC	0xF1
#define GLOBALFIFO_IOC_CLEAR	_IO(GLOBALFIFO_IOC_MAGIC, 1)

/* FIONREAD (<sys/ioctl.h>) gives the number of readable bytes as an int. */

#endif /* _UAPI_LINUX_GLOBALFIFO_H */
