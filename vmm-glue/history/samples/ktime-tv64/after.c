// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/ktime.h>

static int __init sample_init(void)
{
	ktime_t now = ktime_get();

	pr_info("%lld\n", now);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
