// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/wait.h>

static DECLARE_WAIT_QUEUE_HEAD(queue);
static bool ready = true;

static int __init sample_init(void)
{
	return wait_event_interruptible(queue, ready);
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
