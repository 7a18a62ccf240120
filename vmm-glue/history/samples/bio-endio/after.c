// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/blkdev.h>

static struct bio *sample;

static int __init sample_init(void)
{
	bio_io_error(sample);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
