// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/interrupt.h>

static void work(struct tasklet_struct *tasklet)
{
}

static DECLARE_TASKLET(later, work);

static int __init sample_init(void)
{
	tasklet_schedule(&later);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
