// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/device.h>

static struct class *sample_class;

static int __init sample_init(void)
{
	device_create(sample_class, NULL, MKDEV(231, 0), "sample");
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
