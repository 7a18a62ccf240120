// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/smp_lock.h>

static int __init sample_init(void)
{
	lock_kernel();
	unlock_kernel();
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
