// SPDX-License-Identifier: GPL-2.0-only
/* Registers a major and no more, as drivers did before there were classes: somebody else has to make the node. */
#include <linux/fs.h>
#include <linux/module.h>

static int answer = 7;
module_param(answer, int, 0444);
MODULE_PARM_DESC(answer, "value that the test reads back");

static int major;

static const struct file_operations bare_fops = {
	.owner = THIS_MODULE,
	.llseek = noop_llseek,
};

static int __init bare_init(void)
{
	major = register_chrdev(0, "bare", &bare_fops);
	return major < 0 ? major : 0;
}
module_init(bare_init);

static void __exit bare_exit(void)
{
	unregister_chrdev(major, "bare");
}
module_exit(bare_exit);

MODULE_DESCRIPTION("a major without a class");
MODULE_LICENSE("GPL");
