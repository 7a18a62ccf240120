// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/mm.h>

static int __init sample_init(void)
{
	struct page *page;

	mmap_read_lock(current->mm);
	get_user_pages(0, 1, 0, &page);
	mmap_read_unlock(current->mm);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
