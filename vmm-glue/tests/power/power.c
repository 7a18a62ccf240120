// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * The last thing that a guest does, with the file open: writes COUNT bytes to PATH, and then at once
 *
 *   power off PATH COUNT                       switches the machine off
 *   power restart PATH COUNT                   restarts it
 *   power kexec PATH COUNT KERNEL COMMANDLINE  starts another kernel
 *
 * Byte n is n % 251. Does not return; status 1 if something fails before.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* In one call for most, and ten at the end on their own: those wait for company. */
static void write_all(int fd, const char *bytes, size_t count)
{
	while (count) {
		ssize_t n = write(fd, bytes, count > 10 ? count - 10 : count);

		if (n <= 0)
			err(1, "write");
		bytes += n;
		count -= n;
	}
}

int main(int argc, char **argv)
{
	size_t count, i;
	char *bytes;
	int command, fd;

	if (argc < 4)
		errx(2, "usage: power off|restart|kexec PATH COUNT [KERNEL COMMANDLINE]");
	command = LINUX_REBOOT_CMD_POWER_OFF;
	if (!strcmp(argv[1], "restart"))
		command = LINUX_REBOOT_CMD_RESTART;
	if (!strcmp(argv[1], "kexec")) {
		int kernel = open(argv[4], O_RDONLY);

		if (kernel < 0)
			err(1, "%s", argv[4]);
		/* KEXEC_FILE_NO_INITRAMFS */
		if (syscall(SYS_kexec_file_load, kernel, -1, strlen(argv[5]) + 1, argv[5], 4ul))
			err(1, "kexec_file_load");
		command = LINUX_REBOOT_CMD_KEXEC;
	}
	count = strtoul(argv[3], NULL, 10);
	bytes = malloc(count);
	if (!bytes)
		err(1, "malloc");
	for (i = 0; i < count; i++)
		bytes[i] = i % 251;
	fd = open(argv[2], O_RDWR);
	if (fd < 0)
		err(1, "%s", argv[2]);
	write_all(fd, bytes, count);
	syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, command, NULL);
	err(1, "reboot");
}
