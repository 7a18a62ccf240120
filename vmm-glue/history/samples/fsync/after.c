// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/fs.h>

static int sample_fsync(struct file *filp, loff_t start, loff_t end, int datasync)
{
	return 0;
}

static const struct file_operations sample_fops = {
	.owner = THIS_MODULE,
	.fsync = sample_fsync,
};

static int __init sample_init(void)
{
	pr_info("%p\n", &sample_fops);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
