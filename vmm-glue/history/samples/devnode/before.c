// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/device.h>

static char *sample_devnode(struct device *dev, umode_t *mode)
{
	*mode = 0666;
	return NULL;
}

static struct class sample_class = {
	.name = "sample",
	.devnode = sample_devnode,
};

static int __init sample_init(void)
{
	return class_register(&sample_class);
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
