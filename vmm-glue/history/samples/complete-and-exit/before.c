// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/kthread.h>
#include <linux/completion.h>

static DECLARE_COMPLETION(done);

static int thread(void *data)
{
	complete_and_exit(&done, 0);
}

static int __init sample_init(void)
{
	kthread_run(thread, NULL, "sample");
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
