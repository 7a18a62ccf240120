// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/platform_device.h>

static void sample_remove(struct platform_device *pdev)
{
}

static struct platform_driver sample_driver = {
	.driver = { .name = "sample" },
	.remove = sample_remove,
};
module_platform_driver(sample_driver);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
