// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/semaphore.h>

static struct semaphore sem;

static int __init sample_init(void)
{
	init_MUTEX(&sem);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
