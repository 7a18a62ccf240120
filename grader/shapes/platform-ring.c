// SPDX-License-Identifier: GPL-2.0-only
/*
 * A right driver in another shape: a platform driver whose probe makes the device, a ring with two positions, a spin lock for the positions
 * beside the mutexes of readers and of writers, exclusive waits.
 */
#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/platform_device.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#define NAME "ringfifo"
#define SIZE 4096u
#define FIFO_CLEAR 0x1

struct ring {
	struct cdev cdev;
	dev_t number;
	/* A reader changes `tail` and a writer `head`, each with its own mutex and the spin lock; FIFO_CLEAR takes both mutexes. */
	struct mutex reader;
	struct mutex writer;
	spinlock_t lock;
	unsigned int head;
	unsigned int tail;
	wait_queue_head_t wait;
	struct fasync_struct *async;
	unsigned char mem[SIZE];
};

static struct class *ring_class;
static struct platform_device *ring_device;

static unsigned int filled(struct ring *ring)
{
	unsigned int count;

	spin_lock(&ring->lock);
	count = ring->head - ring->tail;
	spin_unlock(&ring->lock);
	return count;
}

/* A side's mutex is held while bytes are copied, never while its task waits. */
static ssize_t ring_read(struct file *filp, char __user *buf, size_t count, loff_t *pos)
{
	struct ring *ring = filp->private_data;
	bool impatient = filp->f_flags & O_NONBLOCK;
	unsigned int at, first;
	ssize_t ret;

	if (!count)
		return 0;
	for (;;) {
		if (mutex_lock_interruptible(&ring->reader))
			return -ERESTARTSYS;
		if (filled(ring))
			break;
		mutex_unlock(&ring->reader);
		if (impatient)
			return -EAGAIN;
		ret = wait_event_interruptible(ring->wait, filled(ring) != 0);
		if (ret)
			return ret;
	}
	count = min_t(size_t, count, filled(ring));
	at = ring->tail % SIZE;
	first = min_t(size_t, count, SIZE - at);
	ret = -EFAULT;
	if (copy_to_user(buf, ring->mem + at, first) || copy_to_user(buf + first, ring->mem, count - first))
		goto out;
	spin_lock(&ring->lock);
	ring->tail += count;
	spin_unlock(&ring->lock);
	ret = count;
out:
	mutex_unlock(&ring->reader);
	if (ret > 0) {
		wake_up_interruptible(&ring->wait);
		kill_fasync(&ring->async, SIGIO, POLL_OUT);
	}
	return ret;
}

static ssize_t ring_write(struct file *filp, const char __user *buf, size_t count, loff_t *pos)
{
	struct ring *ring = filp->private_data;
	bool impatient = filp->f_flags & O_NONBLOCK;
	unsigned int at, first;
	ssize_t ret;

	if (!count)
		return 0;
	for (;;) {
		if (mutex_lock_interruptible(&ring->writer))
			return -ERESTARTSYS;
		if (filled(ring) < SIZE)
			break;
		mutex_unlock(&ring->writer);
		if (impatient)
			return -EAGAIN;
		ret = wait_event_interruptible(ring->wait, filled(ring) < SIZE);
		if (ret)
			return ret;
	}
	count = min_t(size_t, count, SIZE - filled(ring));
	at = ring->head % SIZE;
	first = min_t(size_t, count, SIZE - at);
	ret = -EFAULT;
	if (copy_from_user(ring->mem + at, buf, first) || copy_from_user(ring->mem, buf + first, count - first))
		goto out;
	spin_lock(&ring->lock);
	ring->head += count;
	spin_unlock(&ring->lock);
	ret = count;
out:
	mutex_unlock(&ring->writer);
	if (ret > 0) {
		wake_up_interruptible(&ring->wait);
		kill_fasync(&ring->async, SIGIO, POLL_IN);
	}
	return ret;
}

