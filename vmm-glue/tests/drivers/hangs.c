// SPDX-License-Identifier: GPL-2.0-only
/* Its init waits for what nobody does. */
#include <linux/completion.h>
#include <linux/module.h>

static DECLARE_COMPLETION(never);

static int __init hangs_init(void)
{
	wait_for_completion(&never);
	return 0;
}
module_init(hangs_init);

MODULE_DESCRIPTION("init hangs");
MODULE_LICENSE("GPL");
