// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

static int sample_show(struct seq_file *file, void *data)
{
	return 0;
}

static int sample_open(struct inode *inode, struct file *filp)
{
	return single_open(filp, sample_show, PDE_DATA(inode));
}

static const struct proc_ops sample_ops = {
	.proc_open = sample_open,
	.proc_read = seq_read,
};

static int __init sample_init(void)
{
	proc_create("sample", 0444, NULL, &sample_ops);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
