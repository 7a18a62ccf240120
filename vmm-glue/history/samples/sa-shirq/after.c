// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
#include <linux/interrupt.h>

static irqreturn_t sample_handler(int irq, void *dev)
{
	return IRQ_HANDLED;
}

static int sample;

static int __init sample_init(void)
{
	return request_irq(9, sample_handler, IRQF_SHARED, "sample", &sample);
}
module_init(sample_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A sample of what changed");
