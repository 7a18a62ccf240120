// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/hrtimer.h>

static struct hrtimer timer;

static enum hrtimer_restart fired(struct hrtimer *timer)
{
	return HRTIMER_NORESTART;
}

static int __init sample_init(void)
{
	hrtimer_setup(&timer, fired, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
