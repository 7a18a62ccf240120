// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/list.h>

struct sample {
	struct hlist_node node;
};

static HLIST_HEAD(head);

static int __init sample_init(void)
{
	struct sample *sample;
	struct hlist_node *node;

	hlist_for_each_entry(sample, node, &head, node)
		pr_info("%p\n", sample);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
