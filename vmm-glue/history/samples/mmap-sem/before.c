// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/mm.h>

static int __init sample_init(void)
{
	down_read(&current->mm->mmap_sem);
	up_read(&current->mm->mmap_sem);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
