// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/uaccess.h>

static bool readable(void __user *from)
{
	return access_ok(VERIFY_READ, from, 1);
}

static int __init sample_init(void)
{
	pr_info("%d\n", readable(NULL));
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
