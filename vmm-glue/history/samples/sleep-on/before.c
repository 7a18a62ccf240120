// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/wait.h>

static DECLARE_WAIT_QUEUE_HEAD(queue);

static int __init sample_init(void)
{
	interruptible_sleep_on(&queue);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
