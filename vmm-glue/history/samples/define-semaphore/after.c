// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/semaphore.h>

static DEFINE_SEMAPHORE(sem, 1);

static int __init sample_init(void)
{
	down(&sem);
	up(&sem);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
