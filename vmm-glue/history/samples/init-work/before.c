// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/workqueue.h>

static struct work_struct later;

static void work(void *data)
{
}

static int __init sample_init(void)
{
	INIT_WORK(&later, work, NULL);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
