// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/spinlock.h>

static spinlock_t lock = SPIN_LOCK_UNLOCKED;

static int __init sample_init(void)
{
	spin_lock(&lock);
	spin_unlock(&lock);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
