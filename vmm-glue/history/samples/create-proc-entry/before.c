// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/proc_fs.h>

static int __init sample_init(void)
{
	create_proc_entry("sample", 0444, NULL);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
