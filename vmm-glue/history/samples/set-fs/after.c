// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/fs.h>

static int __init sample_init(void)
{
	char byte;
	loff_t pos = 0;
	struct file *file = filp_open("/proc/version", O_RDONLY, 0);

	if (IS_ERR(file))
		return PTR_ERR(file);
	kernel_read(file, &byte, 1, &pos);
	filp_close(file, NULL);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
