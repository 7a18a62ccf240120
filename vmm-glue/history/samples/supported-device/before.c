// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>

MODULE_SUPPORTED_DEVICE("sample");
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
