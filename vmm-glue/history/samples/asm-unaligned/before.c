// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <asm/unaligned.h>

static u8 bytes[5];

static int __init sample_init(void)
{
	pr_info("%u\n", get_unaligned_le32(bytes + 1));
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
