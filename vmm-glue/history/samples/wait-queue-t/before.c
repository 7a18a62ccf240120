// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/wait.h>

static int __init sample_init(void)
{
	wait_queue_t wait;

	init_waitqueue_entry(&wait, current);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
