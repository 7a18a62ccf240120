// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/timer.h>

struct sample {
	struct timer_list timer;
	int fired;
};

static struct sample sample;

static void fired(struct timer_list *timer)
{
	struct sample *owner = timer_container_of(owner, timer, timer);

	owner->fired++;
}

static int __init sample_init(void)
{
	timer_setup(&sample.timer, fired, 0);
	return 0;
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
