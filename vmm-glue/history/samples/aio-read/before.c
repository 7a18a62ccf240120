// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/fs.h>
#include <linux/uio.h>

static ssize_t sample_aio_read(struct kiocb *iocb, const struct iovec *iov, unsigned long segments, loff_t pos)
{
	return 0;
}

static const struct file_operations sample_fops = {
	.owner = THIS_MODULE,
	.aio_read = sample_aio_read,
};

static int __init sample_init(void)
{
	pr_info("%p\n", &sample_fops);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
