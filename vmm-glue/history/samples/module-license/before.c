// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>

static int __init sample_init(void)
{
	pr_info("loaded\n");
	return 0;
}
module_init(sample_init);
MODULE_DESCRIPTION("A sample of what changed");
