// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/device.h>

static struct class *sample_class;

static int __init sample_init(void)
{
	sample_class = class_create("sample");
	if (IS_ERR(sample_class))
		return PTR_ERR(sample_class);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
