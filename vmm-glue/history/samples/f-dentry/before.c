// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/fs.h>

static int sample_open(struct inode *inode, struct file *filp)
{
	pr_info("%pd\n", filp->f_dentry);
	return 0;
}

static const struct file_operations sample_fops = {
	.owner = THIS_MODULE,
	.open = sample_open,
};

static int __init sample_init(void)
{
	pr_info("%p\n", &sample_fops);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
