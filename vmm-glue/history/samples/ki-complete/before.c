// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/fs.h>

static ssize_t sample_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	iocb->ki_complete(iocb, 0, 0);
	return -EIOCBQUEUED;
}

static const struct file_operations sample_fops = {
	.owner = THIS_MODULE,
	.read_iter = sample_read_iter,
};

static int __init sample_init(void)
{
	pr_info("%p\n", &sample_fops);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
