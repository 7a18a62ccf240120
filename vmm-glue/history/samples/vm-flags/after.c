// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/fs.h>
#include <linux/mm.h>

static int sample_mmap(struct file *filp, struct vm_area_struct *vma)
{
	vm_flags_set(vma, VM_DONTEXPAND);
	return 0;
}

static const struct file_operations sample_fops = {
	.owner = THIS_MODULE,
	.mmap = sample_mmap,
};

static int __init sample_init(void)
{
	pr_info("%p\n", &sample_fops);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
