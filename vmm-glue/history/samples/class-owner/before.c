// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/device.h>

static struct class sample_class = {
	.name = "sample",
	.owner = THIS_MODULE,
};

static int __init sample_init(void)
{
	return class_register(&sample_class);
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
