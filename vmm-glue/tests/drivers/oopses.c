// SPDX-License-Identifier: GPL-2.0-only
/* Its init follows a pointer that leads nowhere. */
#include <linux/module.h>

static int *nowhere;

static int __init oopses_init(void)
{
	return READ_ONCE(*nowhere);
}
module_init(oopses_init);

MODULE_DESCRIPTION("init oopses");
MODULE_LICENSE("GPL");