static __poll_t ring_poll(struct file *filp, poll_table *table)
{
	struct ring *ring = filp->private_data;
	unsigned int count;
	__poll_t mask = 0;

	poll_wait(filp, &ring->wait, table);
	count = filled(ring);
	if (count)
		mask |= EPOLLIN | EPOLLRDNORM;
	if (count < SIZE)
		mask |= EPOLLOUT | EPOLLWRNORM;
	return mask;
}

static long ring_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	struct ring *ring = filp->private_data;

	if (cmd != FIFO_CLEAR)
		return -ENOTTY;
	mutex_lock(&ring->reader);
	mutex_lock(&ring->writer);
	spin_lock(&ring->lock);
	ring->tail = ring->head;
	spin_unlock(&ring->lock);
	mutex_unlock(&ring->writer);
	mutex_unlock(&ring->reader);
	wake_up_interruptible(&ring->wait);
	return 0;
}

static int ring_fasync(int fd, struct file *filp, int mode)
{
	struct ring *ring = filp->private_data;

	return fasync_helper(fd, filp, mode, &ring->async);
}

static int ring_open(struct inode *inode, struct file *filp)
{
	filp->private_data = container_of(inode->i_cdev, struct ring, cdev);
	return nonseekable_open(inode, filp);
}

static int ring_release(struct inode *inode, struct file *filp)
{
	return ring_fasync(-1, filp, 0);
}

static const struct file_operations ring_fops = {
	.owner = THIS_MODULE,
	.open = ring_open,
	.release = ring_release,
	.read = ring_read,
	.write = ring_write,
	.poll = ring_poll,
	.fasync = ring_fasync,
	.unlocked_ioctl = ring_ioctl,
};

static int ring_probe(struct platform_device *pdev)
{
	struct ring *ring = devm_kzalloc(&pdev->dev, sizeof(*ring), GFP_KERNEL);
	struct device *node;
	int ret;

	if (!ring)
		return -ENOMEM;
	mutex_init(&ring->reader);
	mutex_init(&ring->writer);
	spin_lock_init(&ring->lock);
	init_waitqueue_head(&ring->wait);
	ret = alloc_chrdev_region(&ring->number, 0, 1, NAME);
	if (ret)
		return ret;
	cdev_init(&ring->cdev, &ring_fops);
	ret = cdev_add(&ring->cdev, ring->number, 1);
	if (ret)
		goto unregister;
	node = device_create(ring_class, &pdev->dev, ring->number, NULL, NAME "%d", 0);
	if (IS_ERR(node)) {
		ret = PTR_ERR(node);
		goto del;
	}
	platform_set_drvdata(pdev, ring);
	return 0;
del:
	cdev_del(&ring->cdev);
unregister:
	unregister_chrdev_region(ring->number, 1);
	return ret;
}

static void ring_remove(struct platform_device *pdev)
{
	struct ring *ring = platform_get_drvdata(pdev);

	device_destroy(ring_class, ring->number);
	cdev_del(&ring->cdev);
	unregister_chrdev_region(ring->number, 1);
}

static struct platform_driver ring_driver = {
	.probe = ring_probe,
	.remove = ring_remove,
	.driver = { .name = NAME, .suppress_bind_attrs = true },
};

static int __init ring_init(void)
{
	int ret;

	ring_class = class_create(NAME);
	if (IS_ERR(ring_class))
		return PTR_ERR(ring_class);
	ret = platform_driver_register(&ring_driver);
	if (ret)
		goto class;
	ring_device = platform_device_register_simple(NAME, PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(ring_device)) {
		ret = PTR_ERR(ring_device);
		goto driver;
	}
	return 0;
driver:
	platform_driver_unregister(&ring_driver);
class:
	class_destroy(ring_class);
	return ret;
}
module_init(ring_init);

static void __exit ring_exit(void)
{
	platform_device_unregister(ring_device);
	platform_driver_unregister(&ring_driver);
	class_destroy(ring_class);
}
module_exit(ring_exit);

MODULE_DESCRIPTION("FIFO as a platform driver, with a ring");
MODULE_LICENSE("GPL");
