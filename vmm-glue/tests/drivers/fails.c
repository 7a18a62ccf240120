// SPDX-License-Identifier: GPL-2.0-only
/* Its init returns an error, and says why. */
#include <linux/module.h>

static int __init fails_init(void)
{
	pr_err("fails: the test's own reason\n");
	return -ENODEV;
}
module_init(fails_init);

MODULE_DESCRIPTION("init returns an error");
MODULE_LICENSE("GPL");
