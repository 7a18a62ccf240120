// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/io.h>

static int __init sample_init(void)
{
	iounmap(ioremap_nocache(0x1000, 16));
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
