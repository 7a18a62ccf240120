// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/blkdev.h>

static int __init sample_init(void)
{
	struct gendisk *disk = blk_alloc_disk(NULL, NUMA_NO_NODE);

	if (IS_ERR(disk))
		return PTR_ERR(disk);
	put_disk(disk);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
