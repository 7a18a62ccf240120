// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/proc_fs.h>

static const struct proc_ops sample_ops = {
	.proc_lseek = noop_llseek,
};

static int __init sample_init(void)
{
	proc_create("sample", 0444, NULL, &sample_ops);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
