// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/time.h>

static int __init sample_init(void)
{
	struct timeval now;

	do_gettimeofday(&now);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
