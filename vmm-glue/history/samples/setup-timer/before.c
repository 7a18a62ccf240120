// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/timer.h>

static struct timer_list timer;

static void fired(unsigned long data)
{
}

static int __init sample_init(void)
{
	setup_timer(&timer, fired, 0);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
