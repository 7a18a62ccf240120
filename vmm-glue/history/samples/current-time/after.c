// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/timekeeping.h>

static int __init sample_init(void)
{
	pr_info("%lld\n", ktime_get_real_seconds());
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
